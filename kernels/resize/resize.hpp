// Resize by coordinates computed per axis: nearest by index tables, linear and cubic by separable passes.
#pragma once
#include <cmath>
#include <vector>

#include <quern/base/saturate.hpp>
#include <quern/kernels/transpose/region.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace resize {

enum class Mode : std::uint8_t { nearest, linear, cubic };
enum class Coord : std::uint8_t { half_pixel, half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric, tf_crop_and_resize, tf_half_pixel_for_nn };
/// `simple` (opset 10 and Upsample): down for scales of at least 1, up below.
enum class Nearest : std::uint8_t { round_prefer_floor, round_prefer_ceil, floor, ceil, simple };
enum class Aspect : std::uint8_t { stretch, not_larger, not_smaller };

/// Attributes of https://onnx.ai/onnx/operators/onnx__Resize.html.
struct Spec {
    Mode mode = Mode::nearest;
    Coord coord = Coord::half_pixel;
    Nearest nearest = Nearest::round_prefer_floor;
    Aspect aspect = Aspect::stretch;
    double cubic_a = -0.75;
    bool exclude_outside = false, antialias = false;
    double extrapolation = 0;
    std::vector<int> axes;  ///< which axes the scales, sizes and roi speak of, in their order
};

/// Sizes and scales of all axes from the parameters: either `sizes` or `scales` is given (one for each of
/// spec.axes). Raises shape_mismatch for values that give no size.
inline void resolve(const Spec& s, std::span<const std::int64_t> in, const float* scales, const std::int64_t* sizes, std::int64_t* out, double* scale) {
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = in[i], scale[i] = 1;
    double common = 0;
    for (std::size_t k = 0; k < s.axes.size(); ++k) {
        std::size_t a = static_cast<std::size_t>(s.axes[k]);
        if (sizes) {
            if (sizes[k] < 0) raise(ErrorCode::shape_mismatch, "a size of " + std::to_string(sizes[k]) + "; 0 or more is accepted");
            out[a] = sizes[k];
            scale[a] = in[a] ? static_cast<double>(sizes[k]) / static_cast<double>(in[a]) : 1;
            if (k == 0 || (s.aspect == Aspect::not_larger ? scale[a] < common : scale[a] > common)) common = scale[a];
        } else {
            double f = static_cast<double>(scales[k]), n = std::floor(f * static_cast<double>(in[a]));
            if (!(f > 0)) raise(ErrorCode::shape_mismatch, "a scale of " + std::to_string(f) + "; more than 0 is accepted");
            if (!(n < 0x1p48)) raise(ErrorCode::out_of_memory, "a dimension scaled beyond 2^48");
            scale[a] = f;
            out[a] = static_cast<std::int64_t>(n);
        }
    }
    if (!sizes || s.aspect == Aspect::stretch) return;
    for (int a : s.axes) {
        scale[a] = common;
        if (!(common * static_cast<double>(in[a]) < 0x1p48)) raise(ErrorCode::out_of_memory, "a dimension scaled beyond 2^48");
        out[a] = static_cast<std::int64_t>(common * static_cast<double>(in[a]) + 0.5);
    }
}

/// Of one axis's table, which takes up to 16 bytes for each.
inline constexpr double most_entries = 0x1p25;
/// Where the outputs of one axis come from: `taps` source positions and weights for each.
struct Axis {
    int axis = 0;
    std::int64_t in = 1, out = 1;
    int taps = 1;
    std::vector<std::int64_t> index;
    std::vector<double> weight;          ///< empty for nearest
    std::vector<std::uint8_t> outside;   ///< empty, or 1 where the extrapolation value stands
    bool twice = false;                  ///< nearest: each position comes two times
    std::int64_t begin(std::int64_t o) const { return o * taps; }
};

