// Discrete Fourier transforms of any length in double.
#pragma once
#include <cmath>
#include <complex>
#include <cstdint>
#include <utility>
#include <vector>

#include <quern/version.hpp>

QUERN_BEGIN
namespace signal {

using Complex = std::complex<double>;

/// (a + bi)(c + di) without the special cases of the standard's operator.
inline Complex times(const Complex& a, const Complex& b) {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}
inline Complex times_i(const Complex& a) { return {-a.imag(), a.real()}; }
/// exp(sign * 2 pi i k / n), 0 <= k.
inline Complex unit(int sign, std::int64_t k, std::int64_t n) {
    double a = sign * 2 * 3.14159265358979323846 * static_cast<double>(k % n) / static_cast<double>(n);
    return {std::cos(a), std::sin(a)};
}

/// A transform of one length, made once and used for many rows. Lengths whose prime factors are at most 13: Stockham's self-sorting
/// passes (https://en.wikipedia.org/wiki/Cooley-Tukey_FFT_algorithm); others by Bluestein's convolution
/// (https://en.wikipedia.org/wiki/Chirp_Z-transform).
class Fft {
public:
    Fft(std::int64_t n, bool inverse) : n_(n), size_(n), sign_(inverse ? 1 : -1) {
        if (!factor(n)) {
            for (size_ = 1; size_ < 2 * n - 1;) size_ *= 2;
            factor(size_);
        }
        roots_.resize(static_cast<std::size_t>(size_));
        for (std::size_t k = 0; k < roots_.size(); ++k) roots_[k] = unit(size_ == n ? sign_ : -1, static_cast<std::int64_t>(k), size_);
        if (size_ == n) return;
        chirp_.resize(static_cast<std::size_t>(n));
        for (std::int64_t k = 0; k < n; ++k) {
            auto square = static_cast<std::int64_t>(static_cast<unsigned __int128>(k) * static_cast<unsigned __int128>(k) % static_cast<unsigned __int128>(2 * n));
            chirp_[static_cast<std::size_t>(k)] = unit(sign_, square, 2 * n);
        }
        kernel_.resize(static_cast<std::size_t>(size_));
        for (std::int64_t k = 0; k < n; ++k) {
            Complex c = std::conj(chirp_[static_cast<std::size_t>(k)]);
            kernel_[static_cast<std::size_t>(k)] = c;
            if (k) kernel_[static_cast<std::size_t>(size_ - k)] = c;
        }
        std::vector<Complex> work(kernel_.size());
        passes(kernel_.data(), work.data());
    }
    /// Elements of work space that run() needs.
    std::size_t work() const { return static_cast<std::size_t>(size_ == n_ ? n_ : 2 * size_); }
    /// x[0..n) in place, not scaled.
    void run(Complex* x, Complex* work) const {
        if (size_ == n_) return passes(x, work);
        Complex* spare = work + size_;
        for (std::int64_t k = 0; k < size_; ++k) work[k] = k < n_ ? times(x[k], chirp_[static_cast<std::size_t>(k)]) : Complex();
        passes(work, spare);
        for (std::int64_t k = 0; k < size_; ++k) work[k] = std::conj(times(work[k], kernel_[static_cast<std::size_t>(k)]));
        passes(work, spare);
        const double scale = 1 / static_cast<double>(size_);
        for (std::int64_t k = 0; k < n_; ++k) x[k] = times(std::conj(work[k]), chirp_[static_cast<std::size_t>(k)]) * scale;
    }

private:
    static constexpr int most = 13;
    bool factor(std::int64_t n) {
        factors_.clear();
        for (int p : {4, 2, 3, 5, 7, 11, most})
            for (; n % p == 0; n /= p) factors_.push_back(p);
        return n == 1;
    }
    /// The transform of x; what work held is lost.
    void passes(Complex* x, Complex* work) const {
        Complex *from = x, *to = work;
        std::int64_t n = size_, step = 1;
        for (int p : factors_) {
            n /= p;
            if (p == 2) pass<2>(from, to, n, step);
            else if (p == 3) pass<3>(from, to, n, step);
            else if (p == 4) pass<4>(from, to, n, step);
            else if (p == 5) pass<5>(from, to, n, step);
            else any_pass(p, from, to, n, step);
            step *= p;
            std::swap(from, to);
        }
        if (from != x)
            for (std::int64_t k = 0; k < size_; ++k) x[k] = from[k];
    }
    /// from[P][m][step] -> to[m][P][step]: a butterfly, then the roots of this pass.
    template <int P> void pass(const Complex* from, Complex* to, std::int64_t m, std::int64_t step) const {
        for (std::int64_t q = 0; q < m; ++q) {
            Complex w[P];
            for (int j = 1; j < P; ++j) w[j] = roots_[static_cast<std::size_t>(q * j * step)];
            const Complex* a = from + q * step;
            Complex* b = to + q * P * step;
            for (std::int64_t t = 0; t < step; ++t) {
                Complex v[P];
                for (int r = 0; r < P; ++r) v[r] = a[t + m * step * r];
                butterfly(v);
                b[t] = v[0];
                for (int j = 1; j < P; ++j) b[t + j * step] = times(v[j], w[j]);
            }
        }
    }
    void butterfly(Complex (&v)[2]) const {
        Complex a = v[0];
        v[0] = a + v[1], v[1] = a - v[1];
    }
    void butterfly(Complex (&v)[3]) const {
        constexpr double s = 0.86602540378443864676;
        Complex sum = v[1] + v[2], d = times_i(v[1] - v[2]) * (root_sign() * s), c = v[0] - 0.5 * sum;
        v[0] += sum, v[1] = c + d, v[2] = c - d;
    }
    void butterfly(Complex (&v)[4]) const {
        Complex a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = times_i(v[1] - v[3]) * root_sign();
        v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
    }
    void butterfly(Complex (&v)[5]) const {
        constexpr double c1 = 0.30901699437494742410, c2 = -0.80901699437494742410, s1 = 0.95105651629515357212, s2 = 0.58778525229247312917;
        Complex a = v[1] + v[4], b = v[2] + v[3], d = times_i(v[1] - v[4]) * root_sign(), e = times_i(v[2] - v[3]) * root_sign();
        Complex p = v[0] + c1 * a + c2 * b, q = v[0] + c2 * a + c1 * b, r = s1 * d + s2 * e, s = s2 * d - s1 * e;
        v[0] += a + b, v[1] = p + r, v[4] = p - r, v[2] = q + s, v[3] = q - s;
    }
    void any_pass(int p, const Complex* from, Complex* to, std::int64_t m, std::int64_t step) const {
        const std::int64_t turn = size_ / p;
        for (std::int64_t q = 0; q < m; ++q)
            for (std::int64_t t = 0; t < step; ++t)
                for (int j = 0; j < p; ++j) {
                    Complex sum;
                    for (int r = 0; r < p; ++r) sum += times(from[t + step * (q + m * r)], roots_[static_cast<std::size_t>(r * j % p * turn)]);
                    to[t + step * (q * p + j)] = times(sum, roots_[static_cast<std::size_t>(q * j * step)]);
                }
    }
    double root_sign() const { return size_ == n_ ? sign_ : -1; }  // Bluestein's own transforms are forward ones

