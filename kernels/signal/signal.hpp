// DFT, STFT, window functions, mel weights.
#pragma once
#include <algorithm>
#include <string>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/signal/fft.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace signal {

inline std::int64_t scalar(const View& v) {
    if (v.count() != 1) raise(ErrorCode::shape_mismatch, "a scalar has " + std::to_string(v.count()) + " elements");
    return dispatch_index(v.dtype, [&](auto tag) { return static_cast<std::int64_t>(*v.in<typename decltype(tag)::type>()); });
}
inline double number(const View& v) {
    double r = 0;
    if (v.count() != 1) raise(ErrorCode::shape_mismatch, "a scalar has " + std::to_string(v.count()) + " elements");
    dispatch_plain(v.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (std::is_arithmetic_v<T>) r = static_cast<double>(*v.in<T>());
        else r = static_cast<double>(to_float(*v.in<T>()));
    });
    return r;
}
template <class T> T stored(double v) {
    if constexpr (std::is_same_v<T, Half>) return to_half(static_cast<float>(v));
    else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(static_cast<float>(v));
    else return static_cast<T>(v);
}

/// The numbers that make an element.
inline std::int64_t known_parts(std::int64_t parts) {
    if (parts != 1 && parts != 2) raise(ErrorCode::shape_mismatch, "the last dimension is " + std::to_string(parts) + "; accepted: 1 (real), 2 (complex)");
    return parts;
}

/// x[outer, n, inner, 1 or 2] -> y[outer, m, inner, 2] (1 for the inverse of a one-sided spectrum), f32 or f64.
/// Input 2 is the axis where it is not known beforehand (axis < 0).
class Dft final : public Kernel {
public:
    Dft(int axis, bool inverse, bool onesided) : axis_(axis), inverse_(inverse), onesided_(onesided) {}
    const char* name() const noexcept override { return "dft.portable"; }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override {
        // The length follows from the shapes, except where a one-sided spectrum hides it.
        if (axis_ < 0 || (onesided_ && !inverse_)) return {};
        std::int64_t n = out[0].dims[axis_];
        (void)in;
        return {0, n > 0 ? std::make_shared<Fft>(n, inverse_) : nullptr};
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const std::int64_t parts = known_parts(x.dims[x.rank - 1]);
        int axis = axis_;
        if (axis < 0) {
            std::int64_t a = scalar(call.in[2]);
            if (a < -x.rank || a >= x.rank - 1 || a == -1) raise(ErrorCode::shape_mismatch, "axis " + std::to_string(a) + " is none of the signal's");
            axis = static_cast<int>(a < 0 ? a + x.rank : a);
        }
        std::int64_t n = y.dims[axis];
        std::shared_ptr<const Fft> own;
        const Fft* fft = static_cast<const Fft*>(call.state);
        if (!fft) {
            n = call.in.size() > 1 && call.in[1].present() ? scalar(call.in[1]) : inverse_ && onesided_ ? n : x.dims[axis];
            if (n < 1) raise(ErrorCode::shape_mismatch, "a transform of length " + std::to_string(n) + "; 1 or more is accepted");
            own = std::make_shared<Fft>(n, inverse_);
            fft = own.get();
        }
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const std::int64_t inner = x.count(axis + 1, x.rank - 1), rows = x.count(0, axis) * inner, nx = x.dims[axis], ny = y.dims[axis];
            const std::int64_t out_parts = y.dims[y.rank - 1];
            call.workers.ranges(rows, std::max<std::int64_t>(1, 8192 / n), [&](std::int64_t b, std::int64_t e) {
                std::vector<Complex> row(static_cast<std::size_t>(n)), work(fft->work());
                for (; b < e; ++b) {
                    const T* s = x.in<T>() + (b / inner * nx * inner + b % inner) * parts;
                    T* d = y.out<T>() + (b / inner * ny * inner + b % inner) * out_parts;
                    load(s, row, nx, inner * parts, parts);
                    fft->run(row.data(), work.data());
                    const double scale = inverse_ ? 1 / static_cast<double>(n) : 1;
                    for (std::int64_t k = 0; k < ny; ++k) {
                        T* q = d + k * inner * out_parts;
                        q[0] = static_cast<T>(row[static_cast<std::size_t>(k)].real() * scale);
                        if (out_parts == 2) q[1] = static_cast<T>(row[static_cast<std::size_t>(k)].imag() * scale);
                    }
                }
            });
        });
    }

private:
    template <class T> void load(const T* s, std::vector<Complex>& row, std::int64_t nx, std::int64_t step, std::int64_t parts) const {
        const auto n = static_cast<std::int64_t>(row.size()), half = n / 2 + 1;
        const bool mirror = inverse_ && onesided_;
        for (std::int64_t k = 0; k < n; ++k) row[static_cast<std::size_t>(k)] = {};
        for (std::int64_t k = 0; k < std::min(nx, mirror ? half : n); ++k)
            row[static_cast<std::size_t>(k)] = {static_cast<double>(s[k * step]), parts == 2 ? static_cast<double>(s[k * step + 1]) : 0};
        if (mirror)
            for (std::int64_t k = half; k < n; ++k) row[static_cast<std::size_t>(k)] = std::conj(row[static_cast<std::size_t>(n - k)]);
    }
    int axis_;
    bool inverse_, onesided_;
};