inline double coordinate(const Spec& s, double x, std::int64_t in, std::int64_t out, double scale, double roi0, double roi1) {
    const double n = static_cast<double>(in), wide = static_cast<double>(out);
    const double length = std::fabs(scale * n - wide) < 1e-9 * wide ? wide : scale * n;  // a fraction where scales are given
    switch (s.coord) {
        case Coord::half_pixel: return (x + 0.5) / scale - 0.5;
        case Coord::half_pixel_symmetric: return n / 2 * (1 - wide / length) + (x + 0.5) / scale - 0.5;
        case Coord::pytorch_half_pixel: return length == 1 ? -0.5 : (x + 0.5) / scale - 0.5;
        case Coord::align_corners: return length == 1 ? 0 : x * (n - 1) / (length - 1);
        case Coord::asymmetric: return x / scale;
        case Coord::tf_half_pixel_for_nn: return (x + 0.5) / scale;
        default: return (length == 1 ? (roi1 - roi0) * (n - 1) / 2 : x * (roi1 - roi0) * (n - 1) / (length - 1)) + roi0 * (n - 1);
    }
}
inline double nearest_index(Nearest m, double x, double scale) {
    switch (m) {
        case Nearest::round_prefer_floor: return std::ceil(x - 0.5);
        case Nearest::round_prefer_ceil: return std::floor(x + 0.5);
        case Nearest::floor: return std::floor(x);
        case Nearest::ceil: return std::ceil(x);
        default: return scale < 1 ? std::ceil(x) : std::floor(x);
    }
}
inline double cubic(double x, double a) {
    x = std::fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}
/// Weights of the taps around `x`, stretched by antialiasing when the axis shrinks.
inline void weigh(const Spec& s, Axis& t, double x, double stretch, std::int64_t o) {
    std::int64_t* ix = t.index.data() + t.begin(o);
    double *w = t.weight.data() + t.begin(o), sum = 0;
    const double floor_x = std::floor(x);
    const std::int64_t first = static_cast<std::int64_t>(floor_x) - t.taps / 2 + 1;
    for (int k = 0; k < t.taps; ++k) {
        double d = (static_cast<double>(first + k) - x) * stretch;
        w[k] = s.mode == Mode::linear ? std::max(0.0, 1 - std::fabs(d)) : cubic(d, s.cubic_a);
        ix[k] = first + k;
        if (s.exclude_outside && (ix[k] < 0 || ix[k] >= t.in)) w[k] = 0;
        ix[k] = std::max<std::int64_t>(0, std::min(ix[k], t.in - 1));
        sum += w[k];
    }
    if ((stretch != 1 || s.exclude_outside) && sum != 0)
        for (int k = 0; k < t.taps; ++k) w[k] /= sum;
}
inline Axis make_axis(const Spec& s, int axis, std::int64_t in, std::int64_t out, double scale, double roi0, double roi1) {
    Axis t;
    t.axis = axis;
    t.in = in;
    t.out = out;
    const double stretch = s.antialias ? std::min(1.0, scale) : 1;
    const double reach = (s.mode == Mode::cubic ? 2 : 1) / stretch;
    if (s.mode != Mode::nearest) {
        if (!(reach < 0x1p24)) raise(ErrorCode::unsupported, "an antialiasing window of more than 2^24 elements");
        t.taps = 2 * static_cast<int>(std::ceil(reach));
    }
    if (static_cast<double>(t.taps) * static_cast<double>(out) > most_entries)
        raise(ErrorCode::out_of_memory, "axis " + std::to_string(axis) + " resized to " + std::to_string(out) + " elements of " + std::to_string(t.taps) + " sources each; 2^25 sources are accepted");
    if (s.mode != Mode::nearest) {
        t.weight.resize(static_cast<std::size_t>(out * t.taps));
    }
    t.index.resize(static_cast<std::size_t>(out * t.taps));
    if (s.coord == Coord::tf_crop_and_resize) t.outside.resize(static_cast<std::size_t>(out));
    for (std::int64_t o = 0; o < out; ++o) {
        double x = coordinate(s, static_cast<double>(o), in, out, scale, roi0, roi1);
        if (!t.outside.empty()) t.outside[static_cast<std::size_t>(o)] = !(x >= 0 && x <= static_cast<double>(in - 1));
        if (!(std::fabs(x) < 0x1p52)) x = 0;  // only of outside positions and absurd scales
        if (s.mode == Mode::nearest) t.index[static_cast<std::size_t>(o)] = std::max<std::int64_t>(0, std::min(static_cast<std::int64_t>(nearest_index(s.nearest, x, scale)), in - 1));
        else weigh(s, t, x, stretch, o);
    }
    t.twice = s.mode == Mode::nearest && t.outside.empty() && out == 2 * in;
    for (std::int64_t o = 0; t.twice && o < out; ++o) t.twice = t.index[static_cast<std::size_t>(o)] == o / 2;
    return t;
}
/// Nothing moves along this axis.
inline bool identity(const Axis& t) {
    if (t.in != t.out) return false;
    for (std::int64_t o = 0; o < t.out; ++o) {
        if (!t.outside.empty() && t.outside[static_cast<std::size_t>(o)]) return false;
        for (int k = 0; k < t.taps; ++k) {
            std::size_t p = static_cast<std::size_t>(t.begin(o) + k);
            if (t.weight.empty() ? t.index[p] != o : t.index[p] != o && t.weight[p] != 0) return false;
            if (!t.weight.empty() && t.index[p] == o && t.weight[p] != 0 && t.weight[p] != 1) return false;
        }
    }
    return true;
}

