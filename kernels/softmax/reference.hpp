// The oracle of the softmax family, in double, and its tolerance.
#pragma once
#include <cmath>
#include <vector>

#include <quern/kernels/softmax/softmax.hpp>

QUERN_BEGIN
namespace softmax {

inline std::vector<double> reference(const Problem& p, const std::vector<double>& x, std::int64_t outer, std::int64_t n, std::int64_t inner) {
    std::vector<double> y(x.size());
    for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < inner; ++i) {
            std::int64_t at = o * n * inner + i;
            double top = -INFINITY, sum = 0;
            for (std::int64_t j = 0; j < n; ++j) top = std::fmax(top, x[at + j * inner]);
            for (std::int64_t j = 0; j < n; ++j) sum += std::exp(x[at + j * inner] - top);
            for (std::int64_t j = 0; j < n; ++j) {
                double v = x[at + j * inner] - top;
                y[at + j * inner] = p.log ? v - std::log(sum) : std::exp(v) / sum;
            }
        }
    return y;
}
inline double tolerance(const Problem& p, double y) {
    if (p.dtype == DType::f64) return 1e-14 * (1 + std::abs(y));
    return p.log ? 2e-6 * (1 + std::abs(y)) : 4e-7;
}

}  // namespace softmax
QUERN_END