/// Inputs signal[B, L, 1 or 2] or [B, L] (real), frame_step, window (optional), frame_length (optional) -> [B, frames, bins, 2].
class Stft final : public Kernel {
public:
    const char* name() const noexcept override { return "stft.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const bool windowed = call.in.size() > 2 && call.in[2].present();
        const std::int64_t step = scalar(call.in[1]), length = x.dims[1], parts = x.rank == 2 ? 1 : known_parts(x.dims[2]), frames = y.dims[1], bins = y.dims[2];
        std::int64_t n = windowed ? call.in[2].count() : length;
        if (call.in.size() > 3 && call.in[3].present()) n = scalar(call.in[3]);
        if (step < 1 || n < 1 || n > length || (windowed && call.in[2].count() != n) || frames > (length - n) / step + 1 || bins > n)
            raise(ErrorCode::shape_mismatch, "frames of " + std::to_string(n) + " by steps of " + std::to_string(step) + " do not fit a signal of " + std::to_string(length));
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* w = windowed ? call.in[2].in<T>() : nullptr;
            auto value = [&](const T* s, std::int64_t k) { return (w ? static_cast<double>(w[k]) : 1) * static_cast<double>(*s); };
            if (parts == 1) {
                const RealFft fft(n);
                each_frame<T>(call, fft, fft.row(), step, parts, [&](const T* s, Complex* row) {
                    for (std::int64_t k = 0; k < n; ++k) fft.put(row, k, value(s + k, k));
                });
            } else {
                const Fft fft(n, false);
                each_frame<T>(call, fft, static_cast<std::size_t>(n), step, parts, [&](const T* s, Complex* row) {
                    for (std::int64_t k = 0; k < n; ++k) row[k] = {value(s + 2 * k, k), value(s + 2 * k + 1, k)};
                });
            }
        });
    }

private:
    /// Bins past the row's end are the conjugates of those before.
    template <class T, class F, class Fill>
    static void each_frame(const Call& call, const F& fft, std::size_t size, std::int64_t step, std::int64_t parts, Fill fill) {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t frames = y.dims[1], bins = y.dims[2], length = x.dims[1], known = static_cast<std::int64_t>(size);
        call.workers.ranges(x.dims[0] * frames, std::max<std::int64_t>(1, 8192 / known), [&](std::int64_t b, std::int64_t e) {
            std::vector<Complex> row(size), work(fft.work());
            for (; b < e; ++b) {
                fill(x.in<T>() + (b / frames * length + b % frames * step) * parts, row.data());
                fft.run(row.data(), work.data());
                T* d = y.out<T>() + b * bins * 2;
                for (std::int64_t k = 0; k < bins; ++k) {
                    Complex v = k < known ? row[static_cast<std::size_t>(k)] : std::conj(row[static_cast<std::size_t>(bins - k)]);
                    d[2 * k] = static_cast<T>(v.real());
                    d[2 * k + 1] = static_cast<T>(v.imag());
                }
            }
        });
    }
};

/// a0 - a1 cos(2 pi i / n) + a2 cos(4 pi i / n), over `size` points (n = size where periodic, else size - 1).
class Window final : public Kernel {
public:
    Window(double a0, double a1, double a2, bool periodic) : a0_(a0), a1_(a1), a2_(a2), periodic_(periodic) {}
    const char* name() const noexcept override { return "window.portable"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        const std::int64_t size = y.count();
        const double n = static_cast<double>(periodic_ ? size : size - 1), pi = 3.14159265358979323846;
        dispatch_plain(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(size, 4096, [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    double a = n > 0 ? 2 * pi * static_cast<double>(b) / n : pi;
                    y.out<T>()[b] = stored<T>(a0_ - a1_ * std::cos(a) + a2_ * std::cos(2 * a));
                }
            });
        });
    }

private:
    double a0_, a1_, a2_;
    bool periodic_;
};

/// Inputs num_mel_bins, dft_length, sample_rate, lower and upper edge -> [dft_length / 2 + 1, num_mel_bins]
/// (https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html).
class MelWeights final : public Kernel {
public:
    const char* name() const noexcept override { return "mel_weights.portable"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        const std::int64_t rows = y.dims[0], bins = y.dims[1];
        const double length = static_cast<double>(scalar(call.in[1])), rate = static_cast<double>(scalar(call.in[2]));
        auto mel = [](double f) { return 2595 * std::log10(1 + f / 700); };
        const double low = mel(number(call.in[3])), step = (mel(number(call.in[4])) - low) / static_cast<double>(bins + 2);
        auto edge = [&](std::int64_t k) {
            double f = std::floor((length + 1) * (700 * (std::pow(10.0, (static_cast<double>(k) * step + low) / 2595) - 1)) / rate);
            if (!(f >= 0 && f < static_cast<double>(rows))) raise(ErrorCode::shape_mismatch, "mel edges lie outside the spectrum of " + std::to_string(rows) + " bins");
            return static_cast<std::int64_t>(f);
        };
        dispatch_plain(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T* d = y.out<T>();
            std::fill(d, d + rows * bins, stored<T>(0));
            std::int64_t a = edge(0), b = edge(1), c = 0;
            for (std::int64_t i = 0; i < bins; ++i, a = b, b = c) {
                c = edge(i + 2);
                if (a == b) d[b * bins + i] = stored<T>(1);
                for (std::int64_t j = a; a < b && j <= b; ++j) d[j * bins + i] = stored<T>(static_cast<double>(j - a) / static_cast<double>(b - a));
                for (std::int64_t j = b; j < c; ++j) d[j * bins + i] = stored<T>(static_cast<double>(c - j) / static_cast<double>(c - b));
            }
        });
    }
};

}  // namespace signal
QUERN_END
