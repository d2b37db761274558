// Discrete Fourier transforms of any length in double.
#pragma once
#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

#include <quern/version.hpp>

QUERN_BEGIN
namespace signal {

using Complex = std::complex<double>;

/// (a + bi)(c + di) without the special cases of the standard's operator.
inline Complex times(const Complex& a, const Complex& b) {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

/// A transform of one length, made once and used for many rows: powers of two directly, others by
/// Bluestein's convolution (https://en.wikipedia.org/wiki/Chirp_Z-transform).
class Fft {
public:
    Fft(std::int64_t n, bool inverse) : n_(n), sign_(inverse ? 1 : -1) {
        std::int64_t m = 1;
        if ((n & (n - 1)) == 0) m = n;
        else while (m < 2 * n - 1) m *= 2;
        size_ = m;
        roots_.resize(static_cast<std::size_t>(m / 2 + 1));
        for (std::size_t k = 0; k < roots_.size(); ++k) roots_[k] = unit(-1, static_cast<std::int64_t>(k), m);
        if (m == n) return;
        chirp_.resize(static_cast<std::size_t>(n));
        for (std::int64_t k = 0; k < n; ++k) {
            auto square = static_cast<std::int64_t>(static_cast<unsigned __int128>(k) * static_cast<unsigned __int128>(k) % static_cast<unsigned __int128>(2 * n));
            chirp_[static_cast<std::size_t>(k)] = unit(sign_, square, 2 * n);
        }
        kernel_.resize(static_cast<std::size_t>(m));
        for (std::int64_t k = 0; k < n; ++k) {
            Complex c = std::conj(chirp_[static_cast<std::size_t>(k)]);
            kernel_[static_cast<std::size_t>(k)] = c;
            if (k) kernel_[static_cast<std::size_t>(m - k)] = c;
        }
        power_of_two(kernel_.data());
    }
    /// Elements of work space that run() needs.
    std::size_t work() const { return static_cast<std::size_t>(size_); }
    /// x[0..n) in place, not scaled.
    void run(Complex* x, Complex* work) const {
        if (size_ == n_) {
            if (sign_ > 0) for (std::int64_t k = 0; k < n_; ++k) x[k] = std::conj(x[k]);
            power_of_two(x);
            if (sign_ > 0) for (std::int64_t k = 0; k < n_; ++k) x[k] = std::conj(x[k]);
            return;
        }
        for (std::int64_t k = 0; k < size_; ++k) work[k] = k < n_ ? times(x[k], chirp_[static_cast<std::size_t>(k)]) : Complex();
        power_of_two(work);
        for (std::int64_t k = 0; k < size_; ++k) work[k] = std::conj(times(work[k], kernel_[static_cast<std::size_t>(k)]));
        power_of_two(work);
        const double scale = 1 / static_cast<double>(size_);
        for (std::int64_t k = 0; k < n_; ++k) x[k] = times(std::conj(work[k]), chirp_[static_cast<std::size_t>(k)]) * scale;
    }

private:
    static Complex unit(int sign, std::int64_t k, std::int64_t n) {
        double a = sign * 2 * 3.14159265358979323846 * static_cast<double>(k) / static_cast<double>(n);
        return {std::cos(a), std::sin(a)};
    }
    void power_of_two(Complex* x) const {
        const std::int64_t n = size_;
        for (std::int64_t i = 1, j = 0; i < n; ++i) {
            std::int64_t bit = n >> 1;
            for (; j & bit; bit >>= 1) j ^= bit;
            j ^= bit;
            if (i < j) std::swap(x[i], x[j]);
        }
        for (std::int64_t half = 1; half < n; half *= 2)
            for (std::int64_t i = 0; i < n; i += 2 * half)
                for (std::int64_t k = 0; k < half; ++k) {
                    Complex u = x[i + k], v = times(x[i + k + half], roots_[static_cast<std::size_t>(k * (n / (2 * half)))]);
                    x[i + k] = u + v;
                    x[i + k + half] = u - v;
                }
    }
    std::int64_t n_, size_ = 1;
    int sign_;
    std::vector<Complex> roots_, chirp_, kernel_;
};

}  // namespace signal
QUERN_END
