// What the classifiers and regressors of ai.onnx.ml share: transforms of scores, labels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../kernel.hpp"

QUERN_BEGIN
namespace ml {

/// post_transform of https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html; the numbers are those of TreeEnsemble-5.
enum class Post : std::uint8_t { none, softmax, logistic, softmax_zero, probit };

inline double logistic(double x) {
    const double v = 1 / (1 + std::exp(-std::abs(x)));
    return x < 0 ? 1 - v : v;
}
/// The inverse of the normal distribution function, |error| < 1e-12 for p in (0, 1); infinite at 0 and 1, NaN outside. Peers
/// use Winitzki's formula, which is wrong in the third digit: it is only where Newton's method begins here.
inline double probit(double p) {
    if (!(p >= 0 && p <= 1)) return std::numeric_limits<double>::quiet_NaN();
    if (p == 0 || p == 1) return p == 0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    if (p > 0.5) return -probit(1 - p);
    const double l = std::log(4 * p * (1 - p)), k = 2 / (3.14159265358979323846 * 0.147) + l / 2;
    double x = -std::sqrt(2 * (std::sqrt(k * k - l / 0.147) - k));
    for (int i = 0; i < 4; ++i) {
        const double density = std::exp(-x * x / 2) / 2.50662827463100050242;
        if (!(density > 0)) break;
        const double step = (0.5 * std::erfc(-x * 0.70710678118654752440) - p) / density;
        x -= step / (1 + x * step / 2);  // Halley: the second derivative is -x times the first
    }
    return x;
}
/// `v[n]` in place.
inline void transform(Post post, double* v, std::int64_t n) {
    switch (post) {
        case Post::none: return;
        case Post::logistic:
            for (std::int64_t i = 0; i < n; ++i) v[i] = logistic(v[i]);
            return;
        case Post::probit:
            for (std::int64_t i = 0; i < n; ++i) v[i] = probit(v[i]);
            return;
        case Post::softmax:
        case Post::softmax_zero: {
            const bool zero = post == Post::softmax_zero;  // zeros (|v| <= 1e-7) stay zeros and count for nothing
            double most = -std::numeric_limits<double>::infinity(), sum = 0;
            for (std::int64_t i = 0; i < n; ++i) most = std::max(most, v[i]);
            for (std::int64_t i = 0; i < n; ++i) {
                v[i] = zero && std::abs(v[i]) <= 1e-7 ? 0 : std::exp(v[i] - most);
                sum += v[i];
            }
            for (std::int64_t i = 0; i < n && sum > 0; ++i) v[i] /= sum;
            return;
        }
    }
}

/// Class labels: one of the two lists is used.
struct Labels {
    std::vector<std::int64_t> numbers;
    std::vector<std::string> words;
    bool text() const noexcept { return !words.empty(); }
    std::int64_t count() const noexcept { return static_cast<std::int64_t>(text() ? words.size() : numbers.size()); }
    /// Label `c` becomes element `at`. Beyond the list it is the number itself: the classes of a model with fewer than two labels are 0 and 1.
    void write(const View& y, std::int64_t at, std::int64_t c) const {
        if (!y.present()) return;
        const bool listed = c < count() && count() > 1;
        if (y.dtype == DType::string) y.out<std::string>()[at] = listed ? words[static_cast<std::size_t>(c)] : std::to_string(c);
        else y.out<std::int64_t>()[at] = listed ? numbers[static_cast<std::size_t>(c)] : c;
    }
};

/// Row `r` of the scores, rounded to the output's type.
inline void write_scores(const View& z, std::int64_t at, const double* v, std::int64_t n) {
    if (!z.present()) return;
    if (z.dtype == DType::f64) std::copy(v, v + n, z.out<double>() + at);
    else
        for (std::int64_t i = 0; i < n; ++i) z.out<float>()[at + i] = static_cast<float>(v[i]);
}
inline std::int64_t largest(const double* v, std::int64_t n) { return std::max_element(v, v + n) - v; }

}  // namespace ml
QUERN_END
