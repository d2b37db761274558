// Attention as a kernel of the plan.
#include <cmath>
#include <string>

#include <quern/kernels/attention/attention.hpp>
#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/transpose/cuda.hpp>

QUERN_BEGIN
namespace attention {

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) {}
    const char* name() const noexcept override { return "attention.cuda"; }
    void run(const Call& c) const override {
        const View &q = c.in[0], &k = c.in[1], &v = c.in[2];
        const auto given = [](std::span<const View> s, std::size_t i) { return i < s.size() && s[i].present(); };
        const bool four = q.rank == 4;
        CudaAttention a;
        a.batch = q.dims[0];
        a.heads = four ? q.dims[1] : p_.q_heads;
        a.kv_heads = four ? k.dims[1] : p_.kv_heads;
        a.queries = q.dims[four ? 2 : 1];
        const std::int64_t fresh = k.dims[four ? 2 : 1];
        a.d = four ? q.dims[3] : q.dims[2] / a.heads;
        a.dv = four ? v.dims[3] : v.dims[2] / a.kv_heads;
        a.past = given(c.in, 4) ? c.in[4].dims[2] : 0;
        a.keys = a.past + fresh;
        const auto lay = [&](bool inside, std::int64_t heads, std::int64_t rows, std::int64_t width, std::int64_t& batch, std::int64_t& head, std::int64_t& row) {
            batch = heads * rows * width;
            head = inside ? width : rows * width;
            row = inside ? heads * width : width;
        };
        lay(!four, a.heads, a.queries, a.d, a.q_batch, a.q_head, a.q_row);
        lay(!four, a.heads, a.queries, a.dv, a.y_batch, a.y_head, a.y_row);
        lay(!four, a.kv_heads, fresh, a.d, a.k_batch, a.k_head, a.k_row);
        lay(!four, a.kv_heads, fresh, a.dv, a.v_batch, a.v_head, a.v_row);
        a.q = q.in<float>(), a.k = k.in<float>(), a.v = v.in<float>();
        if (given(c.out, 1)) {
            join(c, a, c.in[1], a.past ? &c.in[4] : nullptr, c.out[1], fresh, a.d, a.k_batch, a.k_head, a.k_row);
            a.k = c.out[1].in<float>();
            lay(false, a.kv_heads, a.keys, a.d, a.k_batch, a.k_head, a.k_row);
        }
        if (given(c.out, 2)) {
            join(c, a, c.in[2], a.past ? &c.in[5] : nullptr, c.out[2], fresh, a.dv, a.v_batch, a.v_head, a.v_row);
            a.v = c.out[2].in<float>();
            lay(false, a.kv_heads, a.keys, a.dv, a.v_batch, a.v_head, a.v_row);
        }
        if (given(c.in, 3)) {
            const View& m = c.in[3];
            a.mask_kind = m.dtype == DType::boolean ? CudaMask::boolean : CudaMask::f32;
            a.mask = m.data;
            a.mask_length = m.dim(-1);
            std::int64_t* to[] = {&a.mask_row, &a.mask_head, &a.mask_batch};
            std::int64_t s = a.mask_length;
            for (int d = m.rank - 2, i = 0; d >= 0; --d, ++i) {
                *to[i] = m.dims[d] == 1 ? 0 : s;
                s *= m.dims[d];
            }
        }
        a.causal = p_.causal, a.left = p_.left, a.right = p_.right;
        a.scale = p_.scale != 0 ? p_.scale : 1.0f / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, a.d)));
        a.softcap = p_.softcap;
        a.y = c.out[0].out<float>();
        cuda::check(cuda_attention(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    /// present = past, then the new positions, for all heads.
    void join(const Call& c, const CudaAttention& a, const View& now, const View* old, const View& out, std::int64_t fresh, std::int64_t width,
              std::int64_t batch, std::int64_t head, std::int64_t row) const {
        const auto stream = static_cast<cudaStream_t>(c.stream);
        const std::int64_t whole = a.keys * width;
        if (old) {
            movement::CopyRegion r;
            r.axis(a.batch * a.kv_heads, a.past * width, whole);
            r.axis(a.past * width, 1, 1);
            cuda::check(movement::cuda_copy(r, 4, old->data, out.data, stream), name());
        }
        movement::CopyRegion r;
        r.axis(a.batch, batch, a.kv_heads * whole);
        r.axis(a.kv_heads, head, whole);
        r.axis(fresh, row, width);
        r.axis(width, 1, 1);
        cuda::check(movement::cuda_copy(r, 4, now.data, out.out<float>() + a.past * width, stream), name());
    }
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> attention_cuda;
const Entry<Problem> attention_cuda{"attention.cuda", refuse_cuda, make_cuda};

}  // namespace attention
QUERN_END
