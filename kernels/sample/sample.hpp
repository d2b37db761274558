// Sampling at computed places: GridSample, AffineGrid, RoiAlign; and the inverses Col2Im and MaxUnpool; Det.
#pragma once
#include <cmath>
#include <vector>

#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace sample {

using movement::tile_elements;

enum class Interpolation : std::uint8_t { nearest, linear, cubic };
enum class Padding : std::uint8_t { zeros, border, reflection };

/// x[N, C, d...], grid[N, o..., r] -> y[N, C, o...]; r up to 4; x and y f32 or f64, grid either.
class GridSample final : public Kernel {
public:
    GridSample(Interpolation m, Padding p, bool align) : mode_(m), padding_(p), align_(align) {}
    const char* name() const noexcept override { return "grid_sample.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &grid = call.in[1], &y = call.out[0];
        if (y.count() == 0) return;
        if (x.count() == 0) raise(ErrorCode::shape_mismatch, "an empty image cannot be sampled");
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            dispatch_real(grid.dtype, [&](auto gtag) {
                using G = typename decltype(gtag)::type;
                const std::int64_t points = y.count(2, y.rank), channels = x.dims[1], r = x.rank - 2, plane = x.count(2, x.rank);
                call.workers.ranges(x.dims[0] * points, std::max<std::int64_t>(16, tile_elements / (channels << (2 * r))), [&](std::int64_t b, std::int64_t e) {
                    for (; b < e; ++b) {
                        std::int64_t at[256];
                        double w[256];
                        int n = taps(x, grid.in<G>() + b * r, at, w);
                        const T* s = x.in<T>() + b / points * channels * plane;
                        T* d = y.out<T>() + b / points * channels * points + b % points;
                        for (std::int64_t c = 0; c < channels; ++c) {
                            double v = 0;
                            for (int k = 0; k < n; ++k) v += w[k] * static_cast<double>(s[c * plane + at[k]]);
                            d[c * points] = static_cast<T>(v);
                        }
                    }
                });
            });
        });
    }

private:
    static double reflect(double v, double lo, double hi) {
        if (!(hi > lo)) return lo;
        double range = hi - lo, off = v < lo ? lo - v : v - hi, turns = std::floor(off / range), rest = off - turns * range;
        bool even = std::fmod(turns, 2.0) == 0;
        return (v < lo) == even ? lo + rest : hi - rest;
    }
    /// Source positions and weights of one point over all axes; positions that count as zero are left out.
    template <class G> int taps(const View& x, const G* g, std::int64_t* at, double* w) const {
        int n = 1;
        at[0] = 0;
        w[0] = 1;
        const int r = x.rank - 2;
        for (int a = 0; a < r; ++a) {
            const std::int64_t d = x.dims[a + 2];
            std::int64_t index[4];
            double weight[4];
            int k = axis_taps(static_cast<double>(g[r - 1 - a]), d, index, weight), m = 0;
            std::int64_t next[256];
            double nw[256];
            for (int i = 0; i < n; ++i)
                for (int j = 0; j < k; ++j) {
                    next[m] = at[i] * d + index[j];
                    nw[m++] = w[i] * weight[j];
                }
            std::copy(next, next + m, at);
            std::copy(nw, nw + m, w);
            n = m;
        }
        return n;
    }
    int axis_taps(double g, std::int64_t d, std::int64_t* index, double* weight) const {
        const double n = static_cast<double>(d), lo = align_ ? 0 : -0.5, hi = align_ ? n - 1 : n - 0.5;
        double v = align_ ? (g + 1) / 2 * (n - 1) : ((g + 1) * n - 1) / 2;
        if (mode_ == Interpolation::nearest) v = std::nearbyint(v);
        if (!(v >= lo && v <= hi)) {
            if (padding_ == Padding::border) v = v > hi ? n - 1 : 0;
            else if (padding_ == Padding::reflection) v = reflect(v, lo, hi);
        }
        if (!(std::fabs(v) < 0x1p52)) {
            if (padding_ == Padding::zeros) return 0;
            v = 0;
        }
        double base = std::floor(v), f = v - base;
        int count = 1, first = 0;
        double c[4] = {1, 0, 0, 0};
        if (mode_ == Interpolation::linear) count = 2, c[0] = 1 - f, c[1] = f;
        else if (mode_ == Interpolation::cubic) {
            count = 4, first = -1;
            for (int k = 0; k < 4; ++k) c[k] = cubic(f - (k - 1));
        }
        int m = 0;
        for (int k = 0; k < count; ++k) {
            auto i = static_cast<std::int64_t>(base) + first + k;
            if (i < 0 || i >= d) {
                if (padding_ == Padding::zeros) continue;
                if (padding_ == Padding::reflection) i = static_cast<std::int64_t>(reflect(static_cast<double>(i), lo, hi));
                i = std::max<std::int64_t>(0, std::min(i, d - 1));
            }
            index[m] = i;
            weight[m++] = c[k];
        }
        return m;
    }
    static double cubic(double x) {
        constexpr double a = -0.75;
        x = std::fabs(x);
        if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
    }
    Interpolation mode_;
    Padding padding_;
    bool align_;
};

