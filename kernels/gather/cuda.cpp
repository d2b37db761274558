// Gathering and scattering as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/gather/cuda.hpp>
#include <quern/kernels/gather/problem.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/transpose/cuda.hpp>

QUERN_BEGIN
namespace gather {

using Kind = Problem::Kind;

class CudaGatherKernel final : public Kernel {
public:
    explicit CudaGatherKernel(const Problem& p) : p_(p), size_(dtype_bits(p.dtype) / 8), index_size_(dtype_bits(p.index) / 8) {
        if (p.kind == Kind::scatter_tuples) inplace = 1;
    }
    const char* name() const noexcept override { return p_.kind == Kind::scatter_tuples ? "scatter.cuda" : "gather.cuda"; }
    void run(const Call& c) const override {
        const auto stream = static_cast<cudaStream_t>(c.stream);
        const View &x = c.in[0], &index = c.in[1], &y = c.out[0];
        switch (p_.kind) {
            case Kind::rows:
                return cuda::check(movement::cuda_gather(x.data, index.data, y.data, x.count(0, p_.axis), x.dims[p_.axis], index.count(),
                                                         x.count(p_.axis + 1, x.rank), size_, index_size_, stream), name());
            case Kind::elements:
                return cuda::check(movement::cuda_gather_elements(x.data, index.data, y.data, x.rank, p_.axis, x.dims, y.dims, size_, index_size_, stream), name());
            case Kind::tuples: {
                const int width = static_cast<int>(index.dims[index.rank - 1]);
                if (width > x.rank - p_.axis) raise(ErrorCode::shape_mismatch, "index tuples are longer than the data's rank");
                return cuda::check(movement::cuda_index_nd(true, x.data, index.in<std::int64_t>(), y.data, x.count(0, p_.axis), index.count(p_.axis, index.rank - 1), width,
                                                           x.dims + p_.axis, x.count(p_.axis + width, x.rank), size_, stream), name());
            }
            case Kind::scatter_tuples: {
                if (x.data != y.data) {
                    movement::CopyRegion all;
                    all.axis(x.count(), 1, 1);
                    cuda::check(movement::cuda_copy(all, size_, x.data, y.data, stream), name());
                }
                const int width = static_cast<int>(index.dims[index.rank - 1]);
                if (width > x.rank) raise(ErrorCode::shape_mismatch, "index tuples are longer than the data's rank");
                return cuda::check(movement::cuda_index_nd(false, y.data, index.in<std::int64_t>(), c.in[2].data, 1, index.count(0, index.rank - 1), width, x.dims,
                                                           x.count(width, x.rank), size_, stream), name());
            }
        }
    }

private:
    Problem p_;
    int size_, index_size_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    const int bits = dtype_bits(p.dtype);
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return std::string("type ") + dtype_name(p.dtype);
    if (p.index != DType::i64 && (p.index != DType::i32 || p.kind == Kind::tuples || p.kind == Kind::scatter_tuples))
        return std::string("indices of type ") + dtype_name(p.index);
    if (p.kind != Kind::rows && p.rank > movement::max_gather_rank) return "rank " + std::to_string(p.rank) + "; up to 8 is accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaGatherKernel>(p); }

extern const Entry<Problem> gather_cuda;
const Entry<Problem> gather_cuda{"gather.cuda", refuse_cuda, make_cuda};

}  // namespace gather
QUERN_END
