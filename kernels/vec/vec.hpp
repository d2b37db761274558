// The inner loops that portable kernels are made of, once per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

#include <quern/options.hpp>

QUERN_BEGIN
namespace vec {

/// y[i] = f(x[i]).
enum class Unary : std::uint8_t {
    exp, log, tanh, sigmoid, erf, gelu, gelu_tanh, silu, sqrt, rsqrt, reciprocal, sin, cos, abs, neg, relu, hard_swish,
    floor, ceil, square, softplus, mish, count
};
/// z[i] = f(x[i], y[i]).
enum class Binary : std::uint8_t { add, sub, mul, div, max, min, count };
enum class Reduce : std::uint8_t { sum, max, min, prod, sum_abs, sum_square, count };

/// What follows a product, applied to each element of a tile of C while it is in cache:
/// c = f(scale * c + bias + residual).
enum class Post : std::uint8_t { none, relu, clip, leaky_relu, gelu, gelu_tanh, silu, sigmoid, tanh, hard_swish, hard_sigmoid };
struct Epilogue {
    const float* bias_row = nullptr;  ///< one value for each column of C
    const float* bias_col = nullptr;  ///< one value for each row of C
    const float* residual = nullptr;  ///< same layout and leading dimension as C, added before `post`
    Post post = Post::none;
    float alpha = 0, beta = 0;        ///< clip: [alpha, beta]; leaky_relu: alpha; hard_sigmoid: alpha * x + beta; silu: x * sigmoid(alpha * x), 0 is 1
    float scale = 1;
};

/// One image and one group of a convolution over three spatial dimensions (size, kernel and stride 1 where there
/// are fewer).
struct ConvShape {
    std::int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    std::int64_t channels;      ///< of the group
    std::int64_t in_channels;   ///< of the image (nhwc: floats from pixel to pixel)
    std::int64_t out_channels;  ///< of the image
    std::int64_t pixels_in() const { return in[0] * in[1] * in[2]; }
    std::int64_t pixels_out() const { return out[0] * out[1] * out[2]; }
    std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

/// Some queries of one head: y = softmax(scale * q k^T + masks) v. Rows of q and k hold d values, of v and y dv; each
/// `_row` is the distance of neighbouring rows.
struct AttentionTile {
    /// Added to the score of query i and key j: data[i * query + j * key]. key is 0 or 1; null: absent.
    struct Mask {
        const float* data = nullptr;
        std::int64_t query = 0, key = 1;
    };
    std::int64_t queries = 0, keys = 0, d = 0, dv = 0;  ///< at most attention_queries; any; any
    const float *q = nullptr, *k = nullptr, *v = nullptr;
    float* y = nullptr;
    std::int64_t q_row = 0, k_row = 0, v_row = 0, y_row = 0;
    float scale = 1;
    Mask mask[2];
    bool closed_is_zero = false;  ///< what a query gives whose scores are all -inf: zeros, else NaN
};

/// Loops over contiguous memory of one instruction set. All pointers may be aligned to the element
/// only. No function allocates, throws or keeps state.
struct Table {
    Isa isa;
    const char* name;  ///< "sse2", "avx2", "avx512"
    /// C[m,n] = A[m,k] * B[k,n], row-major with leading dimensions; transposed operands are read as
    /// A[k,m], B[n,k]. `work` holds gemm_work_bytes(m, n, k). Then the epilogue over C.
    void (*gemm_f32)(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, bool ta,
                     const float* b, std::int64_t ldb, bool tb, float* c, std::int64_t ldc, const Epilogue&, void* work);
    void (*gemm_f64)(std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda, bool ta,
                     const double* b, std::int64_t ldb, bool tb, double* c, std::int64_t ldc, void* work);
    std::size_t (*gemm_work_bytes)(std::int64_t m, std::int64_t n, std::int64_t k);
    /// B packed once, in panels of `panel` columns that lie one after the other (panel p at p * panel * k, 64-byte
    /// aligned if the first is): packed_floats(n, k) floats, all set by pack_b_f32. Values are multiplied by `scale`.
    /// gemm_packed_f32 may start at any panel.
    std::int64_t panel;
    std::size_t (*packed_floats)(std::int64_t n, std::int64_t k);
    void (*pack_b_f32)(std::int64_t n, std::int64_t k, const float* b, std::int64_t ldb, bool tb, float scale, float* packed);
    void (*gemm_packed_f32)(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, bool ta,
                            const float* packed, float* c, std::int64_t ldc, const Epilogue&, void* work);
    float (*dot_f32)(const float* x, const float* y, std::int64_t n);
    /// `work` holds attention_work_bytes(d, dv), 64-byte aligned. No keys give zeros.
    void (*attention_f32)(const AttentionTile&, void* work);
    std::size_t (*attention_work_bytes)(std::int64_t d, std::int64_t dv);
    std::int64_t attention_queries;
    /// Output pixels [p0, p1) of n output channels, nhwc. `x` is the group's first channel of the image, `packed` the
    /// weights [taps, channels] x n packed as B, `y` the first pixel's first value, ldy floats from pixel to pixel.
    void (*conv_nhwc_f32)(const ConvShape&, const float* x, const float* packed, std::int64_t p0, std::int64_t p1,
                          std::int64_t n, float* y, std::int64_t ldy, const Epilogue&, void* work);
    /// Weights [m, k] in blocks of at most `row_block` rows, cut evenly; packed_rows_floats(m, k) floats.
    std::int64_t row_block;
    std::size_t (*packed_rows_floats)(std::int64_t m, std::int64_t k);
    void (*pack_rows_f32)(std::int64_t m, std::int64_t k, const float* a, std::int64_t lda, float* packed);
    /// Output pixels [p0, p1) of the row blocks [b0, b1) of m output channels, nchw; k = [channels, taps]. `y` and the
    /// epilogue (bias_col, residual) start at the group's first channel and pixel 0. Work as for gemm_f32.
    void (*conv_nchw_f32)(const ConvShape&, const float* x, const float* packed, std::int64_t m, std::int64_t b0,
                          std::int64_t b1, std::int64_t p0, std::int64_t p1, float* y, const Epilogue&, void* work);
    /// Winograd's convolution F(T x T, 3 x 3) in two steps over tiles of T x T output pixels, T = 2 or 4, nhwc, stride and
    /// dilation 1, two spatial dimensions, channels a multiple of 16 and out_channels of 32. First the tiles [t0, t1) of
    /// the image to place `at` of `v`, which has room for `tiles` (winograd_tile_floats); `zeros`: channels floats.
    void (*winograd_input_f32)(const ConvShape&, int t, const float* x, std::int64_t t0, std::int64_t t1, std::int64_t at,
                               std::int64_t tiles, float* v, const float* zeros);
    /// Then the panels [p0, p1) of the outputs of `count` tiles from t0, which are at place `at` of v. `u` are the weights by winograd_weights_f32 from
    /// [out_channels, channels, 3, 3]; `work` holds winograd_work_floats(T, tiles).
    void (*winograd_output_f32)(const ConvShape&, int t, const float* v, const float* u, std::int64_t t0, std::int64_t at,
                                std::int64_t count, std::int64_t tiles, std::int64_t p0, std::int64_t p1, float* y, const Epilogue&,
                                float* work);
    void (*winograd_weights_f32)(const ConvShape&, int t, const float* w, float* u);
    std::size_t (*winograd_tile_floats)(int t, std::int64_t tiles, std::int64_t channels);
    std::size_t (*winograd_work_floats)(int t, std::int64_t tiles);
    /// Depthwise, nhwc, one output channel for each input channel: output rows [r0, r1) of out[0] * out[1]; weights
    /// [taps, channels]; y and residual start at pixel 0.
    void (*depthwise_nhwc_f32)(const ConvShape&, const float* x, const float* w, std::int64_t r0, std::int64_t r1, float* y,
                               const Epilogue&);
    void (*unary_f32[static_cast<int>(Unary::count)])(const float* x, float* y, std::int64_t n);
    void (*binary_f32[static_cast<int>(Binary::count)])(const float* x, const float* y, float* z, std::int64_t n);
    /// y is one value.
    void (*binary_scalar_f32[static_cast<int>(Binary::count)])(const float* x, float y, float* z, std::int64_t n);
    /// One value from n contiguous ones.
    float (*reduce_f32[static_cast<int>(Reduce::count)])(const float* x, std::int64_t n);
    /// acc[i] = acc[i] (op) x[i]: reductions over outer axes.
    void (*accumulate_f32[static_cast<int>(Reduce::count)])(const float* x, float* acc, std::int64_t n);
    /// One row: y = exp(x - max) / sum; log: x - max - log(sum).
    void (*softmax_f32)(const float* x, float* y, std::int64_t n, bool log);
    /// One row: y = (x - mean) / sqrt(var + eps) * scale + bias; scale and bias may be null; `rms`: no mean is
    /// taken off. mean_out and inv_std_out may be null.
    void (*norm_f32)(const float* x, const float* scale, const float* bias, float* y, std::int64_t n, float eps, bool rms,
                     float* mean_out, float* inv_std_out);
    /// y = scale * x + shift over n values.
    void (*affine_f32)(const float* x, float scale, float shift, float* y, std::int64_t n);
    /// Epilogue over one row of C without a product (used after depthwise and direct loops).
    void (*finish_f32)(float* c, std::int64_t n, const Epilogue&);
    /// Depthwise convolution of one channel plane: y[oh,ow] += x[h,w] * w[kh,kw] with strides, dilations and
    /// padding at top and left; y preset by the caller.
    void (*depthwise_f32)(const float* x, std::int64_t h, std::int64_t w, const float* k, std::int64_t kh, std::int64_t kw,
                          std::int64_t sh, std::int64_t sw, std::int64_t dh, std::int64_t dw, std::int64_t pt,
                          std::int64_t pl, float* y, std::int64_t oh, std::int64_t ow);
    /// Saturating quantization: y = clamp(round_half_even(x / scale) + zero); u8 if `is_unsigned`, else i8.
    void (*quantize_8)(const float* x, float scale, std::int32_t zero, bool is_unsigned, void* y, std::int64_t n);
    /// y = (x - zero) * scale.
    void (*dequantize_8)(const void* x, float scale, std::int32_t zero, bool is_unsigned, float* y, std::int64_t n);
};

/// The best table that is built in, the machine has, and `cap` allows.
QUERN_API const Table& table(Isa cap) noexcept;

}  // namespace vec
QUERN_END
