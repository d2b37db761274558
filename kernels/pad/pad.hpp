// Padding by constant, reflection, edge or wrapping; negative pads cut.
#pragma once
#include <utility>

#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace movement {

enum class PadMode : std::uint8_t { constant, reflect, edge, wrap };

/// Where the padded position `i` (0 is the first of the source) comes from in [0, n); -1: the constant.
inline std::int64_t pad_source(std::int64_t i, std::int64_t n, PadMode mode) {
    if (i >= 0 && i < n) return i;
    switch (mode) {
        case PadMode::constant: return -1;
        case PadMode::edge: return i < 0 ? 0 : n - 1;
        case PadMode::wrap: return (i % n + n) % n;
        default: {
            if (n == 1) return 0;
            if (i < 0 && -i < n) return -i;
            if (i >= n && i < 2 * n - 1) return 2 * n - 2 - i;
            std::int64_t period = 2 * (n - 1), m = (i % period + period) % period;
            return m < n ? m : period - m;
        }
    }
}

/// Inputs data, pads (int64), constant_value (optional), axes (optional). Scratch holds a table of
/// source positions for each axis.
class Pad final : public Kernel {
public:
    explicit Pad(PadMode mode) : mode_(mode) {}
    const char* name() const noexcept override { return "pad.portable"; }
    Booking book(std::span<const View>, std::span<const View> out, int) const override {
        std::size_t n = 0;
        for (std::int64_t d : out[0].shape()) n += static_cast<std::size_t>(d);
        return {n * sizeof(std::int64_t), nullptr};
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        std::int64_t before[max_rank] = {};
        read_pads(call, before);
        const std::int64_t* table[max_rank];
        auto* t = reinterpret_cast<std::int64_t*>(call.scratch);
        const int last = last_padded(x, y, before);
        for (int a = 0; a < y.rank; ++a) {
            const std::int64_t n = y.dims[a];
            if (x.dims[a] == 0 && mode_ != PadMode::constant) raise(ErrorCode::shape_mismatch, "a dimension of 0 cannot be padded from its content");
            table[a] = t;
            const auto [c0, c1] = inside(n, x.dims[a], before[a]);
            for (std::int64_t i = 0; i < c0; ++i) t[i] = pad_source(i - before[a], x.dims[a], mode_);
            for (std::int64_t i = c0; a != last && i < c1; ++i) t[i] = i - before[a];  // runs of the last one are copied whole
            for (std::int64_t i = c1; i < n; ++i) t[i] = pad_source(i - before[a], x.dims[a], mode_);
            t += n;
        }
        dispatch_size(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T value{};
            if (call.in.size() > 2 && call.in[2].present() && call.in[2].count() > 0) value = *call.in[2].in<T>();
            rows(x, y, x.in<T>(), y.out<T>(), value, table, before, call.workers);
        });
    }

private:
    /// The axis whose rows are copied; those after it are copied whole. -1: rank 0.
    static int last_padded(const View& x, const View& y, const std::int64_t* before) {
        int last = y.rank - 1;
        while (last > 0 && x.dims[last] == y.dims[last] && before[last] == 0) --last;
        return last;
    }
    /// The positions [first, second) of n that come from the nx of the source in their order.
    static std::pair<std::int64_t, std::int64_t> inside(std::int64_t n, std::int64_t nx, std::int64_t before) {
        const std::int64_t c0 = std::min(n, std::max<std::int64_t>(0, before));
        return {c0, std::max(c0, std::min(n, before + nx))};
    }
    void read_pads(const Call& call, std::int64_t* before) const {
        const View& x = call.in[0];
        Ints pads = read_ints(call.in[1], "pads"), axes;
        bool listed = call.in.size() > 3 && call.in[3].present();
        if (listed) axes = read_ints(call.in[3], "axes");
        int n = listed ? axes.n : x.rank;
        if (pads.n != 2 * n) raise(ErrorCode::shape_mismatch, "pads must have two values for each axis");
        for (int k = 0; k < pads.n; ++k)
            if (pads[k] > (std::int64_t{1} << 60) || pads[k] < -(std::int64_t{1} << 60)) raise(ErrorCode::shape_mismatch, "a pad beyond 2^60");
        for (int k = 0; k < n; ++k) before[listed ? norm_axis(axes[k], x.rank) : k] = pads[k];
    }
    template <class T>
    void rows(const View& x, const View& y, const T* s, T* d, const T& value, const std::int64_t* const* table, const std::int64_t* before, Workers& workers) const {
        const int last = last_padded(x, y, before);
        const std::int64_t block = y.count(last + 1, y.rank);
        if (last < 0) {
            *d = *s;
            return;
        }
        const std::int64_t n = y.dims[last], nx = x.dims[last];
        const auto columns = inside(n, nx, before[last]);
        const std::int64_t c0 = columns.first, c1 = columns.second;
        const std::int64_t* tab = table[last];
        auto place = [&](int axis, std::int64_t i) { return table[axis][i]; };
        workers.ranges(y.count(0, last), std::max<std::int64_t>(1, tile_elements / (n * block)), [&](std::int64_t b, std::int64_t e) {
            SourceRow source(last, x.dims, place);
            for (Counter row(last, y.dims, b); b < e; ++b, row.next()) {
                const std::int64_t off = source(row);
                T* q = d + b * n * block;
                if (off < 0) {
                    std::fill(q, q + n * block, value);
                    continue;
                }
                const T* p = s + off * nx * block;
                auto edge = [&](std::int64_t from, std::int64_t to) {
                    for (std::int64_t c = from; c < to; ++c) {
                        if (block == 1) q[c] = tab[c] < 0 ? value : p[tab[c]];
                        else if (tab[c] < 0) std::fill(q + c * block, q + (c + 1) * block, value);
                        else copy_run(q + c * block, p + tab[c] * block, block);
                    }
                };
                edge(0, c0);
                if (c1 > c0) copy_run(q + c0 * block, p + (c0 - before[last]) * block, (c1 - c0) * block);
                edge(c1, n);
            }
        });
    }
    PadMode mode_;
};

}  // namespace movement
QUERN_END