/// theta[N, r, r + 1] -> grid[N, o..., r]: affine images of an evenly spaced grid over [-1, 1].
class AffineGrid final : public Kernel {
public:
    explicit AffineGrid(bool align) : align_(align) {}
    const char* name() const noexcept override { return "affine_grid.portable"; }
    void run(const Call& call) const override {
        const View &theta = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const int r = y.rank - 2;
        const std::int64_t points = y.count(1, y.rank - 1);
        dispatch_real(theta.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(y.dims[0] * points, 4096, [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    double p[4] = {0, 0, 0, 1};  // innermost axis first, then 1
                    std::int64_t rest = b % points;
                    for (int a = 0; a < r; ++a) {
                        std::int64_t n = y.dims[r - a], i = rest % n;
                        rest /= n;
                        p[a] = align_ ? (n > 1 ? 2.0 * static_cast<double>(i) / static_cast<double>(n - 1) - 1 : -1) : (2.0 * static_cast<double>(i) + 1) / static_cast<double>(n) - 1;
                    }
                    p[r] = 1;
                    const T* m = theta.in<T>() + b / points * r * (r + 1);
                    for (int k = 0; k < r; ++k) {
                        double v = 0;
                        for (int a = 0; a <= r; ++a) v += static_cast<double>(m[k * (r + 1) + a]) * p[a];
                        y.out<T>()[b * r + k] = static_cast<T>(v);
                    }
                }
            });
        });
    }

private:
    bool align_;
};

/// x[N, C, H, W], rois[n, 4], batch_indices[n] -> y[n, C, h, w].
class RoiAlign final : public Kernel {
public:
    RoiAlign(bool average, bool half_pixel, std::int64_t ratio, double scale) : average_(average), half_(half_pixel), ratio_(ratio), scale_(scale) {}
    const char* name() const noexcept override { return "roi_align.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        if (x.count() == 0) raise(ErrorCode::shape_mismatch, "an empty image cannot be sampled");
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.for_each(y.dims[0], [&](std::int64_t n) { roi<T>(call, n); });
        });
    }