/// One pass: x[outer, in, inner] -> y[outer, out, inner].
template <class F> void pass(const Axis& t, F extrapolation, const F* x, F* y, std::int64_t outer, std::int64_t inner, Workers& workers) {
    const std::int64_t n = t.out;
    if (inner == 1) {
        workers.ranges(outer, std::max<std::int64_t>(1, movement::tile_elements / (n * t.taps)), [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) {
                const F* s = x + b * t.in;
                F* d = y + b * n;
                for (std::int64_t o = 0; o < n; ++o) {
                    const std::int64_t* ix = t.index.data() + t.begin(o);
                    const double* w = t.weight.data() + t.begin(o);
                    F v = 0;
                    for (int k = 0; k < t.taps; ++k) v += static_cast<F>(w[k]) * s[ix[k]];
                    d[o] = !t.outside.empty() && t.outside[static_cast<std::size_t>(o)] ? extrapolation : v;
                }
            }
        });
        return;
    }
    workers.ranges(outer * n, std::max<std::int64_t>(1, movement::tile_elements / (inner * t.taps)), [&](std::int64_t b, std::int64_t e) {
        for (; b < e; ++b) {
            const std::int64_t o = b % n;
            const F* s = x + b / n * t.in * inner;
            F* d = y + b * inner;
            if (!t.outside.empty() && t.outside[static_cast<std::size_t>(o)]) {
                std::fill(d, d + inner, extrapolation);
                continue;
            }
            const std::int64_t* ix = t.index.data() + t.begin(o);
            const double* w = t.weight.data() + t.begin(o);
            const F *s0 = s + ix[0] * inner, *s1 = s + ix[1] * inner;
            const F w0 = static_cast<F>(w[0]), w1 = static_cast<F>(w[1]);
            for (std::int64_t i = 0; i < inner; ++i) d[i] = w0 * s0[i] + w1 * s1[i];
            for (int k = 2; k < t.taps; ++k) {
                const F* sk = s + ix[k] * inner;
                const F wk = static_cast<F>(w[k]);
                for (std::int64_t i = 0; i < inner; ++i) d[i] += wk * sk[i];
            }
        }
    });
}

/// Two linear passes over neighbouring axes at once, with the bits of one after the other and nothing between them:
/// x[outer, rows.in, columns.in, inner] -> y[outer, rows.out, columns.out, inner], `apart` elements from each inner to the next.
template <class F> void planes(const Axis& columns, const Axis& rows, const F* x, F* y, std::int64_t outer, std::int64_t inner, std::int64_t apart, Workers& workers) {
    workers.ranges(outer * rows.out, std::max<std::int64_t>(1, movement::tile_elements / (columns.out * inner * 4)), [&](std::int64_t b, std::int64_t e) {
        for (; b < e; ++b) {
            const std::int64_t row = 2 * (b % rows.out);
            const F* plane = x + b / rows.out * rows.in * columns.in * inner;
            const F *above = plane + rows.index[static_cast<std::size_t>(row)] * columns.in * inner, *below = plane + rows.index[static_cast<std::size_t>(row) + 1] * columns.in * inner;
            const F v0 = static_cast<F>(rows.weight[static_cast<std::size_t>(row)]), v1 = static_cast<F>(rows.weight[static_cast<std::size_t>(row) + 1]);
            F* d = y + b * columns.out * apart;
            for (std::size_t o = 0; o < static_cast<std::size_t>(columns.out); ++o, d += apart) {
                const std::int64_t left = columns.index[2 * o] * inner, right = columns.index[2 * o + 1] * inner;
                const F *a0 = above + left, *a1 = above + right, *b0 = below + left, *b1 = below + right;
                const F h0 = static_cast<F>(columns.weight[2 * o]), h1 = static_cast<F>(columns.weight[2 * o + 1]);
                for (std::int64_t i = 0; i < inner; ++i) d[i] = v0 * (h0 * a0[i] + h1 * a1[i]) + v1 * (h0 * b0[i] + h1 * b1[i]);
            }
        }
    });
}

