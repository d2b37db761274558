// One kernel that executes an element-wise program: the accumulator is in registers, temporaries in shared memory (a
// column for each thread, so that their number can be data), operands are read when a step names them.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/elementwise/cuda.hpp>

QUERN_BEGIN
namespace ew::cuda {

constexpr int kThreads = 128;
constexpr int kEach = 4;  // elements of a thread

enum class Walk : std::uint8_t { scalar, dense, strided };
struct Operand {
    const void* data;
    DType type;
    Walk walk;
    int strides[max_program_rank];
};
struct Arguments {
    Operand in[max_program_inputs];
    Step step[max_program_steps];
    void* out;
    unsigned count;
    simt::Divisor dims[max_program_rank];
    int rank, steps;
    DType type;
};

__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return x < 0 ? e / (1.0f + e) : 1.0f / (1.0f + e);
}
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
__device__ __forceinline__ float unit(float x) { return fmaxf(0.0f, fminf(1.0f, x)); }

// Not inlined: a switch this long would be repeated for each element.
__device__ __forceinline__ float real_unary(const Step& s, float x) {
    switch (static_cast<UnaryOp>(s.function)) {
        case UnaryOp::abs: return fabsf(x);
        case UnaryOp::acos: return acosf(x);
        case UnaryOp::acosh: return acoshf(x);
        case UnaryOp::asin: return asinf(x);
        case UnaryOp::asinh: return asinhf(x);
        case UnaryOp::atan: return atanf(x);
        case UnaryOp::atanh: return atanhf(x);
        case UnaryOp::ceil: return ceilf(x);
        case UnaryOp::cos: return cosf(x);
        case UnaryOp::cosh: return coshf(x);
        case UnaryOp::erf: return erff(x);
        case UnaryOp::exp: return expf(x);
        case UnaryOp::floor: return floorf(x);
        case UnaryOp::is_inf: return (s.alpha != 0 && x == INFINITY) || (s.beta != 0 && x == -INFINITY) ? 1.0f : 0.0f;
        case UnaryOp::is_nan: return x != x ? 1.0f : 0.0f;
        case UnaryOp::log: return logf(x);
        case UnaryOp::neg: return -x;
        case UnaryOp::logical_not: return x == 0 ? 1.0f : 0.0f;
        case UnaryOp::reciprocal: return 1.0f / x;
        case UnaryOp::round: return rintf(x);
        case UnaryOp::sign: return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
        case UnaryOp::sin: return sinf(x);
        case UnaryOp::sinh: return sinhf(x);
        case UnaryOp::sqrt: return sqrtf(x);
        case UnaryOp::tan: return tanf(x);
        case UnaryOp::tanh: return tanhf(x);
        case UnaryOp::sigmoid: return sigmoid(x);
        case UnaryOp::relu: return x < 0 ? 0.0f : x;
        case UnaryOp::leaky_relu: return x < 0 ? s.alpha * x : x;
        case UnaryOp::elu: return x < 0 ? s.alpha * expm1f(x) : x;
        case UnaryOp::selu: return s.gamma * (x <= 0 ? s.alpha * expm1f(x) : x);
        case UnaryOp::celu: return x < 0 ? s.alpha * expm1f(x / s.alpha) : x;
        case UnaryOp::thresholded_relu: return x > s.alpha ? x : 0.0f;
        case UnaryOp::hard_sigmoid: return unit(s.alpha * x + s.beta);
        case UnaryOp::hard_swish: return x * unit(x / 6.0f + 0.5f);
        case UnaryOp::softplus: return softplus(x);
        case UnaryOp::softsign: return x / (1.0f + fabsf(x));
        case UnaryOp::mish: return x * tanhf(softplus(x));
        case UnaryOp::gelu: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
        case UnaryOp::gelu_tanh:
            return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
        case UnaryOp::swish: return x * sigmoid(s.alpha * x);
        case UnaryOp::shrink: return x < -s.alpha ? x + s.beta : x > s.alpha ? x - s.beta : 0.0f;
        default: return x;
    }
}
__device__ __forceinline__ float real_binary(BinaryOp op, float a, float b) {
    switch (op) {
        case BinaryOp::add: return a + b;
        case BinaryOp::sub: return a - b;
        case BinaryOp::mul: return a * b;
        case BinaryOp::div: return a / b;
        case BinaryOp::max: return a > b || a != a ? a : b;
        case BinaryOp::min: return a < b || a != a ? a : b;
        case BinaryOp::pow: return b == 2.0f ? a * a : powf(a, b);
        case BinaryOp::fmod: return fmodf(a, b);
        case BinaryOp::mod: {
            const float r = fmodf(a, b);
            return r == 0 ? copysignf(0.0f, b) : (r < 0) != (b < 0) ? r + b : r;
        }
        case BinaryOp::prelu: return a < 0 ? a * b : a;
        case BinaryOp::logical_and: return a != 0 && b != 0 ? 1.0f : 0.0f;
        case BinaryOp::logical_or: return a != 0 || b != 0 ? 1.0f : 0.0f;
        case BinaryOp::logical_xor: return (a != 0) != (b != 0) ? 1.0f : 0.0f;
        case BinaryOp::equal: return a == b ? 1.0f : 0.0f;
        case BinaryOp::greater: return a > b ? 1.0f : 0.0f;
        case BinaryOp::less: return a < b ? 1.0f : 0.0f;
        case BinaryOp::greater_equal: return a >= b ? 1.0f : 0.0f;
        case BinaryOp::less_equal: return a <= b ? 1.0f : 0.0f;
        default: return a;
    }
}

