// The functions that products and convolutions apply to their results, on the device.
#pragma once
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace cuda {

__device__ __forceinline__ float post(vec::Post p, float x, float alpha, float beta) {
    switch (p) {
        case vec::Post::relu: return x < 0 ? 0.0f : x;
        case vec::Post::clip: return x < alpha ? alpha : x > beta ? beta : x;
        case vec::Post::leaky_relu: return x < 0 ? alpha * x : x;
        case vec::Post::gelu: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
        case vec::Post::gelu_tanh:
            return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
        case vec::Post::silu: return x / (1.0f + expf((alpha == 0 ? -1.0f : -alpha) * x));
        case vec::Post::sigmoid: return 1.0f / (1.0f + expf(-x));
        case vec::Post::tanh: return tanhf(x);
        case vec::Post::hard_swish: return x * fmaxf(0.0f, fminf(1.0f, x / 6.0f + 0.5f));
        case vec::Post::hard_sigmoid: return fmaxf(0.0f, fminf(1.0f, alpha * x + beta));
        default: return x;
    }
}

}  // namespace cuda
QUERN_END