/// All moving axes, last one first.
struct Tables {
    std::vector<Axis> axes;
    /// planes() does it: channels last, both axes linear.
    bool planar(std::int64_t inner) const {
        auto linear = [](const Axis& a) { return a.taps == 2 && a.outside.empty(); };
        return axes.size() == 2 && axes[0].axis == axes[1].axis + 1 && linear(axes[0]) && linear(axes[1]) && inner >= 8;
    }
};
inline void build(const Spec& s, Tables& t, std::span<const std::int64_t> in, std::span<const std::int64_t> out, const double* scale, const double* roi) {
    for (int a = static_cast<int>(in.size()) - 1; a >= 0; --a) {
        std::size_t k = 0;
        while (k < s.axes.size() && s.axes[k] != a) ++k;
        if (k == s.axes.size()) continue;
        Axis x = make_axis(s, a, in[a], out[a], scale[a], roi ? roi[k] : 0, roi ? roi[s.axes.size() + k] : 1);
        if (!identity(x)) t.axes.push_back(std::move(x));
    }
}

/// y by index tables; every type. Where rows of y lie apart its last axis does not move.
template <class T> void nearest(const Tables& t, T extrapolation, const View& x, const View& y, Workers& workers) {
    const Axis* of[movement::max_rank] = {};
    for (auto& a : t.axes) of[a.axis] = &a;
    int last = y.rank - 1;
    std::int64_t block = 1;
    while (last > 0 && !of[last]) block *= y.dims[last--];
    const std::int64_t n = y.dims[last], nx = x.dims[last];
    const bool twice = of[last] && of[last]->twice;
    auto source = [&](const Axis* a, std::int64_t o) { return !a ? o : !a->outside.empty() && a->outside[static_cast<std::size_t>(o)] ? -1 : a->index[static_cast<std::size_t>(o)]; };
    auto place = [&](int axis, std::int64_t o) { return source(of[axis], o); };
    workers.ranges(y.count(0, last), std::max<std::int64_t>(1, movement::tile_elements / (n * block)), [&](std::int64_t b, std::int64_t e) {
        std::int64_t before = -1;  // source of the row before: the same again is copied
        const T* done = nullptr;
        movement::SourceRow from_row(last, x.dims, place);
        for (movement::Counter row(last, y.dims, b); b < e; ++b, row.next()) {
            const std::int64_t off = from_row(row);
            if (y.pitch) {
                const std::int64_t inner = y.dims[y.rank - 1], rows = block / inner;
                T* to = y.out<T>() + b * n * rows * y.pitch;
                for (std::int64_t o = 0; o < n; ++o) {
                    const std::int64_t p = off < 0 ? -1 : source(of[last], o);
                    const T* s = x.in<T>() + (p < 0 ? 0 : (off * nx + p) * block);
                    for (std::int64_t r = 0; r < rows; ++r, to += y.pitch) {
                        if (p < 0) std::fill(to, to + inner, extrapolation);
                        else movement::copy_run(to, s + r * inner, inner);
                    }
                }
                continue;
            }
            T* d = y.out<T>() + b * n * block;
            if (off < 0) {
                std::fill(d, d + n * block, extrapolation);
                continue;
            }
            if (off == before) {
                movement::copy_run(d, done, n * block);
                continue;
            }
            const T* s = x.in<T>() + off * nx * block;
            if (!of[last]) movement::copy_run(d, s, n * block);
            else if (block == 1 && twice) movement::zip(d, s, s, nx);
            else if (block == 1 && of[last]->outside.empty()) {
                const std::int64_t* from = of[last]->index.data();
                for (std::int64_t o = 0; o < n; ++o) d[o] = s[from[o]];
            } else for (std::int64_t o = 0; o < n; ++o) {
                std::int64_t p = source(of[last], o);
                if (p < 0) std::fill(d + o * block, d + (o + 1) * block, extrapolation);
                else movement::copy_run(d + o * block, s + p * block, block);
            }
            before = off;
            done = d;
        }
    });
}

template <class T, class F> F load(const T& v) {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) return static_cast<F>(to_float(v));
    else return static_cast<F>(v);
}
/// Integers are rounded half to even and saturate.
template <class T, class F> T store(F v) {
    if constexpr (std::is_same_v<T, Half>) return to_half(static_cast<float>(v));
    else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(static_cast<float>(v));
    else if constexpr (std::is_same_v<T, bool>) return v != 0;
    else if constexpr (std::is_integral_v<T>) {
        return saturated<T>(std::nearbyint(static_cast<double>(v)));
    } else return static_cast<T>(v);
}

