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
constexpr std::size_t kLtWorkspace = std::size_t{32} << 20;

inline void lt_check(cublasStatus_t s, const char* what) {
    if (s != CUBLAS_STATUS_SUCCESS) raise(ErrorCode::device, std::string("cuBLASLt: ") + what + " failed (status " + std::to_string(static_cast<int>(s)) + ")");
}

/// One shape: descriptors and the algorithm. Column-major, so that D' = B' A'.
struct LtPlan {
    const cuda::CublasLt& lt = cuda::cublaslt();
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulHeuristicResult_t chosen{};
    bool usable = false;

    LtPlan() = default;
    LtPlan(const LtPlan&) = delete;
    ~LtPlan() {
        for (auto* l : {a, b, d})
            if (l) (void)lt.MatrixLayoutDestroy(l);
        if (desc) (void)lt.MatmulDescDestroy(desc);
    }
    template <class T>
    void set(cublasLtMatmulDescAttributes_t attribute, T value) {
        lt_check(lt.MatmulDescSetAttribute(desc, attribute, &value, sizeof value), "setting an attribute");
    }
    void layout(cublasLtMatrixLayout_t& l, cudaDataType_t type, std::int64_t rows, std::int64_t cols, std::int64_t ld, std::int64_t batch, std::int64_t stride) {
        lt_check(lt.MatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld), "a matrix layout");
        if (batch == 1) return;
        const auto n = static_cast<std::int32_t>(batch);
        lt_check(lt.MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n), "the number of batches");
        lt_check(lt.MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), "the stride of batches");
    }
    void make(const CudaGemm& g, bool has_bias, bool tf32) {
        if (g.m == 0 || g.n == 0 || g.k == 0 || g.batch_rank > 1 || (has_bias && (g.bias_row != 0 || g.bias_col != 1))) return;
        lt_check(lt.MatmulDescCreate(&desc, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
        set(CUBLASLT_MATMUL_DESC_TRANSA, g.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, g.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        const bool relu = g.post == vec::Post::relu;
        set(CUBLASLT_MATMUL_DESC_EPILOGUE, has_bias ? (relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS) : relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT);
        const std::int64_t batch = g.batch_rank ? g.batch[0] : 1;
        const cudaDataType_t type = g.type == DType::f16 ? CUDA_R_16F : g.type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
        layout(b, type, g.trans_b ? g.k : g.n, g.trans_b ? g.n : g.k, g.ldb, batch, g.stride_b[0]);
        layout(a, type, g.trans_a ? g.m : g.k, g.trans_a ? g.k : g.m, g.lda, batch, g.stride_a[0]);
        layout(d, type, g.n, g.m, g.ldc, batch, g.stride_c[0]);
        cublasLtMatmulPreference_t preference = nullptr;
        lt_check(lt.MatmulPreferenceCreate(&preference), "a preference");
        const std::uint64_t room = kLtWorkspace;
        const std::uint32_t alignment = kLtAlignment;
        cublasStatus_t s = lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
        for (auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
            if (s == CUBLAS_STATUS_SUCCESS) s = lt.MatmulPreferenceSetAttribute(preference, which, &alignment, sizeof alignment);
        int n = 0;
        if (s == CUBLAS_STATUS_SUCCESS) s = lt.MatmulAlgoGetHeuristic(lt.handle(), desc, b, a, d, d, preference, 1, &chosen, &n);
        (void)lt.MatmulPreferenceDestroy(preference);
        usable = s == CUBLAS_STATUS_SUCCESS && n == 1;
    }
};

class LtKernel final : public Kernel {
public:
    LtKernel(const Problem& p, const Target& t) : p_(p), tf32_(t.tf32), own_(matmul_cuda.make(p, t)) {
        p_.b = Tensor();
        inplace = own_->inplace;
    }
    const char* name() const noexcept override { return "matmul.cublaslt"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b = own_->book(in, out, workers);
        auto plan = std::make_shared<LtPlan>();
        plan->make(cuda_geometry(p_, in), in.size() > 2 && in[2].present(), tf32_);
        if (plan->usable) b.scratch = std::max(b.scratch, plan->chosen.workspaceSize);
        b.state = std::move(plan);
        return b;
    }
    void run(const Call& c) const override {
        // The state belongs to this session's shape, which one thread runs at a time.
        auto& plan = *const_cast<LtPlan*>(static_cast<const LtPlan*>(c.state));
        const bool has_bias = c.in.size() > 2 && c.in[2].present();
        const void *a = c.in[0].data, *b = c.in[1].data, *bias = has_bias ? c.in[2].data : nullptr, *residual = p_.has_residual ? c.in[3].data : nullptr;
        void* d = c.out[0].data;
        const auto bits = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) | reinterpret_cast<std::uintptr_t>(bias) |
                          reinterpret_cast<std::uintptr_t>(residual) | reinterpret_cast<std::uintptr_t>(d);
        if (!plan.usable || bits % kLtAlignment) return own_->run(c);
        if (has_bias) plan.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
        const float alpha = p_.alpha, beta = residual ? 1.0f : 0.0f;
        lt_check(plan.lt.Matmul(plan.lt.handle(), plan.desc, &alpha, b, plan.b, a, plan.a, &beta, residual ? residual : d, plan.d, d, plan.d, &plan.chosen.algo,
                                c.scratch, plan.chosen.workspaceSize, static_cast<cudaStream_t>(c.stream)),
                 "cublasLtMatmul");
    }

private:
    Problem p_;
    bool tf32_;
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
