// LSTM, GRU and RNN over whole sequences of f32 on CUDA.
#pragma once
#include <driver_types.h>

#include <cstddef>
#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace rnn {

enum class CudaCell : std::uint8_t {
    lstm,        ///< gates i, o, f, c
    gru,         ///< gates z, r, h; the reset gate is applied to the state
    gru_linear,  ///< the reset gate is applied to the state's product: linear_before_reset
    rnn
};
constexpr int cuda_gates(CudaCell c) { return c == CudaCell::lstm ? 4 : c == CudaCell::rnn ? 1 : 3; }

/// ONNX's LSTM, GRU and RNN with their default activations, G gates: x [seq, batch, in], w [dirs, G hidden, in], r [dirs,
/// G hidden, hidden], b [dirs, 2 G hidden] or null, h0, c0 [dirs, batch, hidden] or null; y [seq, dirs, batch, hidden],
/// y_h, y_c [dirs, batch, hidden], each may be null (c0, y_c: LSTM only). With two directions the second runs backwards,
/// with one it does where `reverse`. Tolerance: 1e-5.
struct CudaRnn {
    CudaCell cell = CudaCell::lstm;
    std::int64_t seq = 0, batch = 0, in = 0, hidden = 0, directions = 1;
    bool reverse = false;
    const float *x = nullptr, *w = nullptr, *r = nullptr, *b = nullptr, *h0 = nullptr, *c0 = nullptr;
    float *y = nullptr, *y_h = nullptr, *y_c = nullptr;
};
/// Bytes of device memory that cuda_rnn() needs; depends on the sizes only.
std::size_t cuda_rnn_scratch(const CudaRnn&) noexcept;
/// Enqueues a product for each direction and one kernel a step (two for `gru`). cudaErrorInvalidValue for sizes beyond
/// the limits.
cudaError_t cuda_rnn(const CudaRnn&, void* scratch, cudaStream_t);

}  // namespace rnn
QUERN_END
