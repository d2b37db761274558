// Resizing as a kernel of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/resize/cuda.hpp>
#include <quern/kernels/resize/problem.hpp>

QUERN_BEGIN
namespace resize {

static_assert(static_cast<int>(CudaCoord::asymmetric) == static_cast<int>(Coord::asymmetric) && static_cast<int>(CudaMode::cubic) == static_cast<int>(Mode::cubic) &&
              static_cast<int>(CudaNearest::simple) == static_cast<int>(Nearest::simple));

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) { unread = host_in = ~1u; }
    const char* name() const noexcept override { return "resize.cuda"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        const Spec& s = p_.spec;
        CudaResize r;
        r.mode = static_cast<CudaMode>(s.mode);
        r.coord = s.coord == Coord::tf_half_pixel_for_nn ? CudaCoord::tf_half_pixel_for_nn : static_cast<CudaCoord>(s.coord);
        r.nearest = static_cast<CudaNearest>(s.nearest);
        r.cubic_a = s.cubic_a;
        r.exclude_outside = s.exclude_outside;
        int first = x.rank, last = -1;
        for (int a : s.axes)
            if (moves(x, y, a)) first = std::min(first, a), last = std::max(last, a);
        if (last < 0) first = 0;
        if (last - first + 1 > max_resized) raise(ErrorCode::unsupported, "resizing over more than 3 neighbouring axes");
        r.outer = x.count(0, first);
        r.inner = x.count(last + 1, x.rank);
        if (last < 0) r.outer = 1, r.inner = x.count();
        for (int a = first; a <= last; ++a, ++r.axes) {
            r.in[r.axes] = x.dims[a], r.out[r.axes] = y.dims[a];
            r.scale[r.axes] = x.dims[a] ? static_cast<double>(y.dims[a]) / static_cast<double>(x.dims[a]) : 1;
            if (!p_.scales.empty()) r.scale[r.axes] = scale_of(a);
        }
        r.x = x.in<float>();
        r.y = y.out<float>();
        cuda::check(cuda_resize(r, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    double scale_of(int axis) const {
        for (std::size_t k = 0; k < p_.spec.axes.size() && k < p_.scales.size(); ++k)
            if (p_.spec.axes[k] == axis) return static_cast<double>(p_.scales[k]);
        return 1;
    }
    bool moves(const View& x, const View& y, int axis) const { return x.dims[axis] != y.dims[axis] || (!p_.scales.empty() && scale_of(axis) != 1); }
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (!p.ready) return "scales or sizes that are not known when planning";
    if (p.spec.antialias) return "antialiasing";
    if (p.spec.coord == Coord::tf_crop_and_resize) return "tf_crop_and_resize";
    if (p.spec.aspect != Aspect::stretch) return "a kept aspect ratio";
    int apart = 0;
    for (std::size_t k = 0; k < p.spec.axes.size(); ++k)
        if (p.scales.empty() || p.scales[k] != 1) ++apart;
    if (!p.scales.empty() && apart > max_resized) return "more than 3 resized axes";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> resize_cuda;
const Entry<Problem> resize_cuda{"resize.cuda", refuse_cuda, make_cuda};

}  // namespace resize
QUERN_END
