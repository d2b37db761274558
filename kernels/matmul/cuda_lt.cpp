// Products by cuBLASLt, where it is there: f32 without TF32 unless asked, half types with sums in f32, bias, ReLU and residual in its epilogue. What a shape
// asks beyond that goes to our own kernel.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/cuda/libraries.hpp>
#include <quern/kernels/matmul/cuda_geometry.hpp>

#if defined(QUERN_HAVE_CUBLASLT_HEADER)
QUERN_BEGIN
namespace matmul {

extern const Entry<Problem> matmul_cuda, matmul_cublaslt;

constexpr std::size_t kLtAlignment = 16;
constexpr std::size_t kLtWorkspace = std::size_t{32} << 20, kLtWorkspaceAlignment = 256;  // cublasLtMatmul refuses an address off this boundary

/// One shape: descriptors and the algorithm. Column-major, so that D' = B' A'.
struct LtPlan {
    const cuda::CublasLt& lt = cuda::cublaslt();
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulHeuristicResult_t chosen{};
    std::string refusal;  ///< why our own kernel computes this shape; empty: cuBLASLt does

    LtPlan() = default;
    LtPlan(const LtPlan&) = delete;
    ~LtPlan() {
        for (auto* l : {a, b, d})
            if (l) (void)lt.MatrixLayoutDestroy(l);
        if (desc) (void)lt.MatmulDescDestroy(desc);
    }
    /// Keeps the first thing that went wrong.
    void check(cublasStatus_t s, const char* what) {
        if (s != CUBLAS_STATUS_SUCCESS && refusal.empty()) refusal = std::string(what) + " failed (status " + std::to_string(static_cast<int>(s)) + ")";
    }
    template <class T>
    void set(cublasLtMatmulDescAttributes_t attribute, T value) {
        check(lt.MatmulDescSetAttribute(desc, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
    }
    void layout(cublasLtMatrixLayout_t& l, cudaDataType_t type, std::int64_t rows, std::int64_t cols, std::int64_t ld, std::int64_t batch, std::int64_t stride) {
        check(lt.MatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld), "cublasLtMatrixLayoutCreate");
        if (batch == 1 || !refusal.empty()) return;
        const auto n = static_cast<std::int32_t>(batch);
        check(lt.MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n), "setting the number of batches");
        check(lt.MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), "setting the stride of batches");
    }
    void make(const CudaGemm& g, bool has_bias, bool tf32) {
        if (g.m == 0 || g.n == 0 || g.k == 0) refusal = "nothing to multiply";
        else if (g.batch_rank > 1) refusal = "batches that are not evenly apart";
        else if (has_bias && (g.bias_row != 0 || g.bias_col != 1)) refusal = "its epilogue has no bias of this shape";
        if (!refusal.empty()) return;
        check(lt.MatmulDescCreate(&desc, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
        if (!refusal.empty()) return;
        set(CUBLASLT_MATMUL_DESC_TRANSA, g.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, g.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        const bool relu = g.post == vec::Post::relu;
        set(CUBLASLT_MATMUL_DESC_EPILOGUE, has_bias ? (relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS) : relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT);
        const std::int64_t batch = g.batch_rank ? g.batch[0] : 1;
        const cudaDataType_t type = g.type == DType::f16 ? CUDA_R_16F : g.type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
        layout(b, type, g.trans_b ? g.k : g.n, g.trans_b ? g.n : g.k, g.ldb, batch, g.stride_b[0]);
        layout(a, type, g.trans_a ? g.m : g.k, g.trans_a ? g.k : g.m, g.lda, batch, g.stride_a[0]);
        layout(d, type, g.n, g.m, g.ldc, batch, g.stride_c[0]);
        if (refusal.empty()) choose();
    }
    void choose() {
        cublasLtMatmulPreference_t preference = nullptr;
        check(lt.MatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
        if (!preference) return;
        const std::uint64_t room = kLtWorkspace;
        const std::uint32_t alignment = kLtAlignment;
        cublasStatus_t s = lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
        for (auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
            if (s == CUBLAS_STATUS_SUCCESS) s = lt.MatmulPreferenceSetAttribute(preference, which, &alignment, sizeof alignment);
        check(s, "cublasLtMatmulPreferenceSetAttribute");
        if (refusal.empty() && !lt.handle()) refusal = "cublasLtCreate failed";
        int n = 0;
        if (refusal.empty()) check(lt.MatmulAlgoGetHeuristic(lt.handle(), desc, b, a, d, d, preference, 1, &chosen, &n), "cublasLtMatmulAlgoGetHeuristic");
        if (refusal.empty() && n != 1) refusal = "it has no algorithm for this";
        (void)lt.MatmulPreferenceDestroy(preference);
    }
};

class LtKernel final : public Kernel {
public:
    LtKernel(const Problem& p, const Target& t) : p_(p), tf32_(t.tf32), log_(t.log), own_(matmul_cuda.make(p, t)) {
        p_.b = Tensor();
        inplace = own_->inplace;
    }
    const char* name() const noexcept override { return "matmul.cublaslt"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b = own_->book(in, out, workers);
        auto plan = std::make_shared<LtPlan>();
        const CudaGemm g = cuda_geometry(p_, in);
        plan->make(g, has_bias(in), tf32_);
        if (!plan->refusal.empty()) tell(LogLevel::debug, g, *plan);
        else if (plan->chosen.workspaceSize) b.scratch = std::max(b.scratch, plan->chosen.workspaceSize + kLtWorkspaceAlignment - 1);
        b.state = std::move(plan);
        return b;
    }
    void run(const Call& c) const override {
        // The state belongs to this session's shape, which one thread runs at a time.
        auto& plan = *const_cast<LtPlan*>(static_cast<const LtPlan*>(c.state));
        const void *a = c.in[0].data, *b = c.in[1].data, *bias = has_bias(c.in) ? c.in[2].data : nullptr, *residual = p_.has_residual ? c.in[3].data : nullptr;
        void* d = c.out[0].data;
        const auto bits = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) | reinterpret_cast<std::uintptr_t>(bias) |
                          reinterpret_cast<std::uintptr_t>(residual) | reinterpret_cast<std::uintptr_t>(d);
        if (!plan.refusal.empty() || bits % kLtAlignment) return own_->run(c);
        if (bias) plan.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
        const auto scratch = (reinterpret_cast<std::uintptr_t>(c.scratch) + kLtWorkspaceAlignment - 1) / kLtWorkspaceAlignment * kLtWorkspaceAlignment;
        void* workspace = plan.chosen.workspaceSize ? reinterpret_cast<void*>(scratch) : nullptr;
        const float alpha = p_.alpha, beta = residual ? 1.0f : 0.0f;
        if (plan.refusal.empty())
            plan.check(plan.lt.Matmul(plan.lt.handle(), plan.desc, &alpha, b, plan.b, a, plan.a, &beta, residual ? residual : d, plan.d, d, plan.d, &plan.chosen.algo,
                                      workspace, plan.chosen.workspaceSize, static_cast<cudaStream_t>(c.stream)),
                       "cublasLtMatmul");
        if (plan.refusal.empty()) return;
        tell(LogLevel::warning, cuda_geometry(p_, c.in), plan);
        own_->run(c);
    }

private:
    static bool has_bias(std::span<const View> in) { return in.size() > 2 && in[2].present(); }
    void tell(LogLevel level, const CudaGemm& g, const LtPlan& plan) const {
        if (log_) log_(level, "matmul.cublaslt: " + plan.refusal + "; matmul.cuda computes " + std::to_string(g.m) + " x " + std::to_string(g.k) + " x " + std::to_string(g.n));
    }
    Problem p_;
    bool tf32_;
    LogCallback log_;
    std::unique_ptr<Kernel> own_;
};

static std::string refuse_lt(const Problem& p, const Target& t) {
    if (!cuda::cublaslt().refusal.empty()) return cuda::cublaslt().refusal;
    if (p.post != vec::Post::none && p.post != vec::Post::relu) return "its epilogue has no such activation";
    return matmul_cuda.refuse(p, t);
}
static std::unique_ptr<Kernel> make_lt(const Problem& p, const Target& t) { return std::make_unique<LtKernel>(p, t); }
const Entry<Problem> matmul_cublaslt{"matmul.cublaslt", refuse_lt, make_lt};

}  // namespace matmul
QUERN_END
#else
QUERN_BEGIN
namespace matmul {
extern const Entry<Problem> matmul_cublaslt;
static std::string refuse_lt(const Problem&, const Target&) { return "built without cuBLASLt's header"; }
static std::unique_ptr<Kernel> make_lt(const Problem&, const Target&) { return nullptr; }
const Entry<Problem> matmul_cublaslt{"matmul.cublaslt", refuse_lt, make_lt};
}  // namespace matmul
QUERN_END
#endif