private:
    struct Tap { std::int64_t at[4]; double w[4]; };
    static void tap(double y, double x, std::int64_t h, std::int64_t w, Tap& t) {
        t = {};
        if (!(y >= -1 && y <= static_cast<double>(h) && x >= -1 && x <= static_cast<double>(w))) return;
        y = std::max(y, 0.0);
        x = std::max(x, 0.0);
        std::int64_t y0 = std::min(static_cast<std::int64_t>(y), h - 1), x0 = std::min(static_cast<std::int64_t>(x), w - 1);
        std::int64_t y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
        double fy = y0 == h - 1 ? 0 : y - static_cast<double>(y0), fx = x0 == w - 1 ? 0 : x - static_cast<double>(x0);
        t = {{y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1}, {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx}};
    }
    template <class T> void roi(const Call& call, std::int64_t n) const {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t h = x.dims[2], w = x.dims[3], channels = x.dims[1], oh = y.dims[2], ow = y.dims[3];
        const T* r = call.in[1].in<T>() + n * 4;
        std::int64_t batch = 0;
        dispatch_index(call.in[2].dtype, [&](auto tag) { batch = static_cast<std::int64_t>(call.in[2].in<typename decltype(tag)::type>()[n]); });
        if (batch < 0 || batch >= x.dims[0]) raise(ErrorCode::shape_mismatch, "batch index " + std::to_string(batch) + "; accepted: 0 to " + std::to_string(x.dims[0] - 1));
        const double shift = half_ ? 0.5 : 0, x0 = static_cast<double>(r[0]) * scale_ - shift, y0 = static_cast<double>(r[1]) * scale_ - shift;
        double rw = static_cast<double>(r[2]) * scale_ - shift - x0, rh = static_cast<double>(r[3]) * scale_ - shift - y0;
        if (!half_) rw = std::max(rw, 1.0), rh = std::max(rh, 1.0);
        const double bh = rh / static_cast<double>(oh), bw = rw / static_cast<double>(ow);
        auto grid = [&](double bin) {
            double g = ratio_ > 0 ? static_cast<double>(ratio_) : std::ceil(bin);
            if (!(g < 0x1p16)) raise(ErrorCode::shape_mismatch, "a region with more than 65536 samples in one bin");
            return static_cast<std::int64_t>(std::max(g, 0.0));
        };
        const std::int64_t gh = grid(bh), gw = grid(bw), samples = gh * gw;
        if (samples > 1 << 22) raise(ErrorCode::shape_mismatch, "a region with more than 4194304 samples in one bin");
        // Samples may be many more than the pixels; what all bins together may cost follows from the image and the result.
        const double work = static_cast<double>(samples) * static_cast<double>(oh * ow) * static_cast<double>(channels);
        if (work > most_work + 64 * static_cast<double>(channels * (h * w + oh * ow)))
            raise(ErrorCode::shape_mismatch, "a region of " + std::to_string(samples) + " samples in each of " + std::to_string(oh * ow) + " bins; accepted: some 64 for each pixel and bin");
        std::vector<Tap> taps(static_cast<std::size_t>(samples));
        const T* image = x.in<T>() + batch * channels * h * w;
        for (std::int64_t p = 0; p < oh * ow; ++p) {
            for (std::int64_t i = 0; i < samples; ++i)
                tap(y0 + bh * (static_cast<double>(p / ow) + (static_cast<double>(i / gw) + 0.5) / static_cast<double>(gh)),
                    x0 + bw * (static_cast<double>(p % ow) + (static_cast<double>(i % gw) + 0.5) / static_cast<double>(gw)), h, w, taps[static_cast<std::size_t>(i)]);
            for (std::int64_t c = 0; c < channels; ++c) {
                const T* s = image + c * h * w;
                double v = 0;
                for (std::int64_t i = 0; i < samples; ++i) {
                    const Tap& t = taps[static_cast<std::size_t>(i)];
                    double a[4];
                    for (int k = 0; k < 4; ++k) a[k] = t.w[k] * static_cast<double>(s[t.at[k]]);
                    if (average_) v += a[0] + a[1] + a[2] + a[3];
                    else {
                        double m = std::max(std::max(a[0], a[1]), std::max(a[2], a[3]));
                        v = i ? std::max(v, m) : m;
                    }
                }
                if (average_) v /= static_cast<double>(std::max<std::int64_t>(samples, 1));
                y.out<T>()[(n * channels + c) * oh * ow + p] = static_cast<T>(v);
            }
        }
    }
    static constexpr double most_work = 0x1p20;  ///< samples of one region in all bins and channels, whatever its image is
    bool average_, half_;
    std::int64_t ratio_;
    double scale_;
};

