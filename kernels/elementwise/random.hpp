// Random numbers that threads do not matter to: with a seed the sequence of ONNX's reference implementation, without one a number of its own for each index.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
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

/// NumPy's RandomState(seed), which ONNX's reference implementation draws from: the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), 53 bits a
/// number, normal numbers by Marsaglia's polar method. One after the other: some 5 ns a number.
class ReferenceRandom {
public:
    explicit ReferenceRandom(std::uint32_t seed) noexcept {
        state_[0] = seed;
        for (std::uint32_t i = 1; i < length; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
    }
    /// In [0, 1).
    double unit() noexcept {
        const std::uint32_t high = word() >> 5, low = word() >> 6;
        return (high * 67108864.0 + low) / 9007199254740992.0;
    }
    double normal() noexcept {
        if (spare_) {
            const double v = *spare_;
            spare_.reset();
            return v;
        }
        double x, y, r;
        do {
            x = 2 * unit() - 1;
            y = 2 * unit() - 1;
            r = x * x + y * y;
        } while (r >= 1 || r == 0);
        const double f = std::sqrt(-2 * std::log(r) / r);
        spare_ = f * x;
        return f * y;
    }

private:
    static constexpr std::uint32_t length = 624, shift = 397;
    std::uint32_t word() noexcept {
        if (at_ == length) twist();
        std::uint32_t y = state_[at_++];
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        return y ^ (y >> 18);
    }
    void twist() noexcept {
        for (std::uint32_t i = 0; i < length; ++i) {
            const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % length] & 0x7fffffffu);
            state_[i] = state_[(i + shift) % length] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        at_ = 0;
    }
    std::uint32_t state_[length], at_ = length;
    std::optional<double> spare_;
};
/// A seed for a run that was given none.
inline std::uint64_t fresh_seed(const void* data) noexcept {
    return random_bits(static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()), reinterpret_cast<std::uintptr_t>(data));
}

struct RandomParams {
    enum class Kind : std::uint8_t { uniform, normal, bernoulli, multinomial } kind = Kind::uniform;
    double a = 0, b = 1;                ///< uniform: [a, b); normal: mean and deviation
    std::optional<std::uint32_t> seed;  ///< none: another one for each run
};

