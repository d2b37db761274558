// Movement as kernels of the plan: each operator is a region or a few.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/transpose/cuda.hpp>
#include <quern/kernels/transpose/problem.hpp>
#include <quern/kernels/transpose/slice.hpp>

QUERN_BEGIN
namespace movement {

using Kind = Problem::Kind;
static constexpr const char* kind_names[] = {"copy.cuda", "transpose.cuda", "slice.cuda", "concat.cuda", "split.cuda",
                                             "expand.cuda", "tile.cuda", "pad.cuda", "fill.cuda", "block_shuffle.cuda"};

class CudaMovementKernel final : public Kernel {
public:
    explicit CudaMovementKernel(const Problem& p) : p_(p), size_(dtype_bits(p.dtype) / 8) {
        switch (p.kind) {
            case Kind::slice: host_in = ~1u; break;
            case Kind::pad: host_in = 2u | 8u; break;
            case Kind::split:
            case Kind::expand:
            case Kind::tile: unread = host_in = 2; break;  // sizes are the output's
            case Kind::fill: unread = host_in = 1; break;
            default: break;
        }
    }
    const char* name() const noexcept override { return kind_names[static_cast<int>(p_.kind)]; }
    void run(const Call& c) const override {
        switch (p_.kind) {
            case Kind::copy: return copy_all(c);
            case Kind::transpose: return transpose(c);
            case Kind::slice: return slice(c);
            case Kind::concat: return pieces(c, c.in, c.out[0], true);
            case Kind::split: return pieces(c, c.out, c.in[0], false);
            case Kind::expand: return expand(c);
            case Kind::tile: return tile(c);
            case Kind::pad: return pad(c);
            case Kind::fill: return fill(c);
            case Kind::shuffle: return shuffle(c);
        }
    }

private:
    static cudaStream_t stream(const Call& c) { return static_cast<cudaStream_t>(c.stream); }
    void axis(CopyRegion& r, std::int64_t dim, std::int64_t from, std::int64_t to) const {
        if (!r.axis(dim, from, to)) raise(ErrorCode::unsupported, std::string(name()) + ": more than 8 dimensions that cannot be merged");
    }
    void go(const Call& c, const CopyRegion& r, const void* from, std::int64_t from_offset, void* to, std::int64_t to_offset) const {
        cuda::check(cuda_copy(r, size_, static_cast<const std::byte*>(from) + from_offset * size_, static_cast<std::byte*>(to) + to_offset * size_, stream(c)), name());
    }
    void copy_all(const Call& c) const {
        CopyRegion r;
        axis(r, c.out[0].count(), 1, 1);
        go(c, r, c.in[0].data, 0, c.out[0].data, 0);
    }
    void transpose(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        CopyRegion r;
        for (int i = 0; i < y.rank; ++i) axis(r, y.dims[i], sx[p_.perm[static_cast<std::size_t>(i)]], sy[i]);
        go(c, r, x.data, 0, y.data, 0);
    }
    void slice(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        const Ints starts = read_ints(c.in[1], "starts"), ends = read_ints(c.in[2], "ends");
        Ints axes, steps;
        if (c.in.size() > 3) axes = read_ints(c.in[3], "axes");
        if (c.in.size() > 4) steps = read_ints(c.in[4], "steps");
        if (starts.n > x.rank && axes.n == 0) raise(ErrorCode::shape_mismatch, "more starts than dimensions");
        std::int64_t sx[max_rank], sy[max_rank], offset = 0;
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        SliceRange ranges[max_rank];
        for (int i = 0; i < x.rank; ++i) ranges[i] = {0, 1, x.dims[i]};
        for (int k = 0; k < starts.n; ++k) {
            const int a = axes.n ? norm_axis(axes[k], x.rank) : k;
            const std::int64_t step = steps.n ? steps[k] : 1;
            if (step == 0) raise(ErrorCode::shape_mismatch, "a step of 0");
            ranges[a] = slice_range(x.dims[a], starts[k], ends[k], step);
        }
        CopyRegion r;
        for (int i = 0; i < x.rank; ++i) {
            if (ranges[i].length != y.dims[i]) raise(ErrorCode::internal, "slice of another length than inferred");
            offset += ranges[i].start * sx[i];
            axis(r, y.dims[i], y.dims[i] > 1 ? sx[i] * ranges[i].step : 0, sy[i]);
        }
        if (y.count()) go(c, r, x.data, offset, y.data, 0);
    }
    /// The parts, one after the other along the axis, are gathered into the whole or cut out of it.
    void pieces(const Call& c, std::span<const View> parts, const View& whole, bool gather) const {
        const std::int64_t inner = whole.count(p_.axis + 1, whole.rank), row = whole.dims[p_.axis] * inner;
        const std::int64_t outer = whole.count(0, p_.axis);
        std::int64_t at = 0;
        for (const View& v : parts) {
            const std::int64_t each = v.dims[p_.axis] * inner;
            CopyRegion r;
            axis(r, outer, gather ? each : row, gather ? row : each);
            axis(r, each, 1, 1);
            if (gather) go(c, r, v.data, 0, whole.data, at);
            else go(c, r, whole.data, at, v.data, 0);
            at += each;
        }
    }
    void expand(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        CopyRegion r;
        for (int i = 0; i < y.rank; ++i) {
            const int k = i - (y.rank - x.rank);
            axis(r, y.dims[i], k < 0 || x.dims[k] == 1 ? 0 : sx[k], sy[i]);
        }
        go(c, r, x.data, 0, y.data, 0);
    }
    void tile(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        if (y.count() == 0) return;
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        CopyRegion r;
        for (int i = 0; i < y.rank; ++i) {
            if (y.dims[i] != x.dims[i]) axis(r, y.dims[i] / x.dims[i], 0, sy[i] * x.dims[i]);
            axis(r, x.dims[i], sx[i], sy[i]);
        }
        go(c, r, x.data, 0, y.data, 0);
    }
    void pad(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        const Ints pads = read_ints(c.in[1], "pads");
        Ints axes;
        const bool listed = c.in.size() > 3 && c.in[3].present();
        if (listed) axes = read_ints(c.in[3], "axes");
        const int n = listed ? axes.n : x.rank;
        if (pads.n != 2 * n) raise(ErrorCode::shape_mismatch, "pads has " + std::to_string(pads.n) + " elements; accepted: " + std::to_string(2 * n));
        std::int64_t before[max_rank] = {};
        for (int k = 0; k < n; ++k) before[listed ? norm_axis(axes[k], x.rank) : k] = pads[k];
        static constexpr CudaPad modes[] = {CudaPad::constant, CudaPad::reflect, CudaPad::edge, CudaPad::wrap};
        const bool given = c.in.size() > 2 && c.in[2].present() && c.in[2].count() > 0;
        cuda::check(cuda_pad(modes[static_cast<int>(p_.mode)], x.rank, x.dims, y.dims, before, size_, x.data, given ? c.in[2].data : nullptr, y.data, stream(c)), name());
    }
    void fill(const Call& c) const {
        const std::uint64_t zero = 0;
        cuda::check(cuda_fill(p_.value.defined() ? p_.value.raw() : &zero, size_, c.out[0].count(), c.out[0].data, stream(c)), name());
    }
    void shuffle(const Call& c) const {
        const View &x = c.in[0], &y = c.out[0];
        if (y.count() == 0) return;
        const View &wide = p_.to_space ? y : x, &deep = p_.to_space ? x : y;
        const std::int64_t b = p_.block, n = wide.dims[1], h = deep.dims[2], w = deep.dims[3], plane = h * w;
        // over (N, C, H, i, W, j)
        const std::int64_t ws[6] = {n * plane * b * b, plane * b * b, w * b * b, w * b, b, 1};
        const std::int64_t ds[6] = {n * plane * b * b, p_.crd ? plane * b * b : plane, w, p_.crd ? plane * b : b * n * plane, 1, p_.crd ? plane : n * plane};
        const std::int64_t dims[6] = {wide.dims[0], n, h, b, w, b};
        CopyRegion r;
        for (int a = 0; a < 6; ++a) axis(r, dims[a], p_.to_space ? ds[a] : ws[a], p_.to_space ? ws[a] : ds[a]);
        go(c, r, x.data, 0, y.data, 0);
    }
    Problem p_;
    int size_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    const int bits = dtype_bits(p.dtype);
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return std::string("type ") + dtype_name(p.dtype);
    const int most = p.kind == Kind::tile ? max_copy_rank / 2 : max_copy_rank;
    if (p.rank > most) return "rank " + std::to_string(p.rank) + "; up to " + std::to_string(most) + " is accepted";
    if (!p.all_outputs) return "an output is not used; all must be";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaMovementKernel>(p); }

extern const Entry<Problem> movement_cuda;
const Entry<Problem> movement_cuda{"movement.cuda", refuse_cuda, make_cuda};

}  // namespace movement
QUERN_END
