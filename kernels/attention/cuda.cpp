// Attention as a kernel of the plan.
#include <cmath>
#include <string>

#include <quern/kernels/attention/append.hpp>
#include <quern/kernels/attention/attention.hpp>
#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/attention/fused.hpp>
#include <quern/kernels/attention/rotary.hpp>
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
        a.type = p_.dtype;
        const std::int64_t batch = q.dims[0], heads = four ? q.dims[1] : p_.q_heads, kv_heads = four ? k.dims[1] : p_.kv_heads;
        const std::int64_t group = kv_heads ? heads / kv_heads : 1;
        a.lead_rank = 3;
        a.lead[0] = batch, a.lead[1] = kv_heads, a.lead[2] = group;
        a.queries = q.dims[four ? 2 : 1];
        const std::int64_t fresh = k.dims[four ? 2 : 1];
        a.d = four ? q.dims[3] : q.dims[2] / heads;
        a.dv = four ? v.dims[3] : v.dims[2] / kv_heads;
        a.past = given(c.in, 4) ? c.in[4].dims[2] : 0;
        a.keys = a.past + fresh;
        // Distances of [batch, kv head, head of the group] and of rows; `each`: heads that one of kv's has.
        const auto lay = [&](bool inside, std::int64_t n, std::int64_t each, std::int64_t rows, std::int64_t width, std::int64_t* lead, std::int64_t& row) {
            const std::int64_t head = inside ? width : rows * width;
            lead[0] = n * rows * width;
            lead[1] = head * each;
            lead[2] = each > 1 || n != kv_heads ? head : 0;
            row = inside ? n * width : width;
        };
        lay(!four, heads, group, a.queries, a.d, a.q_lead, a.q_row);
        lay(!four, heads, group, a.queries, a.dv, a.y_lead, a.y_row);
        lay(!four, kv_heads, 1, fresh, a.d, a.k_lead, a.k_row);
        lay(!four, kv_heads, 1, fresh, a.dv, a.v_lead, a.v_row);
        a.q = q.data, a.k = k.data, a.v = v.data;
        if (given(c.out, 1)) {
            join(c, a, batch, kv_heads, c.in[1], a.past ? &c.in[4] : nullptr, c.out[1], fresh, a.d, a.k_lead, a.k_row);
            a.k = c.out[1].data;
            lay(false, kv_heads, 1, a.keys, a.d, a.k_lead, a.k_row);
        }
        if (given(c.out, 2)) {
            join(c, a, batch, kv_heads, c.in[2], a.past ? &c.in[5] : nullptr, c.out[2], fresh, a.dv, a.v_lead, a.v_row);
            a.v = c.out[2].data;
            lay(false, kv_heads, 1, a.keys, a.dv, a.v_lead, a.v_row);
        }
        if (given(c.in, 3)) {
            const View& m = c.in[3];
            CudaMask& k = a.mask[0];
            k.type = m.dtype;
            k.data = m.data;
            k.length = m.dim(-1);
            k.key = 1;
            std::int64_t s = k.length;
            for (int d = m.rank - 2, i = 0; d >= 0; --d, ++i) {
                const std::int64_t step = m.dims[d] == 1 ? 0 : s;
                if (i == 0) k.query = step;
                else if (i == 1) k.lead[1] = step * group, k.lead[2] = step;
                else k.lead[0] = step;
                s *= m.dims[d];
            }
        }
        a.causal = p_.causal, a.left = p_.left, a.right = p_.right;
        a.scale = p_.scale != 0 ? p_.scale : 1.0f / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, a.d)));
        a.softcap = p_.softcap;
        a.y = c.out[0].data;
        cuda::check(cuda_attention(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    /// present = past, then the new positions, for all heads.
    void join(const Call& c, const CudaAttention& a, std::int64_t batch, std::int64_t heads, const View& now, const View* old, const View& out, std::int64_t fresh,
              std::int64_t width, const std::int64_t* lead, std::int64_t row) const {
        const auto stream = static_cast<cudaStream_t>(c.stream);
        const int size = dtype_bits(p_.dtype) / 8;
        const std::int64_t whole = a.keys * width;
        if (old) {
            movement::CopyRegion r;
            r.axis(batch * heads, a.past * width, whole);
            r.axis(a.past * width, 1, 1);
            cuda::check(movement::cuda_copy(r, size, old->data, out.data, stream), name());
        }
        movement::CopyRegion r;
        r.axis(batch, lead[0], heads * whole);
        r.axis(heads, lead[1], whole);
        r.axis(fresh, row, width);
        r.axis(width, 1, 1);
        cuda::check(movement::cuda_copy(r, size, now.data, static_cast<std::byte*>(out.data) + a.past * width * size, stream), name());
    }
    Problem p_;
};

/// What the attention pass makes: operands anywhere.
class CudaFusedKernel final : public Kernel {
public:
    CudaFusedKernel(const FusedProblem& p, DType type) : p_(p), type_(type) { roomy_in = 6; }
    const char* name() const noexcept override { return "attention.cuda"; }
    void run(const Call& c) const override {
        const Strides q(p_.q, c.in[0], "Q"), k(p_.k, c.in[1], "K"), v(p_.v, c.in[2], "V"), y(p_.y, c.out[0], "the result");
        CudaAttention a;
        a.type = type_;
        a.queries = q.size[Factor::query], a.keys = k.size[Factor::key], a.d = q.size[Factor::inner], a.dv = v.size[Factor::inner];
        agree(k, Factor::inner, a.d, false, "K");
        agree(v, Factor::key, a.keys, false, "V");
        agree(y, Factor::query, a.queries, false, "the result");
        agree(y, Factor::inner, a.dv, false, "the result");
        a.q_row = q.stride[Factor::query], a.k_row = k.stride[Factor::key], a.v_row = v.stride[Factor::key], a.y_row = y.stride[Factor::query];
        Strides masks[2];
        for (std::size_t m = 0; m < 2; ++m) {
            if (c.in.size() <= 3 + m || !c.in[3 + m].present()) continue;
            const Strides& s = masks[m] = Strides(p_.mask[m], c.in[3 + m], "the mask");
            agree(s, Factor::query, a.queries, true, "the mask");
            agree(s, Factor::key, a.keys, true, "the mask");
            a.mask[m].type = c.in[3 + m].dtype;
            a.mask[m].data = at(c.in[3 + m], s.offset);
            a.mask[m].query = s.stride[Factor::query];
            a.mask[m].key = s.stride[Factor::key];
        }
        a.lead_rank = max_lead;
        for (std::int64_t i = 0; i < max_lead; ++i) {
            const bool used = std::any_of(p_.q.begin(), p_.q.end(), [&](const Factor& f) { return f.role == i; });
            a.lead[i] = used ? q.size[static_cast<std::size_t>(i)] : 1;
            if (!used) continue;
            for (const Strides* s : {&k, &v, static_cast<const Strides*>(&masks[0]), static_cast<const Strides*>(&masks[1])}) agree(*s, i, a.lead[i], true, "an operand");
            agree(y, i, a.lead[i], false, "the result");
            a.q_lead[i] = q.stride[static_cast<std::size_t>(i)], a.k_lead[i] = k.stride[static_cast<std::size_t>(i)];
            a.v_lead[i] = v.stride[static_cast<std::size_t>(i)], a.y_lead[i] = y.stride[static_cast<std::size_t>(i)];
            for (std::size_t m = 0; m < 2; ++m) a.mask[m].lead[i] = masks[m].stride[static_cast<std::size_t>(i)];
        }
        a.q = at(c.in[0], q.offset), a.k = at(c.in[1], k.offset), a.v = at(c.in[2], v.offset);
        a.y = at(c.out[0], y.offset);
        a.scale = p_.scale;
        a.closed_is_zero = p_.closed_is_zero;
        cuda::check(cuda_attention(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    static_assert(max_lead == max_attention_lead);
    static void* at(const View& v, std::int64_t elements) { return static_cast<std::byte*>(v.data) + elements * dtype_bits(v.dtype) / 8; }
    static void agree(const Strides& s, std::int64_t role, std::int64_t size, bool broadcasts, const char* what) {
        const std::int64_t found = s.size[static_cast<std::size_t>(role)];
        if (found == size || (broadcasts && found == 1)) return;
        raise(ErrorCode::shape_mismatch, std::string(what) + " of attention has a dimension of " + std::to_string(found) + " where " + std::to_string(size) + " is accepted");
    }
    FusedProblem p_;
    DType type_;
};

class CudaRotaryKernel final : public Kernel {
public:
    CudaRotaryKernel(const RotaryProblem& p, DType type) : p_(p), type_(type) { inplace = 1; }
    const char* name() const noexcept override { return "attention.rotary.cuda"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        CudaRotary a;
        a.type = type_;
        a.heads_first = x.rank == 4;
        a.batch = x.dims[0];
        a.heads = a.heads_first ? x.dims[1] : p_.heads;
        a.length = x.dims[a.heads_first ? 2 : 1];
        a.d = a.heads_first ? x.dims[3] : x.dims[2] / p_.heads;
        a.half = (p_.rotated ? p_.rotated : a.d) / 2;
        a.interleaved = p_.interleaved;
        a.positions = c.in[1].count(0, c.in[1].rank - 1);
        a.ids = c.in.size() > 3 && c.in[3].present() ? c.in[3].in<std::int64_t>() : nullptr;
        a.x = x.data, a.cosine = c.in[1].data, a.sine = c.in[2].data, a.y = c.out[0].data;
        cuda::check(cuda_rotary(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    RotaryProblem p_;
    DType type_;
};

/// The new rows of a cache, turned on the way; the old ones, too, where the cache does not grow in its own memory.
class CudaAppendKernel final : public Kernel {
public:
    CudaAppendKernel(AppendProblem p, DType type) : p_(std::move(p)), type_(type) { grows = true; }
    const char* name() const noexcept override { return "attention.append.cuda"; }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override { return {0, std::make_shared<AppendSizes>(p_, in, out[0])}; }
    void run(const Call& c) const override {
        const AppendSizes& p = *static_cast<const AppendSizes*>(c.state);
        const auto stream = static_cast<cudaStream_t>(c.stream);
        const int size = dtype_bits(type_) / 8;
        const std::int64_t apart = (p.room ? p.room : p.past + p.rows) * p.d;
        if (!p.room && p.past) {
            movement::CopyRegion r;
            r.axis(p.batch * p.heads, p.past * p.d, apart);
            r.axis(p.past * p.d, 1, 1);
            cuda::check(movement::cuda_copy(r, size, c.in[0].data, c.out[0].data, stream), name());
        }
        CudaRotary a;
        a.type = type_;
        a.batch = p.batch, a.heads = p.heads, a.length = p.rows, a.d = p.d, a.half = p.half;
        a.positions = p.batch * p.rows;
        a.interleaved = p_.interleaved;
        a.x = static_cast<std::byte*>(c.in[1].data) + p.x.offset * size;
        a.y = static_cast<std::byte*>(c.out[0].data) + p.past * p.d * size;
        if (p.turns) a.cosine = c.in[2].data, a.sine = c.in[3].data;
        a.x_at = {p.x.stride[0], p.x.stride[1], p.x.stride[Factor::key]};
        if (p.x.size[0] != p.batch || p.x.size[1] != p.heads) {  // one factor counts all
            if (p.x.size[0] != p.batch * p.heads) raise(ErrorCode::unsupported, "rows for a cache whose heads are counted by more than one factor; on a device one is accepted");
            a.x_at = {p.heads * p.x.stride[0], p.x.stride[0], p.x.stride[Factor::key]};
        }
        a.y_at = {p.heads * apart, apart, p.d};
        cuda::check(cuda_rotary(a, stream), name());
    }

private:
    AppendProblem p_;
    DType type_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32 && !is_half(p.dtype))
        return std::string("type ") + dtype_name(p.dtype) + "; float, float16 and bfloat16 are accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) {
    if (p.rotary) return std::make_unique<CudaRotaryKernel>(*p.rotary, p.dtype);
    if (p.fused) return std::make_unique<CudaFusedKernel>(*p.fused, p.dtype);
    if (p.append) return std::make_unique<CudaAppendKernel>(*p.append, p.dtype);
    return std::make_unique<CudaKernel>(p);
}

extern const Entry<Problem> attention_cuda;
const Entry<Problem> attention_cuda{"attention.cuda", refuse_cuda, make_cuda};

}  // namespace attention
QUERN_END
