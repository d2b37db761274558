// The control panels of the twins of cuDNN and cuBLASLt; each library gives its own by a function: quern_twin_control, quern_lt_twin_control.
#pragma once
#include <cstdint>

namespace twin {

/// In the order of its heuristics.
enum Engine { compiles, narrow_sums, other_bits, tensor_cores, winograd, greedy, fails, plain, engines };
enum class Refuse { nothing, fused, everything, running };
inline constexpr std::int64_t workspace = 4096;

struct Control {
    Refuse refuse = Refuse::nothing;
    int executed = -1;    ///< the engine of the last run
    int runs = 0;         ///< enqueued by the host, not replayed
    int fused = 0;        ///< of these with more than the convolution
    int descriptors = 0;  ///< that live
};

struct LtControl {
    Refuse refuse = Refuse::nothing;
    int runs = 0;     ///< enqueued by the host, not replayed
    int refused = 0;  ///< calls of cublasLtMatmul
    int objects = 0;  ///< descriptors, layouts and preferences that live
    bool address = false;  ///< an algorithm was asked for with the address of a bias, which nobody has yet
};

}  // namespace twin