using Whole = long long;
__device__ __forceinline__ Whole wrap(unsigned long long v) { return static_cast<Whole>(v); }
__device__ __forceinline__ Whole whole_unary(const Step& s, Whole x) {
    switch (static_cast<UnaryOp>(s.function)) {
        case UnaryOp::abs: return x < 0 ? wrap(0ull - static_cast<unsigned long long>(x)) : x;
        case UnaryOp::neg: return wrap(0ull - static_cast<unsigned long long>(x));
        case UnaryOp::sign: return (x > 0) - (x < 0);
        case UnaryOp::relu: return x < 0 ? 0 : x;
        case UnaryOp::logical_not: return x == 0;
        case UnaryOp::bit_not: return ~x;
        default: return x;
    }
}
__device__ __forceinline__ Whole whole_binary(BinaryOp op, Whole a, Whole b) {
    const auto u = static_cast<unsigned long long>(a), v = static_cast<unsigned long long>(b);
    switch (op) {
        case BinaryOp::add: return wrap(u + v);
        case BinaryOp::sub: return wrap(u - v);
        case BinaryOp::mul: return wrap(u * v);
        case BinaryOp::div: return b == 0 ? 0 : b == -1 ? wrap(0ull - u) : a / b;
        case BinaryOp::max: return a > b ? a : b;
        case BinaryOp::min: return a < b ? a : b;
        case BinaryOp::fmod: return b == 0 || b == -1 ? 0 : a % b;
        case BinaryOp::mod: {
            const Whole r = b == 0 || b == -1 ? 0 : a % b;
            return r != 0 && (r < 0) != (b < 0) ? r + b : r;
        }
        case BinaryOp::prelu: return a < 0 ? wrap(u * v) : a;
        case BinaryOp::logical_and: return a != 0 && b != 0;
        case BinaryOp::logical_or: return a != 0 || b != 0;
        case BinaryOp::logical_xor: return (a != 0) != (b != 0);
        case BinaryOp::equal: return a == b;
        case BinaryOp::greater: return a > b;
        case BinaryOp::less: return a < b;
        case BinaryOp::greater_equal: return a >= b;
        case BinaryOp::less_equal: return a <= b;
        case BinaryOp::bit_and: return a & b;
        case BinaryOp::bit_or: return a | b;
        case BinaryOp::bit_xor: return a ^ b;
        default: return a;
    }
}