    std::int64_t n_, size_;
    int sign_;
    std::vector<int> factors_;
    std::vector<Complex> roots_, chirp_, kernel_;
};

/// The forward transform of real rows of one length: bins 0 to n / 2, by a complex one of half the length where n is even.
class RealFft {
public:
    explicit RealFft(std::int64_t n) : n_(n), fft_(n % 2 ? n : n / 2, false) {
        for (std::int64_t k = 0; n % 2 == 0 && k <= n / 4; ++k) roots_.push_back(unit(-1, k, n));
    }
    std::size_t row() const { return static_cast<std::size_t>(n_ % 2 ? n_ : n_ / 2 + 1); }  ///< elements of a row
    std::size_t work() const { return fft_.work(); }
    /// Puts value k of the signal into the row.
    void put(Complex* row, std::int64_t k, double v) const {
        if (n_ % 2) row[k] = v;
        else if (k % 2) row[k / 2].imag(v);
        else row[k / 2].real(v);
    }
    /// The row that put() filled becomes the bins.
    void run(Complex* row, Complex* work) const {
        fft_.run(row, work);
        if (n_ % 2) return;
        const std::int64_t half = n_ / 2;
        row[half] = row[0];
        for (std::int64_t k = 0; k <= half / 2; ++k) {  // even and odd values' spectra, untangled in pairs
            Complex a = row[k], b = std::conj(row[half - k]), even = 0.5 * (a + b), odd = times(times_i(b - a) * 0.5, roots_[static_cast<std::size_t>(k)]);
            row[k] = even + odd;
            row[half - k] = std::conj(even - odd);
        }
    }

private:
    std::int64_t n_;
    Fft fft_;
    std::vector<Complex> roots_;
};

}  // namespace signal
QUERN_END