/// out[0]: random numbers of any number type. bernoulli: in[0] are the probabilities of 1; multinomial: in[0] are
/// unnormalized log probabilities [batch, classes] and out[0] [batch, samples] are classes.
class RandomKernel final : public Kernel {
public:
    explicit RandomKernel(const RandomParams& p) : p_(p) {}
    const char* name() const noexcept override { return "elementwise.random"; }
    void run(const Call& c) const override {
        const View& y = c.out[0];
        if (p_.kind == RandomParams::Kind::multinomial) return sample(c, p_.seed ? random_bits(*p_.seed, 0) : fresh_seed(y.data));
        if (p_.seed) {
            ReferenceRandom random(*p_.seed);
            return fill(c, 0, y.count(), [&](std::int64_t, double p) { return draw(random, p); });
        }
        const std::uint64_t seed = fresh_seed(y.data);
        c.workers.ranges(y.count(), 8192, [&](std::int64_t b, std::int64_t e) {
            fill(c, b, e, [&](std::int64_t i, double p) { return draw(seed, static_cast<std::uint64_t>(i), p); });
        });
    }

private:
    /// Elements [b, e) are f(index, probability of 1), in order.
    template <class F>
    void fill(const Call& c, std::int64_t b, std::int64_t e, F&& f) const {
        const View& y = c.out[0];
        double v[block], p[block] = {};
        for (std::int64_t i = b; i < e; i += block) {
            const std::int64_t n = std::min(block, e - i);
            if (p_.kind == RandomParams::Kind::bernoulli) convert(c.in[0].dtype, c.in[0].data, i, DType::f64, p, 0, n);
            for (std::int64_t k = 0; k < n; ++k) v[k] = f(i + k, p[k]);
            convert(DType::f64, v, 0, y.dtype, y.data, i, n);
        }
    }
    double draw(ReferenceRandom& random, double probability) const noexcept {
        switch (p_.kind) {
            case RandomParams::Kind::uniform: return p_.a + (p_.b - p_.a) * random.unit();
            case RandomParams::Kind::normal: return p_.a + p_.b * random.normal();
            default: {  // the inverse of the distribution, from the likelier side, as binomial(1, p) goes
                const double u = random.unit();
                return probability <= 0.5 ? u > 1 - probability : u <= probability;
            }
        }
    }
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

/// Dropout in training mode: mask[i] = u[i] >= ratio for uniform numbers u, y = x / (1 - ratio) where the mask is true, else 0.
/// in: x, optional ratio (one number in [0, 1]; 0.5 where absent), optional training mode (one bool; false where absent). out: y of x's type,
/// optional mask of any number type. Without training mode or with ratio 0 y is x and the mask is all true.
class DropoutKernel final : public Kernel {
public:
    explicit DropoutKernel(std::optional<std::uint32_t> seed) : seed_(seed) {}
    const char* name() const noexcept override { return "elementwise.dropout"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        double ratio = 0.5;
        if (c.in.size() > 1 && c.in[1].present() && c.in[1].count() == 1) convert(c.in[1].dtype, c.in[1].data, 0, DType::f64, &ratio, 0, 1);
        const bool training = c.in.size() > 2 && c.in[2].present() && c.in[2].count() == 1 && *c.in[2].in<std::uint8_t>();
        if (training && !(ratio >= 0 && ratio <= 1)) raise(ErrorCode::invalid_argument, "Dropout's ratio is " + std::to_string(ratio) + "; accepted: 0 to 1");
        if (!training || ratio == 0) {
            if (std::size_t n = c.out[0].present() ? storage_bytes(x.dtype, x.count()) : 0) std::memcpy(c.out[0].data, x.data, n);
            return c.workers.ranges(x.count(), 8192, [&](std::int64_t b, std::int64_t e) { pieces(c, b, e, false, 1, [](std::int64_t) { return 1.0; }); });
        }
        const double scale = ratio < 1 ? 1 / (1 - ratio) : 0;
        if (seed_) {
            ReferenceRandom random(*seed_);
            return pieces(c, 0, x.count(), true, scale, [&](std::int64_t) { return random.unit() >= ratio ? 1.0 : 0.0; });
        }
        const std::uint64_t seed = fresh_seed(c.out[0].data);
        c.workers.ranges(x.count(), 8192, [&](std::int64_t b, std::int64_t e) {
            pieces(c, b, e, true, scale, [&](std::int64_t i) { return random_unit(seed, static_cast<std::uint64_t>(i)) >= ratio ? 1.0 : 0.0; });
        });
    }

private:
    /// The mask (keep(i)) of elements [b, e), and with `drop` what it leaves of them.
    template <class F>
    static void pieces(const Call& c, std::int64_t b, std::int64_t e, bool drop, double scale, F&& keep) {
        const View &x = c.in[0], &y = c.out[0];
        const bool has_mask = c.out.size() > 1 && c.out[1].present();
        if (!has_mask && !drop) return;
        double v[block], m[block];
        for (std::int64_t i = b; i < e; i += block) {
            const std::int64_t n = std::min(block, e - i);
            for (std::int64_t k = 0; k < n; ++k) m[k] = keep(i + k);
            if (has_mask) convert(DType::f64, m, 0, c.out[1].dtype, c.out[1].data, i, n);
            if (!drop || !y.present()) continue;
            convert(x.dtype, x.data, i, DType::f64, v, 0, n);
            for (std::int64_t k = 0; k < n; ++k) v[k] = m[k] != 0 ? v[k] * scale : 0.0;
            convert(DType::f64, v, 0, y.dtype, y.data, i, n);
        }
    }
    std::optional<std::uint32_t> seed_;
};

}  // namespace ew
QUERN_END