template <class To>
struct Convert {
    __device__ __forceinline__ static To of(float x) { return static_cast<To>(x); }
    __device__ __forceinline__ static To of(__half x) { return static_cast<To>(__half2float(x)); }
    __device__ __forceinline__ static To of(__nv_bfloat16 x) { return static_cast<To>(__bfloat162float(x)); }
    template <class T>
    __device__ __forceinline__ static To of(T x) {
        return static_cast<To>(x);
    }
};
__device__ __forceinline__ void narrow(float x, float& y) { y = x; }
__device__ __forceinline__ void narrow(float x, __half& y) { y = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& y) { y = __float2bfloat16_rn(x); }
template <class T>
__device__ __forceinline__ void narrow(float x, T& y) {
    y = static_cast<T>(x);  // only 0 and 1 come here
}
__device__ __forceinline__ void narrow(Whole x, float& y) { y = static_cast<float>(x); }
__device__ __forceinline__ void narrow(Whole x, __half& y) { y = __float2half_rn(static_cast<float>(x)); }
__device__ __forceinline__ void narrow(Whole x, __nv_bfloat16& y) { y = __float2bfloat16_rn(static_cast<float>(x)); }
template <class T>
__device__ __forceinline__ void narrow(Whole x, T& y) {
    y = static_cast<T>(x);
}

struct Bool {
    std::uint8_t v;
    __device__ __forceinline__ operator float() const { return v ? 1.0f : 0.0f; }
    __device__ __forceinline__ operator Whole() const { return v ? 1 : 0; }
};
__device__ __forceinline__ void narrow(float x, Bool& y) { y.v = x != 0; }
__device__ __forceinline__ void narrow(Whole x, Bool& y) { y.v = x != 0; }

// f(null pointer of the storage type).
template <class F>
__device__ __forceinline__ void with_type(DType t, F f) {
    switch (t) {
        case DType::f32: return f(static_cast<float*>(nullptr));
        case DType::f16: return f(static_cast<__half*>(nullptr));
        case DType::bf16: return f(static_cast<__nv_bfloat16*>(nullptr));
        case DType::boolean: return f(static_cast<Bool*>(nullptr));
        case DType::u8: return f(static_cast<std::uint8_t*>(nullptr));
        case DType::i8: return f(static_cast<std::int8_t*>(nullptr));
        case DType::u16: return f(static_cast<std::uint16_t*>(nullptr));
        case DType::i16: return f(static_cast<std::int16_t*>(nullptr));
        case DType::i32: return f(static_cast<std::int32_t*>(nullptr));
        case DType::u32: return f(static_cast<std::uint32_t*>(nullptr));
        default: return f(static_cast<std::int64_t*>(nullptr));
    }
}

