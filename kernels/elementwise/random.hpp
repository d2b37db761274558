// Random numbers: the i-th number depends on the seed and i only, so threads do not matter.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include <quern/kernels/elementwise/convert.hpp>

QUERN_BEGIN
namespace ew {

/// One 64-bit number for each counter: the finalizer of a multiply-xorshift generator over a Weyl sequence.
inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t i) noexcept {
    std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/// In [0, 1).
inline double random_unit(std::uint64_t seed, std::uint64_t i) noexcept { return static_cast<double>(random_bits(seed, i) >> 11) * 0x1p-53; }

struct RandomParams {
    enum class Kind : std::uint8_t { uniform, normal, bernoulli, multinomial } kind = Kind::uniform;
    double a = 0, b = 1;                ///< uniform: [a, b); normal: mean and deviation
    std::optional<float> seed;          ///< none: another one for each run
};

/// out[0]: random numbers of any number type. bernoulli: in[0] are the probabilities of 1; multinomial: in[0] are
/// unnormalized log probabilities [batch, classes] and out[0] [batch, samples] are classes.
class RandomKernel final : public Kernel {
public:
    explicit RandomKernel(const RandomParams& p) : p_(p) {}
    const char* name() const noexcept override { return "elementwise.random"; }
    void run(const Call& c) const override {
        const View& y = c.out[0];
        std::uint64_t seed = 0;
        if (p_.seed) seed = random_bits(std::bit_cast<std::uint32_t>(*p_.seed), 0);
        else seed = random_bits(static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()), reinterpret_cast<std::uintptr_t>(y.data));
        if (p_.kind == RandomParams::Kind::multinomial) return sample(c, seed);
        c.workers.ranges(y.count(), 8192, [&](std::int64_t b, std::int64_t e) {
            double v[block], p[block];
            for (std::int64_t i = b; i < e; i += block) {
                const std::int64_t n = std::min(block, e - i);
                if (p_.kind == RandomParams::Kind::bernoulli) convert(c.in[0].dtype, c.in[0].data, i, DType::f64, p, 0, n);
                for (std::int64_t k = 0; k < n; ++k) v[k] = draw(seed, static_cast<std::uint64_t>(i + k), p[k]);
                convert(DType::f64, v, 0, y.dtype, y.data, i, n);
            }
        });
    }

private:
    double draw(std::uint64_t seed, std::uint64_t i, double probability) const noexcept {
        if (p_.kind == RandomParams::Kind::uniform) return p_.a + (p_.b - p_.a) * random_unit(seed, i);
        if (p_.kind == RandomParams::Kind::bernoulli) return random_unit(seed, i) < probability ? 1 : 0;
        const double u = 1 - random_unit(seed, i * 2), v = random_unit(seed, i * 2 + 1);  // Box and Muller
        return p_.a + p_.b * std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586476925 * v);
    }
    void sample(const Call& c, std::uint64_t seed) const {
        const View &x = c.in[0], &y = c.out[0];
        const std::int64_t classes = x.dims[1], samples = y.dims[1];
        if (y.count() > 0 && classes == 0) raise(ErrorCode::shape_mismatch, "Multinomial over no classes; accepted: one or more");
        c.workers.for_each(y.dims[0], [&](std::int64_t b) {
            auto at = [&](std::int64_t k) {
                double v = 0;
                convert(x.dtype, x.in<std::byte>() + (b * classes + k) * dtype_bits(x.dtype) / 8, 0, DType::f64, &v, 0, 1);
                return v;
            };
            double top = -std::numeric_limits<double>::infinity(), sum = 0;
            for (std::int64_t k = 0; k < classes; ++k) top = std::max(top, at(k));
            for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(at(k) - top);
            for (std::int64_t s = 0; s < samples; ++s) {
                double left = random_unit(seed, static_cast<std::uint64_t>(b * samples + s)) * sum;
                std::int64_t k = 0;
                for (; k + 1 < classes; ++k)
                    if ((left -= std::exp(at(k) - top)) < 0) break;
                convert(DType::i64, &k, 0, y.dtype, y.out<std::byte>() + (b * samples + s) * dtype_bits(y.dtype) / 8, 0, 1);
            }
        });
    }
    RandomParams p_;
};

}  // namespace ew
QUERN_END
