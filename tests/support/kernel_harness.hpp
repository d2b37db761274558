// Runs one kernel over guarded buffers with 1, 2 and 3 workers.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "serial_workers.hpp"

QUERN_BEGIN
std::span<const Backend* const> linked_backends() noexcept;  // what the library was built with
QUERN_END

namespace quern_test {

using Dims = std::vector<std::int64_t>;
inline std::int64_t count_of(const Dims& d) {
    std::int64_t n = 1;
    for (std::int64_t v : d) n *= v;
    return n;
}

/// Elements between two guard zones, at an address aligned to the element only.
class Guarded {
public:
    Guarded(quern::DType t, Dims dims, std::vector<double> values = {}) : dtype(t), dims(std::move(dims)) {
        std::size_t size = static_cast<std::size_t>(quern::dtype_bits(t) / 8);
        bytes_ = static_cast<std::size_t>(count_of(this->dims)) * size;
        memory_.assign(bytes_ + 2 * zone + 64, std::byte{0xA5});
        std::size_t at = reinterpret_cast<std::size_t>(memory_.data() + zone) % size;
        begin_ = memory_.data() + zone + (at ? size - at : 0);
        for (std::size_t i = 0; i < values.size(); ++i) set(i, values[i]);
    }
    Guarded(const Guarded&) = delete;
    void set(std::size_t i, double v) {
        if (dtype == quern::DType::f32) reinterpret_cast<float*>(begin_)[i] = static_cast<float>(v);
        else reinterpret_cast<double*>(begin_)[i] = v;
    }
    double get(std::size_t i) const {
        return dtype == quern::DType::f32 ? static_cast<double>(reinterpret_cast<const float*>(begin_)[i]) : reinterpret_cast<const double*>(begin_)[i];
    }
    quern::View view() { return {dtype, static_cast<std::int32_t>(dims.size()), dims.data(), begin_}; }
    bool intact() const {
        for (const std::byte* p = memory_.data(); p < begin_; ++p)
            if (*p != std::byte{0xA5}) return false;
        for (const std::byte* p = begin_ + bytes_; p < memory_.data() + memory_.size(); ++p)
            if (*p != std::byte{0xA5}) return false;
        return true;
    }
    void poison() { std::memset(begin_, 0xC3, bytes_); }
    std::vector<std::byte> bytes() const { return {begin_, begin_ + bytes_}; }
    quern::Tensor tensor() const {
        quern::Tensor t(dtype, quern::Shape(std::span<const std::int64_t>(dims)));
        if (bytes_) std::memcpy(t.raw(), begin_, bytes_);
        return t;
    }
    quern::DType dtype;
    Dims dims;

private:
    static constexpr std::size_t zone = 256;
    std::size_t bytes_;
    std::vector<std::byte> memory_;
    std::byte* begin_;
};

/// Random values that f32 holds exactly.
inline std::vector<double> random_values(std::mt19937& rng, std::int64_t n, double lo = -1, double hi = 1) {
    std::uniform_real_distribution<float> d(static_cast<float>(lo), static_cast<float>(hi));
    std::vector<double> v(static_cast<std::size_t>(n));
    for (double& x : v) x = static_cast<double>(d(rng));
    return v;
}
/// From the environment, for repeating a failure; else fixed.
inline unsigned seed() {
    const char* s = std::getenv("QUERN_TEST_SEED");
    return s ? static_cast<unsigned>(std::strtoul(s, nullptr, 10)) : 20240229u;
}

/// Runs the kernel into `y` with 1, 2 and 3 workers: the same bits, nothing written outside.
inline void run_kernel(const quern::Kernel& kernel, std::vector<quern::View> in, Guarded& y) {
    std::vector<quern::View> out{y.view()}, blind_in = in, blind_out = out;
    for (quern::View& v : blind_in) v.data = nullptr;
    for (quern::View& v : blind_out) v.data = nullptr;
    std::vector<std::byte> first;
    for (int width = 1; width <= 3; ++width) {
        quern::Booking booking = kernel.book(blind_in, blind_out, width);
        std::vector<std::byte> memory(booking.scratch + 64 + 256, std::byte{0x5A});
        std::size_t at = 64 - reinterpret_cast<std::size_t>(memory.data()) % 64;
        std::memset(memory.data() + at, 0xFF, booking.scratch);  // NaN: scratch is not initialized
        SerialWorkers serial;
        ThreadedWorkers threads(width);
        quern::Workers& workers = width == 1 ? static_cast<quern::Workers&>(serial) : threads;
        y.poison();
        kernel.run(quern::Call{in, out, memory.data() + at, booking.state.get(), workers});
        ASSERT_TRUE(y.intact()) << "output written outside its bounds";
        for (std::size_t i = at + booking.scratch; i < memory.size(); ++i) ASSERT_EQ(memory[i], std::byte{0x5A}) << "scratch overrun";
        if (width == 1) first = y.bytes();
        else ASSERT_TRUE(first == y.bytes()) << width << " workers give other bits than one";
    }
}

/// Every CPU kernel of the linked backends' lists, with every instruction set of this machine.
template <class P, class F>
void for_each_kernel(quern::Family family, std::span<const quern::Backend* const> backends, F&& f) {
    for (quern::Isa isa : {quern::Isa::baseline, quern::Isa::avx2, quern::Isa::avx512}) {
        if (isa > quern::best_isa()) continue;
        for (const quern::Backend* b : backends) {
            if (b->device != quern::Device::cpu) continue;
            for (const quern::RankedEntry& line : b->lists[static_cast<int>(family)]) {
                const auto& entry = *static_cast<const quern::Entry<P>*>(line.entry);
                quern::Target target{isa, backends, nullptr};
                SCOPED_TRACE(std::string(entry.name) + " " + quern::isa_name(isa));
                f(entry, target);
            }
        }
    }
}

}  // namespace quern_test