// The elements of a thread: four neighbours (Vector) or one in each of four rows of the block.
template <bool Vector>
struct Place {
    unsigned first, count;
    __device__ __forceinline__ unsigned at(int j) const { return Vector ? first + j : first + j * kThreads; }
    __device__ __forceinline__ bool inside(int j) const { return Vector ? first < count : at(j) < count; }
};
__device__ __forceinline__ int offset(const Arguments& a, const Operand& o, unsigned i) {
    int at = 0;
    for (int d = 0; d + 1 < a.rank; ++d) {
        const unsigned q = a.dims[d].divide(i);
        at += static_cast<int>(i - q * a.dims[d].divisor) * o.strides[d];
        i = q;
    }
    return at + static_cast<int>(i) * o.strides[a.rank - 1];
}
template <bool Vector, class T, class V>
__device__ __forceinline__ void fetch(const Arguments& a, const Operand& o, const Place<Vector>& place, V (&v)[kEach]) {
    auto* p = static_cast<const T*>(o.data);
    if (o.walk == Walk::scalar) {
        const V x = Convert<V>::of(*p);
#pragma unroll
        for (int j = 0; j < kEach; ++j) v[j] = x;
        return;
    }
    if constexpr (Vector) {
        const int at = o.walk == Walk::dense ? static_cast<int>(place.first) : offset(a, o, place.first);
        if (o.walk == Walk::strided && o.strides[0] == 0) {
            const V x = Convert<V>::of(p[at]);
#pragma unroll
            for (int j = 0; j < kEach; ++j) v[j] = x;
            return;
        }
        T raw[kEach];
        if constexpr (sizeof(T) == 8) {
            T lo[2], hi[2];
            simt::load_pack(p + at, lo);
            simt::load_pack(p + at + 2, hi);
            raw[0] = lo[0], raw[1] = lo[1], raw[2] = hi[0], raw[3] = hi[1];
        } else {
            simt::load_pack(p + at, raw);
        }
#pragma unroll
        for (int j = 0; j < kEach; ++j) v[j] = Convert<V>::of(raw[j]);
    } else {
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
            if (!place.inside(j)) continue;
            const int at = o.walk == Walk::dense ? static_cast<int>(place.at(j)) : offset(a, o, place.at(j));
            v[j] = Convert<V>::of(p[at]);
        }
    }
}
template <bool Vector, class T, class V>
__device__ __forceinline__ void put(T* p, const Place<Vector>& place, const V (&v)[kEach]) {
    if constexpr (Vector) {
        T raw[kEach];
#pragma unroll
        for (int j = 0; j < kEach; ++j) narrow(v[j], raw[j]);
        if constexpr (sizeof(T) == 8) {
            const T lo[2] = {raw[0], raw[1]}, hi[2] = {raw[2], raw[3]};
            simt::store_pack(p + place.first, lo);
            simt::store_pack(p + place.first + 2, hi);
        } else {
            simt::store_pack(p + place.first, raw);
        }
    } else {
#pragma unroll
        for (int j = 0; j < kEach; ++j)
            if (place.inside(j)) narrow(v[j], p[place.at(j)]);
    }
}

// V: float or Whole, the accumulator's domain at this step; temporaries hold eight bytes where programs are mixed.
template <bool Vector, bool Mixed>
struct Machine {
    const Arguments& a;
    Place<Vector> place;
    float* temps;
    float f[kEach];
    Whole w[kEach];  // unused, and gone, where the program is all real