/// Inputs X, roi, scales, sizes (the last three optional; one of scales and sizes is there).
class Resize final : public Kernel {
public:
    /// What is constant is given: empty vectors where not.
    Resize(Spec s, int rank, std::vector<float> scales, std::vector<double> roi, bool shape_only, bool measured)
        : spec_(std::move(s)), scales_(std::move(scales)), roi_(std::move(roi)), ready_(shape_only), measured_(measured) {
        strided_out = ready_ && std::find(spec_.axes.begin(), spec_.axes.end(), rank - 1) == spec_.axes.end();
    }
    const char* name() const noexcept override { return "resize.portable"; }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override {
        Booking b;
        if (ready_ && in[0].count() && out[0].count()) {
            auto t = std::make_shared<Tables>();
            double scale[movement::max_rank];
            scales_from_shapes(in[0], out[0], scale);
            build(spec_, *t, in[0].shape(), out[0].shape(), scale, roi_.empty() ? nullptr : roi_.data());
            b.state = t;
        }
        if (spec_.mode != Mode::nearest) b.scratch = 2 * buffer_bytes(static_cast<const Tables*>(b.state.get()), in[0], out[0]);
        if (out[0].pitch && b.state && !takes_pitch(*static_cast<const Tables*>(b.state.get()), in[0], out[0])) b.scratch += storage_bytes(out[0].dtype, out[0].count());
        return b;
    }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        if (!measured_) return false;
        double scale[movement::max_rank];
        dims[0].resize(static_cast<std::size_t>(call.in[0].rank));
        parameters(call, dims[0].data(), scale);
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        if (x.count() == 0) raise(ErrorCode::shape_mismatch, "an empty input cannot be resized to a non-empty output");
        Tables local;
        const Tables* t = static_cast<const Tables*>(call.state);
        if (!t) {
            double scale[movement::max_rank], roi[2 * movement::max_rank];
            std::int64_t out[movement::max_rank];
            parameters(call, out, scale);
            build(spec_, local, x.shape(), y.shape(), scale, read_roi(call, roi) ? roi : nullptr);
            t = &local;
        }
        if (y.pitch && !takes_pitch(*t, x, y)) {
            View dense = y;
            dense.pitch = 0;
            dense.data = call.scratch + (spec_.mode == Mode::nearest ? 0 : 2 * buffer_bytes(t, x, y));
            go(*t, x, dense, call);
            return copy_rows(dense, y, call.workers);
        }
        go(*t, x, y, call);
    }

