// Inner loops of convolutions that few kernels need, once per instruction set: beside vec::Table, which everything includes.
#pragma once
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace vec {

/// Weights of one output of conv_planar_f32, at most.
inline constexpr std::int64_t planar_taps = 256;

/// Some columns of a matrix that lies in several places: `columns` of them, rows lda floats apart.
struct Columns {
    const float* a;
    std::int64_t lda, columns;
};

/// Columns of a convolution along one dimension: column j of tap t of channel c is x[c * ldx + at[t] + j]. Reads reach line_slack floats
/// beyond the last column of each tap.
struct LineTile {
    const float* x;
    std::int64_t ldx, channels, taps;
    const std::int64_t* at;
    std::int64_t columns;
};
inline constexpr std::int64_t line_slack = 128;

/// As Table: pointers may be aligned to the element only; no function allocates, throws or keeps state.
struct ImageTable {
    /// n rows of out[2] pixels of a depthwise convolution, nhwc, of kernel[1] x kernel[2] taps. rows[r * stride[1] + i] is the input row of kernel
    /// row i for output row r (of in[2] pixels; zeros where it is padding): with n > 1, dilation[1] is 1. `channels` channels; in_channels and
    /// out_channels are floats from pixel to pixel of rows and y, y_row from row to row of y (and of a residual); weights [taps, ldw]. An output is
    /// the same sum however rows are grouped.
    void (*depthwise_rows_f32)(const ConvShape&, std::int64_t n, const float* const* rows, const float* w, std::int64_t ldw, float* y, std::int64_t y_row,
                               const Epilogue&);
    /// Whether Table::conv_nhwc_f32 reads rows of channels where they lie (pointers to them are listed for each call), rather than copies of them.
    bool (*reads_taps)(const ConvShape&);
    /// Output rows [r0, r1) of a convolution from an nchw image to nhwc; two spatial dimensions, stride[2] 1, 2, 3, 4 or 6, at most planar_taps
    /// weights for each output. `packed`: weights [channels, taps] x n packed as B; y at pixel 0; `work`: planar_work_floats.
    void (*conv_planar_f32)(const ConvShape&, const float* x, const float* packed, std::int64_t r0, std::int64_t r1, std::int64_t n, float* y,
                            const Epilogue&, float* work);
    std::size_t (*planar_work_floats)(const ConvShape&);
    /// The row blocks [b0, b1) of m output channels over the tile's columns. `packed`: weights [m, channels * taps] by Table::pack_rows_f32; y, bias_col
    /// and residual start at row 0 (bias_row absent, scale 1). An output is the same chain of sums whatever tile it is in.
    void (*line_f32)(const LineTile&, const float* packed, std::int64_t m, std::int64_t b0, std::int64_t b1, float* y, std::int64_t ldy, const Epilogue&);
    /// y[i * s + r] = z[r * ldz + i] + bias for r < s and i < n; s is 2, 4, 8 or 16.
    void (*interleave_f32)(std::int64_t s, const float* z, std::int64_t ldz, std::int64_t n, float bias, float* y);
    /// One pixel of a pool, nhwc: y[i] over x[0...taps)[i] for n channels, the largest (`max`; NaN is larger) or the sum / divisor; taps > 0.
    void (*pool_pixel_f32)(bool max, std::int64_t taps, const float* const* x, std::int64_t n, float divisor, float* y);
    /// n floats will be written soon: their lines are fetched as the only copies.
    void (*fetch_to_write_f32)(const float* y, std::int64_t n);
    /// y = f(x * scale + shift) over rows of n values, ldx and ldy apart; scale and shift are rows, f is the epilogue's post.
    void (*scale_shift_f32)(std::int64_t rows, std::int64_t n, const float* x, std::int64_t ldx, const float* scale, const float* shift, float* y,
                            std::int64_t ldy, const Epilogue&);
    /// y[j] = the sum over rows i, in their order, of x[i * ldx + j]; n columns.
    void (*sum_rows_f32)(std::int64_t rows, std::int64_t n, const float* x, std::int64_t ldx, float* y);
    /// As Table::gemm_packed_f32 of A[m,k] with each column times that of `gate` [k]; `work` as there.
    void (*gemm_gated_f32)(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* gate, const float* packed,
                           float* c, std::int64_t ldc, const Epilogue&, void* work);
    /// As Table::gemm_packed_f32 of an A[m,k] whose columns are those of `parts` beside each other, k in all; `work` as there.
    void (*gemm_parts_f32)(std::int64_t m, std::int64_t n, std::int64_t k, const Columns* parts, const float* packed, float* c, std::int64_t ldc,
                           const Epilogue&, void* work);
};

/// The table that goes with table(cap).
QUERN_API const ImageTable& image_table(Isa cap) noexcept;

}  // namespace vec
QUERN_END
