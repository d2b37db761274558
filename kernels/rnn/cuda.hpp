// LSTM over whole sequences of f32 on CUDA.
#pragma once
#include <driver_types.h>

#include <cstddef>
#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace rnn {

/// ONNX's LSTM with its default activations: x [seq, batch, in], w [dirs, 4 hidden, in], r [dirs, 4 hidden, hidden], b
/// [dirs, 8 hidden] or null, h0, c0 [dirs, batch, hidden] or null; y [seq, dirs, batch, hidden], y_h, y_c [dirs, batch,
/// hidden], each may be null. With two directions the second runs backwards, with one it does where `reverse`.
/// Tolerance: 1e-5.
struct CudaLstm {
    std::int64_t seq = 0, batch = 0, in = 0, hidden = 0, directions = 1;
    bool reverse = false;
    const float *x = nullptr, *w = nullptr, *r = nullptr, *b = nullptr, *h0 = nullptr, *c0 = nullptr;
    float *y = nullptr, *y_h = nullptr, *y_c = nullptr;
};
/// Bytes of device memory that cuda_lstm() needs; depends on the sizes only.
std::size_t cuda_lstm_scratch(const CudaLstm&) noexcept;
/// Enqueues a product for each direction and one kernel a step. cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_lstm(const CudaLstm&, void* scratch, cudaStream_t);

}  // namespace rnn
QUERN_END