    __device__ __forceinline__ float* temp(int k) const {
        constexpr int words = Mixed ? 2 * kEach : kEach;
        return temps + (k * kThreads + threadIdx.x) * words;
    }
    template <class V>
    __device__ __forceinline__ void operand(const Step& s, std::uint8_t which, V (&v)[kEach]) const {
        if (which == constant_operand) {
            V x;
            if constexpr (sizeof(V) == 4) x = s.alpha;
            else x = static_cast<V>(s.constant);
#pragma unroll
            for (int j = 0; j < kEach; ++j) v[j] = x;
        } else if (which >= first_temp) {
            auto* p = reinterpret_cast<const V*>(temp(which - first_temp));
#pragma unroll
            for (int j = 0; j < kEach; ++j) v[j] = p[j];
        } else {
            const Operand& o = a.in[which];
            with_type(o.type, [&](auto* t) { fetch<Vector, std::remove_pointer_t<decltype(t)>, V>(a, o, place, v); });
        }
    }
    template <class V, class U, class B>
    __device__ __forceinline__ void run(const Step& s, V (&acc)[kEach], U unary, B binary) {
        if (s.code == Code::keep) {
            auto* p = reinterpret_cast<V*>(temp(s.operand - first_temp));
#pragma unroll
            for (int j = 0; j < kEach; ++j) p[j] = acc[j];
            return;
        }
        if (s.code == Code::unary) {
#pragma unroll 1
            for (int j = 0; j < kEach; ++j) {
                const V y = unary(s, acc[0]);
                acc[0] = acc[1], acc[1] = acc[2], acc[2] = acc[3], acc[3] = y;
            }
            return;
        }
        // One place reads operands, whatever their number: it is repeated for each storage type.
        V v[kEach] = {}, before[kEach];
        const int operands = s.code == Code::select ? 2 : 1;
#pragma unroll 1
        for (int k = 0; k < operands; ++k) {
#pragma unroll
            for (int j = 0; j < kEach; ++j) before[j] = v[j];
            operand(s, k ? s.other : s.operand, v);
        }
        if (s.code == Code::select) {
#pragma unroll
            for (int j = 0; j < kEach; ++j) acc[j] = acc[j] != 0 ? before[j] : v[j];
        } else if (s.code == Code::load) {
#pragma unroll
            for (int j = 0; j < kEach; ++j) acc[j] = v[j];
        } else {
            const bool back = s.code == Code::reversed;
            const auto op = static_cast<BinaryOp>(s.function);
            if (op == BinaryOp::add) {
#pragma unroll
                for (int j = 0; j < kEach; ++j) acc[j] = acc[j] + v[j];
            } else if (op == BinaryOp::mul) {
#pragma unroll
                for (int j = 0; j < kEach; ++j) acc[j] = acc[j] * v[j];
            } else {
#pragma unroll 1
                for (int j = 0; j < kEach; ++j) {
                    const V y = back ? binary(op, v[0], acc[0]) : binary(op, acc[0], v[0]);
                    acc[0] = acc[1], acc[1] = acc[2], acc[2] = acc[3], acc[3] = y;
                    v[0] = v[1], v[1] = v[2], v[2] = v[3];
                }
            }
        }
    }
    __device__ __forceinline__ void execute() {
        for (int i = 0; i < a.steps; ++i) {
            const Step& s = a.step[i];
            if constexpr (Mixed) {
                if (s.code == Code::to_whole) {
                    const float most = s.alpha != 0 ? 9223372036854775807.0f : 2147483648.0f;
                    const Whole high = s.alpha != 0 ? 9223372036854775807ll : 2147483647ll;
#pragma unroll
                    for (int j = 0; j < kEach; ++j)
                        w[j] = f[j] != f[j]    ? 0
                               : f[j] >= most  ? high
                               : f[j] <= -most ? -high - 1
                                               : static_cast<Whole>(f[j]);
                    continue;
                }
                if (s.code == Code::to_real) {
#pragma unroll
                    for (int j = 0; j < kEach; ++j) f[j] = static_cast<float>(w[j]);
                    continue;
                }
                if (s.whole) {
                    run(
                        s, w, [](const Step& s, Whole x) { return whole_unary(s, x); },
                        [](BinaryOp op, Whole x, Whole y) { return whole_binary(op, x, y); });
                    continue;
                }
            }
            run(
                s, f, [](const Step& s, float x) { return real_unary(s, x); },
                [](BinaryOp op, float x, float y) { return real_binary(op, x, y); });
        }
        const bool whole = Mixed && a.steps && a.step[a.steps - 1].whole;
        with_type(a.type, [&](auto* t) {
            using T = std::remove_pointer_t<decltype(t)>;
            if (whole) put<Vector, T, Whole>(static_cast<T*>(a.out), place, w);
            else put<Vector, T, float>(static_cast<T*>(a.out), place, f);
        });
    }
};

template <bool Vector, bool Mixed>
__global__ void __launch_bounds__(kThreads) program(const Arguments a) {
    const unsigned block = blockIdx.x * (kThreads * kEach);
    const unsigned first = block + (Vector ? threadIdx.x * kEach : threadIdx.x);
    Machine<Vector, Mixed> m{a, {first, a.count}, simt::dynamic_smem<float>(), {}, {}};
    if (!m.place.inside(0)) return;
    m.execute();
}

struct Shape {
    int rank = 0;
    std::int64_t dims[max_program_rank] = {};
    std::int64_t strides[max_program_inputs][max_program_rank] = {};
};
// Neighbouring dimensions that all operands walk alike become one.
inline Shape merged(int inputs, const ProgramOperand* in, int rank, const std::int64_t* dims) {
    Shape s;
    for (int d = 0; d < rank; ++d) {
        if (dims[d] == 1) continue;
        bool merge = s.rank > 0;
        for (int k = 0; k < inputs && merge; ++k)
            merge = in[k].strides[d] == s.strides[k][s.rank - 1] * s.dims[s.rank - 1];
        if (merge) {
            s.dims[s.rank - 1] *= dims[d];
            continue;
        }
        s.dims[s.rank] = dims[d];
        for (int k = 0; k < inputs; ++k) s.strides[k][s.rank] = in[k].strides[d];
        ++s.rank;
    }
    if (s.rank == 0) s.rank = 1, s.dims[0] = 1;
    return s;
}

