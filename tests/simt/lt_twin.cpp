// A twin of cuBLASLt for the emulated device: the functions that quern calls, built as a library of the real one's name. Column-major
// products of one type with an epilogue, computed in double on the stream. It refuses with the real one's status what a caller may do wrong:
// sizes that do not fit each other, addresses below the alignment that was told, a workspace that is too small or not on a boundary of 256
// bytes.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "dnn_twin.hpp"

struct cublasLtContext {};

namespace {

twin::LtControl control;

/// What the opaque structures hold here: attributes by number.
struct Attributes {
    std::map<int, std::vector<unsigned char>> values;
    Attributes() { ++control.objects; }
    Attributes(const Attributes&) = delete;
    ~Attributes() { --control.objects; }
    template <class T>
    T get(int name, T otherwise = T{}) const {
        if (auto it = values.find(name); it != values.end() && it->second.size() == sizeof(T)) std::memcpy(&otherwise, it->second.data(), sizeof(T));
        return otherwise;
    }
    cublasStatus_t set(int name, const void* p, std::size_t n) {
        if (!p || n == 0) return CUBLAS_STATUS_INVALID_VALUE;
        const auto* b = static_cast<const unsigned char*>(p);
        values[name].assign(b, b + n);
        return CUBLAS_STATUS_SUCCESS;
    }
};
/// The first bytes of a caller's structure are a pointer to the attributes.
template <class D>
Attributes& of(const D* d) {
    Attributes* a;
    std::memcpy(&a, d, sizeof a);
    return *a;
}
template <class D>
cublasStatus_t make(D** d) {
    auto* holder = new Attributes*(new Attributes);
    *d = reinterpret_cast<D*>(holder);
    return CUBLAS_STATUS_SUCCESS;
}
template <class D>
cublasStatus_t destroy(D* d) {
    delete &of(d);
    delete reinterpret_cast<Attributes**>(d);
    return CUBLAS_STATUS_SUCCESS;
}

struct Matrix {
    int type;
    std::int64_t rows, cols, ld, batch, stride;
    explicit Matrix(const Attributes& l)
        : type(l.get<int>(CUBLASLT_MATRIX_LAYOUT_TYPE)), rows(l.get<std::int64_t>(CUBLASLT_MATRIX_LAYOUT_ROWS)), cols(l.get<std::int64_t>(CUBLASLT_MATRIX_LAYOUT_COLS)),
          ld(l.get<std::int64_t>(CUBLASLT_MATRIX_LAYOUT_LD)), batch(l.get<std::int32_t>(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 1)), stride(l.get<std::int64_t>(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET)) {}
    bool good() const { return rows > 0 && cols > 0 && ld >= rows && batch > 0; }
};
double value(const void* p, int type, std::int64_t i) {
    switch (type) {
        case CUDA_R_16F: return __half2float(static_cast<const __half*>(p)[i]);
        case CUDA_R_16BF: return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
        default: return static_cast<const float*>(p)[i];
    }
}
void put(void* p, int type, std::int64_t i, double v) {
    switch (type) {
        case CUDA_R_16F: static_cast<__half*>(p)[i] = __float2half_rn(static_cast<float>(v)); break;
        case CUDA_R_16BF: static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(static_cast<float>(v)); break;
        default: static_cast<float*>(p)[i] = static_cast<float>(v);
    }
}
/// What an algorithm was chosen for.
struct Chosen {
    std::uint64_t workspace;
    std::uint32_t alignment;
    int epilogue;
};
bool with_bias(int epilogue) { return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS; }

struct Run {
    Matrix a, b, d;
    bool ta, tb;
    int epilogue;
    const void *pa, *pb, *pc, *bias;
    void *pd, *workspace;
    std::uint64_t workspace_bytes;
    float alpha, beta;
};
void compute(const Run& r) {
    const std::int64_t k = r.ta ? r.a.rows : r.a.cols;
    for (std::int64_t z = 0; z < r.d.batch; ++z)
        for (std::int64_t j = 0; j < r.d.cols; ++j)
            for (std::int64_t i = 0; i < r.d.rows; ++i) {
                double s = 0;
                for (std::int64_t q = 0; q < k; ++q)
                    s += value(r.pa, r.a.type, z * r.a.stride + (r.ta ? i * r.a.ld + q : q * r.a.ld + i)) * value(r.pb, r.b.type, z * r.b.stride + (r.tb ? q * r.b.ld + j : j * r.b.ld + q));
                const std::int64_t at = z * r.d.stride + j * r.d.ld + i;
                s *= static_cast<double>(r.alpha);
                if (r.beta != 0) s += static_cast<double>(r.beta) * value(r.pc, r.d.type, at);
                if (r.bias) s += value(r.bias, r.d.type, i);
                if ((r.epilogue == CUBLASLT_EPILOGUE_RELU || r.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS) && s < 0) s = 0;
                put(r.pd, r.d.type, at, s);
            }
    if (r.workspace_bytes) std::memset(r.workspace, 0x5A, r.workspace_bytes);
}
bool fits(const Matrix& a, const Matrix& b, const Matrix& d, bool ta, bool tb) {
    if (!a.good() || !b.good() || !d.good() || a.batch != d.batch || b.batch != d.batch || a.type != d.type || b.type != d.type) return false;
    return (ta ? a.cols : a.rows) == d.rows && (tb ? b.rows : b.cols) == d.cols && (ta ? a.rows : a.cols) == (tb ? b.cols : b.rows);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) twin::LtControl* quern_lt_twin_control() { return &control; }

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) { return *h = new cublasLtContext, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute, cudaDataType_t scale) {
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    const cublasStatus_t s = make(d);
    (void)of(*d).set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, &compute, sizeof compute);
    return s;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return destroy(d); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, const void* p, size_t n) { return of(d).set(name, p, n); }
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld) {
    (void)make(l);
    (void)of(*l).set(CUBLASLT_MATRIX_LAYOUT_TYPE, &type, sizeof type), (void)of(*l).set(CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, sizeof rows);
    (void)of(*l).set(CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols), (void)of(*l).set(CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return destroy(l); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t name, const void* p, size_t n) { return of(l).set(name, p, n); }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) { return make(p); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return destroy(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t d, cublasLtMatmulPreferenceAttributes_t name, const void* p, size_t n) { return of(d).set(name, p, n); }
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int room, cublasLtMatmulHeuristicResult_t* results, int* n) {
    *n = 0;
    const Attributes& o = of(desc);
    if (room < 1 || !fits(Matrix(of(a)), Matrix(of(b)), Matrix(of(d)), o.get<int>(CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_T, o.get<int>(CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (control.refuse == twin::Refuse::everything) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (o.get<const void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER)) control.address = true;
    Chosen c{};
    c.epilogue = o.get<int>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
    c.alignment = of(preference).get<std::uint32_t>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 256);
    c.workspace = std::min<std::uint64_t>(twin::workspace, of(preference).get<std::uint64_t>(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES));
    results[0] = {};
    static_assert(sizeof c <= sizeof results[0].algo);
    std::memcpy(&results[0].algo, &c, sizeof c);
    results[0].workspaceSize = c.workspace;
    return *n = 1, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* A, cublasLtMatrixLayout_t a, const void* B, cublasLtMatrixLayout_t b, const void* beta,
                              const void* C, cublasLtMatrixLayout_t, void* D, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    ++control.refused;
    if (control.refuse == twin::Refuse::running) return CUBLAS_STATUS_INVALID_VALUE;
    const Attributes& o = of(desc);
    auto* r = new Run{Matrix(of(a)), Matrix(of(b)), Matrix(of(d)), o.get<int>(CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_T, o.get<int>(CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T,
                      o.get<int>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT), A, B, C, nullptr, D, workspace, workspace_bytes, *static_cast<const float*>(alpha), *static_cast<const float*>(beta)};  // kept: a recorded run uses it again
    Chosen c;
    std::memcpy(&c, algo, sizeof c);
    if (with_bias(r->epilogue)) r->bias = o.get<const void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER);
    auto bits = reinterpret_cast<std::uintptr_t>(A) | reinterpret_cast<std::uintptr_t>(B) | reinterpret_cast<std::uintptr_t>(D);
    if (r->beta != 0) bits |= reinterpret_cast<std::uintptr_t>(C);
    const bool good = A && B && C && D && bits % c.alignment == 0 && fits(r->a, r->b, r->d, r->ta, r->tb) && c.epilogue == r->epilogue && workspace_bytes >= c.workspace &&
                      (c.workspace == 0 || workspace) && reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0 && (!with_bias(r->epilogue) || r->bias);
    if (!good) return CUBLAS_STATUS_INVALID_VALUE;
    --control.refused;
    ++control.runs;
    return cudaLaunchHostFunc(stream, [](void* x) { compute(*static_cast<Run*>(x)); }, r) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
}