/// x[N, C * prod(block), L] -> y[N, C, image...]: blocks added at their places. Empty lists: strides and dilations of 1, no padding.
class Col2Im final : public Kernel {
public:
    Col2Im(std::vector<std::int64_t> strides, std::vector<std::int64_t> pads, std::vector<std::int64_t> dilations)
        : strides_(std::move(strides)), pads_(std::move(pads)), dilations_(std::move(dilations)) {}
    const char* name() const noexcept override { return "col2im.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        movement::Ints block = movement::read_ints(call.in[2], "block_shape");
        const int r = y.rank - 2;
        if (block.n != r) raise(ErrorCode::shape_mismatch, "block_shape and image_shape must have the same length");
        movement::Ints strides, pads, dilations;
        auto fill = [](movement::Ints& to, const std::vector<std::int64_t>& from, int n, std::int64_t otherwise) {
            if (!from.empty() && from.size() != static_cast<std::size_t>(n)) raise(ErrorCode::shape_mismatch, "strides, pads and dilations do not fit an image of this rank");
            for (to.n = 0; to.n < n; ++to.n) to.v[to.n] = from.empty() ? otherwise : from[static_cast<std::size_t>(to.n)];
        };
        if (2 * r > movement::max_rank) raise(ErrorCode::unsupported, "an image of more than 32 dimensions");
        fill(strides, strides_, r, 1), fill(pads, pads_, 2 * r, 0), fill(dilations, dilations_, r, 1);
        std::int64_t steps[movement::max_rank], columns = 1, taps = 1;
        for (int i = 0; i < r; ++i) {
            if (block[i] < 1 || block[i] > INT32_MAX) raise(ErrorCode::shape_mismatch, "a block size of " + std::to_string(block[i]) + "; 1 or more is accepted");
            std::int64_t reach = y.dims[i + 2] + pads[i] + pads[r + i] - dilations[i] * (block[i] - 1) - 1;
            steps[i] = reach < 0 ? 0 : reach / strides[i] + 1;
            columns *= steps[i];
            taps *= block[i];
            if (taps > x.dims[1] || columns > x.dims[2]) break;  // the check below refuses it
        }
        if (columns != x.dims[2] || taps * y.dims[1] != x.dims[1])
            raise(ErrorCode::shape_mismatch, std::to_string(x.dims[1]) + " x " + std::to_string(x.dims[2]) + " columns; the image and block need " + std::to_string(taps * y.dims[1]) + " x " + std::to_string(columns));
        dispatch_arith(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const std::int64_t plane = y.count(2, y.rank);
            call.workers.for_each(y.dims[0] * y.dims[1], [&](std::int64_t nc) {
                T* d = y.out<T>() + nc * plane;
                const T* s = x.in<T>() + nc * taps * columns;
                std::fill(d, d + plane, T{});
                for (std::int64_t t = 0; t < taps; ++t)
                    for (std::int64_t c = 0; c < columns; ++c) {
                        std::int64_t tr = t, cr = c, at = 0, scale = 1;
                        bool inside = true;
                        for (int i = r - 1; i >= 0; --i) {
                            std::int64_t p = cr % steps[i] * strides[i] + tr % block[i] * dilations[i] - pads[i];
                            cr /= steps[i];
                            tr /= block[i];
                            if (p < 0 || p >= y.dims[i + 2]) { inside = false; break; }
                            at += p * scale;
                            scale *= y.dims[i + 2];
                        }
                        if (inside) d[at] += s[t * columns + c];
                    }
            });
        });
    }

private:
    std::vector<std::int64_t> strides_, pads_, dilations_;
};

/// y = 0, then y[index] = x: indices are linear in the shape that kernel, strides and pads imply, which
/// lies at the origin of y.
class MaxUnpool final : public Kernel {
public:
    MaxUnpool(std::vector<std::int64_t> kernel, std::vector<std::int64_t> strides, std::vector<std::int64_t> pads)
        : kernel_(std::move(kernel)), strides_(std::move(strides)), pads_(std::move(pads)) {}
    const char* name() const noexcept override { return "max_unpool.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        std::int64_t dims[movement::max_rank], sy[movement::max_rank], total = 1;
        movement::strides(y.shape(), sy);
        for (int i = 0; i < x.rank; ++i) {
            std::size_t k = static_cast<std::size_t>(i) - 2;
            dims[i] = i < 2 ? x.dims[i] : (x.dims[i] - 1) * strides_[k] + kernel_[k] - pads_[k] - pads_[kernel_.size() + k];
            if (__builtin_mul_overflow(total, std::max<std::int64_t>(dims[i], 0), &total)) raise(ErrorCode::shape_mismatch, "kernel_shape and strides imply a shape whose elements cannot be counted");
        }
        const std::int64_t* ix = call.in[1].in<std::int64_t>();
        if (call.in[1].count() != x.count()) raise(ErrorCode::shape_mismatch, "one index for each element is needed");
        dispatch_size(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            std::fill(y.out<T>(), y.out<T>() + y.count(), T{});
            for (std::int64_t k = 0, n = x.count(); k < n; ++k) {
                std::int64_t rest = ix[k], at = 0;
                if (rest < 0 || rest >= total) raise(ErrorCode::shape_mismatch, "index " + std::to_string(rest) + "; accepted: 0 to " + std::to_string(total - 1));
                bool inside = true;
                for (int i = x.rank - 1; i >= 0; --i) {
                    std::int64_t p = rest % dims[i];
                    rest /= dims[i];
                    if (p >= y.dims[i]) inside = false;
                    at += p * sy[i];
                }
                if (inside) y.out<T>()[at] = x.in<T>()[k];
            }
        });
    }