template <bool Vector>
cudaError_t launch(const Arguments& a, bool mixed, int temps, cudaStream_t stream) {
    const dim3 grid((a.count + kThreads * kEach - 1) / (kThreads * kEach));
    const std::size_t column = kThreads * kEach * sizeof(float) * (mixed ? 2 : 1);
    return mixed ? simt::launch(program<Vector, true>, grid, dim3(kThreads), column * temps, stream, a)
                 : simt::launch(program<Vector, false>, grid, dim3(kThreads), column * temps, stream, a);
}

}  // namespace ew::cuda

namespace ew {

cudaError_t cuda_run_program(const Program& p, const ProgramOperand* in, void* out, DType type, int rank,
                             const std::int64_t* dims, cudaStream_t stream) {
    if (p.steps < 1 || p.steps > max_program_steps || p.inputs < 0 || p.inputs > max_program_inputs || p.temps < 0 ||
        p.temps > max_program_temps || rank < 0 || rank > max_program_rank || !storable(type))
        return cudaErrorInvalidValue;
    constexpr std::int64_t most = 0x7fffffff;
    std::int64_t count = 1;
    for (int d = 0; d < rank; ++d) {
        if (dims[d] < 0 || (dims[d] > 0 && count > most / dims[d])) return cudaErrorInvalidValue;
        count *= dims[d];
    }
    if (count == 0) return cudaSuccess;
    const cuda::Shape s = cuda::merged(p.inputs, in, rank, dims);
    cuda::Arguments a{};
    bool mixed = false, vector = s.dims[0] % cuda::kEach == 0;
    const auto aligned = [](const void* q, DType t) {
        const std::uintptr_t to =
            dtype_bits(t) == 64 ? 16 : static_cast<std::uintptr_t>(dtype_bits(t)) * cuda::kEach / 8;
        return reinterpret_cast<std::uintptr_t>(q) % to == 0;
    };
    vector = vector && aligned(out, type);
    for (int k = 0; k < p.inputs; ++k) {
        cuda::Operand& o = a.in[k];
        if (!storable(in[k].type)) return cudaErrorInvalidValue;
        o.data = in[k].data;
        o.type = in[k].type;
        bool scalar = true, dense = true;
        std::int64_t run = 1, span = 0;
        for (int d = 0; d < s.rank; ++d) {
            const std::int64_t stride = s.strides[k][d];
            if (stride < 0 || stride > most) return cudaErrorInvalidValue;
            o.strides[d] = static_cast<int>(stride);
            scalar = scalar && stride == 0;
            dense = dense && stride == run;
            run *= s.dims[d];
            span += stride * (s.dims[d] - 1);
            if (d > 0 && stride % cuda::kEach) vector = false;
        }
        if (span > most) return cudaErrorInvalidValue;
        o.walk = scalar ? cuda::Walk::scalar : dense ? cuda::Walk::dense : cuda::Walk::strided;
        if (!scalar) vector = vector && o.strides[0] <= 1 && (o.strides[0] == 0 || aligned(o.data, o.type));
    }
    for (int i = 0; i < p.steps; ++i) {
        a.step[i] = p.step[i];
        mixed = mixed || p.step[i].whole || p.step[i].code == Code::to_whole || p.step[i].code == Code::to_real;
    }
    a.out = out;
    a.type = type;
    a.count = static_cast<unsigned>(count);
    a.rank = s.rank;
    a.steps = p.steps;
    for (int d = 0; d < s.rank; ++d) a.dims[d] = simt::Divisor(s.dims[d]);
    return vector ? cuda::launch<true>(a, mixed, p.temps, stream) : cuda::launch<false>(a, mixed, p.temps, stream);
}

}  // namespace ew
QUERN_END
