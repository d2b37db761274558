// Choice between two tensors by a third.
#pragma once
#include <quern/kernels/elementwise/broadcast.hpp>
#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/transpose/region.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace ew {

/// z = condition ? x : y with broadcasting; any type of at least 8 bits (in[0] is bool).
class WhereKernel final : public Kernel {
public:
    explicit WhereKernel(DType t) : type_(t) { dispatch_size(t, [](auto) {}); }
    const char* name() const noexcept override { return "elementwise.where"; }
    void run(const Call& c) const override {
        const View* in[3] = {&c.in[0], &c.in[1], &c.in[2]};
        const Broadcast<3> walk = make_broadcast<3>(c.out[0], in);
        auto* k = c.in[0].in<std::uint8_t>();
        const std::int64_t sk = walk.step(0), sx = walk.step(1), sy = walk.step(2);
        dispatch_size(type_, [&](auto tag) {
            using T = typename decltype(tag)::type;
            auto *x = c.in[1].in<T>(), *y = c.in[2].in<T>();
            auto* z = c.out[0].out<T>();
            for_rows(walk, 16384, c.workers, [&](const std::int64_t* o, std::int64_t to, std::int64_t n) {
                row(k + o[0], sk, x + o[1], sx, y + o[2], sy, z + to, n);
            });
        });
    }

private:
    template <class T>
    static void row(const std::uint8_t* k, std::int64_t sk, const T* x, std::int64_t sx, const T* y, std::int64_t sy, T* z,
                    std::int64_t n) {
        if (!sk) {
            const T* from = *k ? x : y;
            if (*k ? sx : sy) return movement::copy_run(z, from, n);
            return void(std::fill_n(z, n, *from));
        }
        if (sx && sy) choose(k, [=](std::int64_t i) { return x[i]; }, [=](std::int64_t i) { return y[i]; }, z, n);
        else if (sy) choose(k, [v = *x](std::int64_t) { return v; }, [=](std::int64_t i) { return y[i]; }, z, n);
        else if (sx) choose(k, [=](std::int64_t i) { return x[i]; }, [v = *y](std::int64_t) { return v; }, z, n);
        else choose(k, [v = *x](std::int64_t) { return v; }, [v = *y](std::int64_t) { return v; }, z, n);
    }
    /// By masks of the elements' bits, so that compilers make vectors of it.
    template <class T, class X, class Y>
    static void choose(const std::uint8_t* k, X x, Y y, T* z, std::int64_t n) {
        if constexpr (std::is_integral_v<T>) {
            QUERN_EW_IVDEP
            for (std::int64_t i = 0; i < n; ++i) {
                const T a = x(i), b = y(i), mask = static_cast<T>(-static_cast<T>(k[i] != 0));
                z[i] = static_cast<T>(b ^ ((a ^ b) & mask));
            }
        } else {
            for (std::int64_t i = 0; i < n; ++i) z[i] = k[i] ? x(i) : y(i);
        }
    }
    DType type_;
};

}  // namespace ew
QUERN_END