private:
    /// Writes rows that lie apart itself.
    bool takes_pitch(const Tables& t, const View& x, const View& y) const {
        return t.axes.empty() || spec_.mode == Mode::nearest || (direct(y) && t.axes[0].axis == y.rank - 2 && t.planar(inner_of(t, x)));
    }
    static void copy_rows(const View& from, const View& to, Workers& w) {
        movement::Region r;
        r.axis(to.count(0, to.rank - 1), from.row(), to.row());
        r.axis(to.dim(-1), 1, 1);
        movement::copy(to.dtype, r, from.data, 0, to.data, 0, w);
    }
    void go(const Tables& t, const View& x, const View& y, const Call& call) const {
        if (t.axes.empty()) return y.pitch ? copy_rows(x, y, call.workers) : movement::copy_flat(y.dtype, x.data, 0, y.data, 0, y.count(), call.workers);
        if (spec_.mode == Mode::nearest) run_nearest(t, x, y, call.workers);
        else dispatch_plain(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            if constexpr (std::is_same_v<T, double> || (std::is_integral_v<T> && sizeof(T) >= 4)) passes<T, double>(t, x, y, call);
            else passes<T, float>(t, x, y, call);
        });
    }
    static bool direct(const View& y) { return y.dtype == DType::f32 || y.dtype == DType::f64; }
    static std::int64_t inner_of(const Tables& t, const View& x) { return t.axes.empty() ? 1 : x.count(t.axes[0].axis + 1, x.rank); }
    /// Of one of the two buffers that passes write in turn.
    static std::size_t buffer_bytes(const Tables* t, const View& x, const View& y) {
        if (t && direct(y) && (t->axes.size() < 2 || t->planar(inner_of(*t, x)))) return 0;
        std::int64_t n = y.dtype == DType::f64 || (is_integer(y.dtype) && dtype_bits(y.dtype) >= 32) ? 8 : 4;
        for (int i = 0; i < x.rank; ++i)  // no stage is larger
            if (__builtin_mul_overflow(n, std::max(x.dims[i], y.dims[i]), &n) || n > INT64_MAX / 4) raise(ErrorCode::out_of_memory, "what lies between the passes of this resize does not fit into memory");
        return (static_cast<std::size_t>(n) + 63) / 64 * 64;
    }
    void scales_from_shapes(const View& x, const View& y, double* scale) const {
        for (int i = 0; i < x.rank; ++i) scale[i] = static_cast<double>(y.dims[i]) / static_cast<double>(x.dims[i]);
        for (std::size_t k = 0; k < scales_.size(); ++k) scale[spec_.axes[k]] = static_cast<double>(scales_[k]);
    }
    void parameters(const Call& call, std::int64_t* out, double* scale) const {
        const std::size_t n = spec_.axes.size();
        if (call.in.size() > 3 && call.in[3].present() && call.in[3].count() > 0) {
            movement::Ints sizes = movement::read_ints(call.in[3], "sizes");
            if (static_cast<std::size_t>(sizes.n) != n) raise(ErrorCode::shape_mismatch, "one size for each axis is needed");
            return resolve(spec_, call.in[0].shape(), nullptr, sizes.v, out, scale);
        }
        const View& s = call.in[2];
        if (static_cast<std::size_t>(s.count()) != n) raise(ErrorCode::shape_mismatch, "one scale for each axis is needed");
        resolve(spec_, call.in[0].shape(), s.in<float>(), nullptr, out, scale);
    }
    bool read_roi(const Call& call, double* roi) const {
        if (spec_.coord != Coord::tf_crop_and_resize) return false;
        const View& r = call.in[1];
        if (!r.present() || r.count() != static_cast<std::int64_t>(2 * spec_.axes.size())) raise(ErrorCode::shape_mismatch, "roi needs a start and an end for each axis");
        dispatch_plain(r.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            for (std::int64_t k = 0; k < r.count(); ++k) roi[k] = load<T, double>(r.in<T>()[k]);
        });
        return true;
    }
    void run_nearest(const Tables& t, const View& x, const View& y, Workers& w) const {
        if (spec_.coord == Coord::tf_crop_and_resize)
            dispatch_plain(y.dtype, [&](auto tag) {
                using T = typename decltype(tag)::type;
                nearest<T>(t, store<T, double>(spec_.extrapolation), x, y, w);
            });
        else dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            nearest<T>(t, T{}, x, y, w);
        });
    }
    template <class T, class F> void passes(const Tables& t, const View& x, const View& y, const Call& call) const {
        F *buffer[2] = {reinterpret_cast<F*>(call.scratch), reinterpret_cast<F*>(call.scratch + buffer_bytes(static_cast<const Tables*>(call.state), x, y))};
        constexpr bool direct = std::is_same_v<T, F>;
        if constexpr (direct)
            if (std::int64_t inner = inner_of(t, x); t.planar(inner))
                return planes(t.axes[0], t.axes[1], x.in<F>(), y.out<F>(), x.count(0, t.axes[1].axis), inner, y.pitch ? y.pitch : inner, call.workers);
        const F* from;
        int next = 0;
        if constexpr (direct) from = x.in<F>();
        else {
            const T* s = x.in<T>();
            call.workers.ranges(x.count(), movement::tile_elements, [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) buffer[0][b] = load<T, F>(s[b]);
            });
            from = buffer[0];
            next = 1;
        }
        std::int64_t dims[movement::max_rank];
        std::copy(x.dims, x.dims + x.rank, dims);
        for (std::size_t k = 0; k < t.axes.size(); ++k) {
            const Axis& a = t.axes[k];
            std::int64_t outer = 1, inner = 1;
            for (int i = 0; i < a.axis; ++i) outer *= dims[i];
            for (int i = a.axis + 1; i < x.rank; ++i) inner *= dims[i];
            F* to = buffer[next];
            if constexpr (direct)
                if (k + 1 == t.axes.size()) to = y.out<F>();
            pass(a, static_cast<F>(spec_.extrapolation), from, to, outer, inner, call.workers);
            dims[a.axis] = a.out;
            from = to;
            next ^= 1;
        }
        if constexpr (!direct) {
            T* d = y.out<T>();
            call.workers.ranges(y.count(), movement::tile_elements, [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) d[b] = store<T, F>(from[b]);
            });
        }
    }
    Spec spec_;
    std::vector<float> scales_;
    std::vector<double> roi_;
    bool ready_, measured_;
};

}  // namespace resize
QUERN_END
