// Pooling over sliding windows, and over whole planes.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/transpose/region.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/vec/reductions.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace pool {

enum class Op : std::uint8_t { max, average, lp };

/// in[0] = X [N, C, d...] (nhwc: [N, d..., C]), out[0] = Y, out[1] = indices (max, nchw; may be absent): positions in
/// X flattened, `column_major` inside a plane (https://onnx.ai/onnx/operators/onnx__MaxPool.html). Output dims decide how many
/// windows there are. f32, f64; max also i32, i64, and u8 and i8 (portable). Padding counts in an average if `count_padding`, elements
/// beyond the padding never do. A window of padding only gives the least value (max) or 0.
struct Problem {
    DType dtype = DType::f32;
    conv::Layout layout = conv::Layout::nchw;
    conv::Window window;
    Op op = Op::max;
    bool count_padding = false, indices = false, column_major = false;
    float p = 2;
};

/// The taps of one window along one dimension: indices [from, to) of the kernel fall inside the input.
struct Taps {
    std::int64_t start, from, to, counted;
};
inline Taps taps(std::int64_t o, std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t dilation,
                 std::int64_t begin, std::int64_t end, bool count_padding) {
    Taps t;
    t.start = o * stride - begin;
    t.from = t.start >= 0 ? 0 : std::min(kernel, (-t.start + dilation - 1) / dilation);
    t.to = t.start >= size ? t.from : std::max(t.from, std::min(kernel, (size - t.start + dilation - 1) / dilation));
    t.counted = count_padding ? std::min(kernel, (size + end - t.start + dilation - 1) / dilation) : t.to - t.from;
    return t;
}

template <class T> constexpr T lowest() {
    if constexpr (std::numeric_limits<T>::has_infinity) return -std::numeric_limits<T>::infinity();
    else return std::numeric_limits<T>::lowest();
}

class WindowKernel final : public Kernel {
public:
    WindowKernel(const Problem& p, const vec::Table& t) : p_(p), t_(t), images_(vec::image_table(t.isa)), reductions_(vec::reduce_table(t.isa)) {
        strided_in = p_.layout == conv::Layout::nhwc ? 1u : 0u;
        strided_out = p_.layout == conv::Layout::nhwc;
    }
    const char* name() const noexcept override { return "pool.window"; }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(workers) * std::max(row_bytes(in[0]), plane_bytes(in[0]));
        return b;
    }
    void run(const Call& c) const override {
        auto any = [&](auto tag) {
            using T = typename decltype(tag)::type;
            if (p_.indices && c.out.size() > 1 && c.out[1].present()) with_indices<T>(c);
            else go<T>(c);
        };
        if (p_.dtype == DType::u8) any(TypeTag<std::uint8_t>{});
        else if (p_.dtype == DType::i8) any(TypeTag<std::int8_t>{});
        else dispatch_arith(p_.dtype, any);
    }

