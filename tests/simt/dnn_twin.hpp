// The control panel of cuDNN's twin; the library gives its own by the function quern_twin_control.
#pragma once
#include <cstdint>

namespace twin {

/// In the order of its heuristics.
enum Engine { compiles, narrow_sums, other_bits, tensor_cores, winograd, greedy, fails, plain, engines };
enum class Refuse { nothing, fused, everything };
inline constexpr std::int64_t workspace = 4096;

struct Control {
    Refuse refuse = Refuse::nothing;
    int executed = -1;    ///< the engine of the last run
    int runs = 0;         ///< enqueued by the host, not replayed
    int fused = 0;        ///< of these with more than the convolution
    int descriptors = 0;  ///< that live
};

}  // namespace twin