private:
    std::vector<std::int64_t> kernel_, strides_, pads_;
};

/// Determinants of matrices by elimination with row exchanges, in double.
class Det final : public Kernel {
public:
    const char* name() const noexcept override { return "det.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t n = x.dim(-1), matrices = y.count();
        if (matrices == 0) return;
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(matrices, std::max<std::int64_t>(1, tile_elements / std::max<std::int64_t>(1, n * n * n)), [&](std::int64_t b, std::int64_t e) {
                std::vector<double> m(static_cast<std::size_t>(n * n));
                for (; b < e; ++b) {
                    for (std::int64_t i = 0; i < n * n; ++i) m[static_cast<std::size_t>(i)] = static_cast<double>(x.in<T>()[b * n * n + i]);
                    y.out<T>()[b] = static_cast<T>(det(m.data(), n));
                }
            });
        });
    }

private:
    static double det(double* m, std::int64_t n) {
        double d = 1;
        for (std::int64_t k = 0; k < n; ++k) {
            std::int64_t p = k;
            for (std::int64_t i = k + 1; i < n; ++i)
                if (std::fabs(m[i * n + k]) > std::fabs(m[p * n + k])) p = i;
            if (m[p * n + k] == 0) return 0;
            if (p != k) {
                std::swap_ranges(m + p * n, m + p * n + n, m + k * n);
                d = -d;
            }
            d *= m[k * n + k];
            for (std::int64_t i = k + 1; i < n; ++i) {
                double f = m[i * n + k] / m[k * n + k];
                for (std::int64_t j = k + 1; j < n; ++j) m[i * n + j] -= f * m[k * n + j];
            }
        }
        return d;
    }
};

/// Inverses of matrices by elimination with row exchanges, in double. A singular matrix raises invalid_argument.
class Inverse final : public Kernel {
public:
    const char* name() const noexcept override { return "inverse.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (x.count() == 0) return;
        const std::int64_t n = x.dim(-1), each = n * n;
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(x.count() / each, std::max<std::int64_t>(1, tile_elements / (each * n)), [&](std::int64_t b, std::int64_t e) {
                std::vector<double> m(static_cast<std::size_t>(2 * n * n));  // the matrix beside the identity
                for (; b < e; ++b) {
                    for (std::int64_t i = 0; i < n; ++i)
                        for (std::int64_t j = 0; j < n; ++j) {
                            m[static_cast<std::size_t>(i * 2 * n + j)] = static_cast<double>(x.in<T>()[b * n * n + i * n + j]);
                            m[static_cast<std::size_t>(i * 2 * n + n + j)] = i == j;
                        }
                    invert(m.data(), n);
                    for (std::int64_t i = 0; i < n; ++i)
                        for (std::int64_t j = 0; j < n; ++j) y.out<T>()[b * n * n + i * n + j] = static_cast<T>(m[static_cast<std::size_t>(i * 2 * n + n + j)]);
                }
            });
        });
    }

private:
    static void invert(double* m, std::int64_t n) {
        const std::int64_t w = 2 * n;
        for (std::int64_t k = 0; k < n; ++k) {
            std::int64_t p = k;
            for (std::int64_t i = k + 1; i < n; ++i)
                if (std::fabs(m[i * w + k]) > std::fabs(m[p * w + k])) p = i;
            if (!(m[p * w + k] != 0)) raise(ErrorCode::invalid_argument, "a singular matrix has no inverse");
            if (p != k) std::swap_ranges(m + p * w, m + p * w + w, m + k * w);
            double f = 1 / m[k * w + k];
            for (std::int64_t j = k; j < w; ++j) m[k * w + j] *= f;
            for (std::int64_t i = 0; i < n; ++i) {
                if (i == k || m[i * w + k] == 0) continue;
                f = m[i * w + k];
                for (std::int64_t j = k; j < w; ++j) m[i * w + j] -= f * m[k * w + j];
            }
        }
    }
};

}  // namespace sample
QUERN_END