private:
    /// A row of sums or maxima, and its phases (across()).
    static std::size_t row_bytes(const View& x) { return x.count() ? (static_cast<std::size_t>(x.dim(-1)) * 16 + 64 + 63) / 64 * 64 : 0; }
    struct Axis {
        std::int64_t in, out, kernel, stride, dilation, begin, end;
        Taps at(std::int64_t o, bool count_padding) const { return taps(o, in, kernel, stride, dilation, begin, end, count_padding); }
    };
    std::vector<Axis> axes(const View& x, const View& y) const {
        const conv::Window& w = p_.window;
        int first = p_.layout == conv::Layout::nchw ? 2 : 1;
        std::vector<Axis> a;
        for (int d = 0; d < w.spatial(); ++d) {
            Axis s{x.dims[first + d], y.dims[first + d], w.kernel[d], w.strides[d], w.dilations[d], 0, 0};
            s.begin = w.pad_begin(d, s.in);
            if (w.auto_pad == conv::AutoPad::notset) s.end = w.pads[d + w.spatial()];
            else if (w.auto_pad != conv::AutoPad::valid)
                s.end = std::max<std::int64_t>(0, (s.out - 1) * s.stride + (s.kernel - 1) * s.dilation + 1 - s.in - s.begin);
            a.push_back(s);
        }
        return a;
    }

    template <class T>
    void accumulate(const T* x, T* acc, std::int64_t n) const {
        if constexpr (std::is_same_v<T, float>) {
            if (p_.op == Op::max) return t_.accumulate_f32[static_cast<int>(vec::Reduce::max)](x, acc, n);
            if (p_.op == Op::average) return t_.accumulate_f32[static_cast<int>(vec::Reduce::sum)](x, acc, n);
            if (p_.p == 2) return t_.accumulate_f32[static_cast<int>(vec::Reduce::sum_square)](x, acc, n);
            if (p_.p == 1) return t_.accumulate_f32[static_cast<int>(vec::Reduce::sum_abs)](x, acc, n);
        }
        if (p_.op == Op::max) {
            for (std::int64_t i = 0; i < n; ++i) acc[i] = x[i] > acc[i] ? x[i] : acc[i];
        } else if constexpr (std::is_floating_point_v<T>) {
            if (p_.op == Op::average)
                for (std::int64_t i = 0; i < n; ++i) acc[i] += x[i];
            else
                for (std::int64_t i = 0; i < n; ++i) acc[i] += static_cast<T>(std::pow(std::fabs(x[i]), static_cast<T>(p_.p)));
        }
    }
    /// Elements of a window, padding included, which need not fit into 64 bits.
    static std::int64_t times(std::int64_t a, std::int64_t b) noexcept { return __builtin_mul_overflow(a, b, &a) ? INT64_MAX : a; }
    template <class T>
    T finish(T v, std::int64_t count) const {
        if constexpr (std::is_floating_point_v<T>) {
            if (p_.op == Op::average) return count > 0 ? v / static_cast<T>(count) : T{0};
            if (p_.op == Op::lp) return p_.p == 2 ? std::sqrt(v) : p_.p == 1 ? v : static_cast<T>(std::pow(v, T{1} / static_cast<T>(p_.p)));
        }
        return v;
    }
    /// Sums or takes the maximum of all rows, `row` elements apart, that a window touches in the leading axes: acc [length].
    template <class T>
    void rows(const T* x, std::int64_t row, const std::vector<Axis>& a, int lead, const Taps* t, std::int64_t length, T* acc) const {
        std::fill_n(acc, length, p_.op == Op::max ? lowest<T>() : T{0});
        std::int64_t k[8];
        for (int d = 0; d < lead; ++d)
            if ((k[d] = t[d].from) == t[d].to) return;
        for (;;) {
            std::int64_t at = 0;
            for (int d = 0; d < lead; ++d) at = at * a[d].in + t[d].start + k[d] * a[d].dilation;
            accumulate(x + at * row, acc, length);
            int d = lead - 1;
            for (; d >= 0; --d) {
                if (++k[d] < t[d].to) break;
                k[d] = t[d].from;
            }
            if (d < 0) return;
        }
    }
    /// One output pixel in channels last, its taps in registers; false where there are none, or too many.
    bool pixel(const float* x, std::int64_t row, const std::vector<Axis>& a, int lead, const Taps* t, std::int64_t length, std::int64_t count, float* y) const {
        const float* list[64];
        std::int64_t n = 1, k[8];
        for (int d = 0; d < lead; ++d) n *= t[d].to - t[d].from, k[d] = t[d].from;
        if (n < 1 || n > 64 || (p_.op == Op::average && count < 1)) return false;
        for (std::int64_t i = 0; i < n; ++i) {
            std::int64_t at = 0;
            for (int d = 0; d < lead; ++d) at = at * a[d].in + t[d].start + k[d] * a[d].dilation;
            list[i] = x + at * row;
            for (int d = lead - 1; d >= 0 && ++k[d] == t[d].to; --d) k[d] = t[d].from;
        }
        images_.pool_pixel_f32(p_.op == Op::max, n, list, length, static_cast<float>(count), y);
        return true;
    }
    /// y[o] over one output row from the combined input row. With strides of 2 to 4, each phase of the row, whose taps are neighbours, lies in
    /// `phases`: [stride, each].
    template <class T>
    void across(const T* row, const Axis& a, std::int64_t count, T* phases, T* y) const {
        std::fill_n(y, a.out, p_.op == Op::max ? lowest<T>() : T{0});
        const bool split = a.stride > 1 && a.stride <= 4 && a.kernel > 1 && a.in >= 8;
        const std::int64_t each = a.in / a.stride + 1;
        for (std::int64_t s = 0; split && s < a.stride; ++s) movement::copy_strided(phases + s * each, row + s, a.stride, (a.in - s + a.stride - 1) / a.stride);
        // Of a window that is mostly padding the elements that its outputs touch are looked up.
        for (std::int64_t o = 0; a.kernel > 2 * (a.in + a.out) && o < a.out; ++o) {
            const Taps t = a.at(o, false);
            for (std::int64_t k = t.from; k < t.to; ++k) {
                const T v = row[t.start + k * a.dilation];
                if (p_.op != Op::max) y[o] += v;
                else if (v > y[o]) y[o] = v;
            }
        }
        for (std::int64_t k = 0; a.kernel <= 2 * (a.in + a.out) && k < a.kernel; ++k) {
            std::int64_t off = k * a.dilation - a.begin;  // o * stride + off in [0, in)
            if (off >= a.in) break;
            std::int64_t from = off >= 0 ? 0 : (-off + a.stride - 1) / a.stride;
            std::int64_t to = std::min(a.out, (a.in - 1 - off) / a.stride + 1);
            if (from >= to) continue;
            const std::int64_t first = from * a.stride + off;
            const T* r = split ? phases + first % a.stride * each + first / a.stride : row + first;
            const std::int64_t step = split ? 1 : a.stride, n = to - from;
            T* z = y + from;
            if (p_.op == Op::max && step == 1) accumulate(r, z, n);
            else if (p_.op == Op::max)
                for (std::int64_t o = 0; o < n; ++o) z[o] = r[o * step] > z[o] ? r[o * step] : z[o];
            else if (step == 1)
                for (std::int64_t o = 0; o < n; ++o) z[o] += r[o];
            else
                for (std::int64_t o = 0; o < n; ++o) z[o] += r[o * step];
        }
        if (p_.op == Op::max) return;
        // Windows that lie inside count alike.
        const std::int64_t reach = (a.kernel - 1) * a.dilation, first = std::min(a.out, (a.begin + a.stride - 1) / a.stride);
        const std::int64_t last = a.in - 1 - reach + a.begin < 0 ? first : std::clamp((a.in - 1 - reach + a.begin) / a.stride + 1, first, a.out);
        auto one = [&](std::int64_t o) { y[o] = finish(y[o], p_.op == Op::average ? times(count, a.at(o, p_.count_padding).counted) : 0); };
        for (std::int64_t o = 0; o < first; ++o) one(o);
        const std::int64_t all = times(count, a.kernel);
        for (std::int64_t o = first; o < last; ++o) y[o] = finish(y[o], all);
        for (std::int64_t o = last; o < a.out; ++o) one(o);
    }
    /// All windows lie in the padding.
    template <class T>
    void empty(const View& y) const {
        const std::int64_t length = y.dim(-1), rows = y.count() / length;
        for (std::int64_t r = 0; r < rows; ++r) std::fill_n(y.out<T>() + r * y.row(), length, p_.op == Op::max ? lowest<T>() : T{0});
    }
    static constexpr std::int64_t most_taps = 16, most_shift = 16;
    /// Whether the maxima of several rows of a plane are found at a time: rows that the stride divides.
    bool many_rows(const Axis& v, const Axis& h) const noexcept {
        return p_.op == Op::max && h.stride <= 4 && h.in == h.out * h.stride && h.kernel <= most_taps && v.kernel <= most_taps && h.dilation <= most_shift &&
               h.begin >= 0 && h.begin <= most_shift && (h.kernel - 1) * h.dilation <= most_shift && h.in >= 8;
    }
    static std::int64_t rows_at_once(const View& x) noexcept { return std::clamp<std::int64_t>(8192 / std::max<std::int64_t>(1, x.dim(-1) * dtype_bits(x.dtype) / 8), 1, 64); }
    /// The maxima of rows, and their phases with margins.
    static std::size_t plane_bytes(const View& x) {
        return x.count() ? (static_cast<std::size_t>(2 * rows_at_once(x) * x.dim(-1) + 4 * 2 * most_shift) * static_cast<std::size_t>(dtype_bits(x.dtype)) / 8 + 127) / 64 * 64 : 0;
    }
    /// Output rows [o0, o0 + m) of one plane: first down the columns, then across all rows as if they were one. What took a neighbouring row's elements, at the
    /// ends of rows, is made again.
    template <class T>
    void maxima(const T* x, const Axis& v, const Axis& h, std::int64_t o0, std::int64_t m, T* down, T* y) const {
        const vec::ReduceLoops& loops = vec::loops_of<T>(reductions_);
        const std::int64_t n = h.in, each = h.out, all = m * each, span = all + 2 * most_shift;
        for (std::int64_t o = o0, count = 0; o < o0 + m; o += count) {
            const Taps t = v.at(o, false);
            count = 1;
            if (t.to - t.from == v.kernel) count = std::min(o0 + m - o, (v.in - 1 - (v.kernel - 1) * v.dilation - t.start) / v.stride + 1);
            if (t.from == t.to) std::fill_n(down + (o - o0) * n, n, lowest<T>());
            else loops.max_windows(x + (t.start + t.from * v.dilation) * n, t.to - t.from, t.to - t.from > 1 ? v.dilation * n : 0, count, count > 1 ? v.stride * n : 0, n, down + (o - o0) * n);
        }
        T* phases = down + m * n;
        for (std::int64_t s = 0; s < h.stride; ++s) {
            T* p = phases + s * span;
            std::fill_n(p, most_shift, lowest<T>());
            std::fill_n(p + most_shift + all, most_shift, lowest<T>());
            movement::copy_strided(p + most_shift, down + s, h.stride, all);
        }
        const void* taps[most_taps];
        std::int64_t from = 0, to = each;  // outputs whose taps are all in their row
        for (std::int64_t k = 0; k < h.kernel; ++k) {
            const std::int64_t at = k * h.dilation - h.begin, shift = at >= 0 ? at / h.stride : -((-at + h.stride - 1) / h.stride);
            taps[k] = phases + (at - shift * h.stride) * span + most_shift + shift;
            from = std::max(from, -shift);
            to = std::min(to, each - shift);
        }
        std::fill_n(y, all, lowest<T>());
        loops.rows[static_cast<int>(vec::Reduce::max)](taps, h.kernel, all, y);
        auto again = [&](std::int64_t o) {
            const Taps t = h.at(o, false);
            for (std::int64_t r = 0; r < m; ++r) {
                T best = lowest<T>();
                for (std::int64_t k = t.from; k < t.to; ++k) {
                    const T value = down[r * n + t.start + k * h.dilation];
                    if (value > best || value != value) best = value;
                }
                y[r * each + o] = best;
            }
        };
        for (std::int64_t o = 0; o < std::min(from, each); ++o) again(o);
        for (std::int64_t o = std::max(from, to); o < each; ++o) again(o);
    }
    template <class T>
    void go(const Call& call) const {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        if (x.count() == 0) return empty<T>(y);
        std::vector<Axis> a = axes(x, y);
        bool nhwc = p_.layout == conv::Layout::nhwc;
        int lead = static_cast<int>(a.size()) - (nhwc ? 0 : 1);
        std::int64_t planes = nhwc ? x.dims[0] : x.dims[0] * x.dims[1];
        const std::int64_t x_row = nhwc ? x.row() : x.dim(-1), y_row = nhwc ? y.row() : y.dim(-1);
        std::int64_t length = x.dim(-1), out_length = y.dim(-1), rows_in = 1, rows_out = 1, work = length + out_length;
        for (int d = 0; d < lead; ++d) rows_in *= a[d].in, rows_out *= a[d].out, work *= std::min(a[d].kernel, std::max<std::int64_t>(1, a[d].in));
        std::int64_t grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, work)), n = planes * rows_out;
        if (!nhwc && lead == 1 && many_rows(a[0], a[1])) {
            const std::int64_t block = rows_at_once(x);
            grain = std::max(grain / block, std::int64_t{1}) * block;
            call.workers.for_each((n + grain - 1) / grain, [&](std::int64_t tile, int worker) {
                std::byte* scratch = call.scratch + static_cast<std::size_t>(worker) * std::max(row_bytes(x), plane_bytes(x));
                for (std::int64_t r = tile * grain, m = 0, end = std::min(n, r + grain); r < end; r += m) {
                    m = std::min({block, end - r, rows_out - r % rows_out});
                    maxima(x.in<T>() + r / rows_out * rows_in * length, a[0], a[1], r % rows_out, m, reinterpret_cast<T*>(scratch), y.out<T>() + r * out_length);
                }
            });
            return;
        }
        call.workers.for_each((n + grain - 1) / grain, [&](std::int64_t tile, int worker) {
            T* tmp = reinterpret_cast<T*>(call.scratch + static_cast<std::size_t>(worker) * std::max(row_bytes(x), plane_bytes(x)));
            for (std::int64_t r = tile * grain; r < std::min(n, (tile + 1) * grain); ++r) {
                Taps t[8];
                std::int64_t rest = r % rows_out, count = 1;
                for (int d = lead - 1; d >= 0; --d) {
                    t[d] = a[d].at(rest % a[d].out, p_.count_padding);
                    rest /= a[d].out;
                    count = times(count, t[d].counted);
                }
                T* dst = y.out<T>() + r * y_row;
                const T* plane = x.in<T>() + r / rows_out * rows_in * x_row;
                if constexpr (std::is_same_v<T, float>) {
                    if (nhwc && p_.op != Op::lp && pixel(plane, x_row, a, lead, t, length, count, dst)) continue;
                }
                if (!nhwc && lead == 0 && p_.op != Op::lp) {
                    across(plane, a.back(), count, tmp + length, dst);
                    continue;
                }
                rows(plane, x_row, a, lead, t, length, nhwc ? dst : tmp);
                if (!nhwc) across(tmp, a.back(), count, tmp + length, dst);
                else if (p_.op != Op::max)
                    for (std::int64_t i = 0; i < length; ++i) dst[i] = finish(dst[i], count);
            }
        });
    }
    template <class T>
    void with_indices(const Call& call) const {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        if (x.count() == 0) {
            std::fill_n(call.out[1].out<std::int64_t>(), y.count(), std::int64_t{0});
            return empty<T>(y);
        }
        std::vector<Axis> a = axes(x, y);
        int n = static_cast<int>(a.size());
        std::int64_t plane_in = x.count(2, x.rank), plane_out = y.count(2, y.rank);
        std::int64_t* index = call.out[1].out<std::int64_t>();
        std::int64_t work = 1;
        for (const Axis& d : a) work *= std::min(d.kernel, d.in);
        call.workers.ranges(y.count(), std::clamp<std::int64_t>(65536 / work, 1, 4096), [&](std::int64_t from, std::int64_t to) {
            Taps t[8];
            std::int64_t k[8];
            for (std::int64_t i = from; i < to; ++i) {
                std::int64_t rest = i % plane_out, base = i / plane_out * plane_in, found = 0;
                bool empty = false, any = false;
                for (int d = n - 1; d >= 0; --d) {
                    t[d] = a[d].at(rest % a[d].out, false);
                    rest /= a[d].out;
                    k[d] = t[d].from;
                    empty |= t[d].from == t[d].to;
                }
                T best = lowest<T>();
                while (!empty) {
                    std::int64_t at = 0, column = 0, stride = 1;
                    for (int d = 0; d < n; ++d) {
                        std::int64_t pos = t[d].start + k[d] * a[d].dilation;
                        at = at * a[d].in + pos;
                        column += pos * stride;
                        stride *= a[d].in;
                    }
                    T v = x.in<T>()[base + at];
                    if (!any || v > best) best = v, found = p_.column_major ? column : at;
                    any = true;
                    int d = n - 1;
                    for (; d >= 0; --d) {
                        if (++k[d] < t[d].to) break;
                        k[d] = t[d].from;
                    }
                    empty = d < 0;
                }
                y.out<T>()[i] = best;
                index[i] = base + found;
            }
        });
    }
    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    const vec::ReduceTable& reductions_;
};

/// Y [N, C, 1...] from X [N, C, d...]: the maximum, mean or p-norm of each plane; f32 or f64.
class GlobalKernel final : public Kernel {
public:
    GlobalKernel(DType dtype, Op op, float p, const vec::Table& t) : dtype_(dtype), op_(op), p_(p), t_(t) {}
    const char* name() const noexcept override { return "pool.global"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        std::int64_t n = y.count(), plane = n ? x.count() / n : 0;
        c.workers.ranges(n, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, plane)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                if (dtype_ == DType::f32) y.out<float>()[i] = one(x.in<float>() + i * plane, plane);
                else y.out<double>()[i] = one(x.in<double>() + i * plane, plane);
            }
        });
    }

private:
    template <class T>
    T one(const T* x, std::int64_t n) const {
        if (op_ == Op::max && n == 0) return lowest<T>();
        if constexpr (std::is_same_v<T, float>) {
            if (op_ == Op::max) return t_.reduce_f32[static_cast<int>(vec::Reduce::max)](x, n);
            if (op_ == Op::average) return t_.reduce_f32[static_cast<int>(vec::Reduce::sum)](x, n) / static_cast<float>(n);
        }
        T s = op_ == Op::max ? x[0] : T{0};
        for (std::int64_t i = 0; i < n; ++i) {
            if (op_ == Op::max) s = x[i] > s ? x[i] : s;
            else if (op_ == Op::average) s += x[i];
            else s += p_ == 2 ? x[i] * x[i] : p_ == 1 ? std::fabs(x[i]) : static_cast<T>(std::pow(std::fabs(x[i]), static_cast<T>(p_)));
        }
        if (op_ == Op::average) return s / static_cast<T>(n);
        if (op_ == Op::lp) return p_ == 2 ? std::sqrt(s) : p_ == 1 ? s : static_cast<T>(std::pow(s, T{1} / static_cast<T>(p_)));
        return s;
    }
    DType dtype_;
    Op op_;
    float p_;
    const vec::Table& t_;
};

}  // namespace pool
QUERN_END
