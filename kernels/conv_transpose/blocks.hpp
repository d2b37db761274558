// Transposed convolutions whose blocks do not overlap (kernel = stride), channels last: a product for each row of the kernel.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include <quern/kernels/conv_transpose/conv_transpose.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace conv_transpose {

/// in[0] = X [N, H, W, C], in[1] = W [C, M, kh, kw] (constant), in[2] = bias [M] or absent; out[0] = Y [N, H * kh, W * kw, M]; f32.
/// Row i of the kernel is a matrix [C, kw * M]: a row of pixels times it is a row of Y as it lies in memory.
class Blocks final : public Kernel {
public:
    Blocks(const Problem& p, const Tensor& w, const Target& target) : t_(vec::table(target.isa)), has_bias_(p.has_bias) {
        if (w.count() == 0) raise(ErrorCode::unsupported, "transposed convolution in blocks without weights");
        unread = 1u << 1;
        c_ = w.shape()[0], m_ = w.shape()[1], kh_ = w.shape()[2], kw_ = w.shape()[3];
        std::int64_t n = kw_ * m_;
        strided_out = m_ % t_.panel == 0;
        each_ = static_cast<std::int64_t>((t_.packed_floats(n, c_) + 15) / 16 * 16);
        packed_ = packed_weights(target, std::string("conv_transpose.blocks ") + t_.name, {w}, static_cast<std::size_t>(each_ * kh_) * sizeof(float), [&](std::byte* to) {
            const auto* from = static_cast<const float*>(w.raw());
            std::memset(to, 0, static_cast<std::size_t>(each_ * kh_) * sizeof(float));
            std::vector<float> rows(static_cast<std::size_t>(c_ * n));
            for (std::int64_t i = 0; i < kh_; ++i) {
                for (std::int64_t c = 0; c < c_; ++c)
                    for (std::int64_t j = 0; j < kw_; ++j)
                        for (std::int64_t m = 0; m < m_; ++m) rows[static_cast<std::size_t>(c * n + j * m_ + m)] = from[((c * m_ + m) * kh_ + i) * kw_ + j];
                t_.pack_b_f32(n, c_, rows.data(), n, false, 1.f, reinterpret_cast<float*>(to) + i * each_);
            }
        });
    }
    const char* name() const noexcept override { return "conv_transpose.blocks"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        Booking b;
        b.scratch = head() + static_cast<std::size_t>(workers) * work(in[0].dims[2]);
        return b;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        std::int64_t h = x.dims[1], w = x.dims[2], n = kw_ * m_;
        vec::Epilogue e;
        if (has_bias_ && call.in.size() > 2 && call.in[2].present()) {
            auto* bias = reinterpret_cast<float*>(call.scratch);
            for (std::int64_t j = 0; j < kw_; ++j) std::copy_n(call.in[2].in<float>(), m_, bias + j * m_);
            e.bias_row = bias;
        }
        // Where pixels of Y lie apart a product gives one column of the kernel, whose panels begin where the last one's end.
        const std::int64_t calls = y.pitch ? kw_ : 1, columns = n / calls, row = y.row();
        std::int64_t grain = std::clamp<std::int64_t>((2 << 20) / std::max<std::int64_t>(1, w * c_ * n), 1, std::max<std::int64_t>(1, h)), tiles = (h + grain - 1) / grain;
        call.workers.for_each(x.dims[0] * kh_ * tiles, [&](std::int64_t t, int worker) {
            std::int64_t image = t / (kh_ * tiles), i = t / tiles % kh_, r0 = t % tiles * grain;
            std::byte* mine = call.scratch + head() + static_cast<std::size_t>(worker) * work(w);
            for (std::int64_t r = r0; r < std::min(h, r0 + grain); ++r)
                for (std::int64_t j = 0; j < calls; ++j)
                    t_.gemm_packed_f32(w, columns, c_, x.in<float>() + (image * h + r) * w * c_, c_, false, static_cast<const float*>(packed_.raw()) + i * each_ + j * columns * c_,
                                       y.out<float>() + (((image * h + r) * kh_ + i) * w * kw_ + j) * row, kw_ * row, e, mine);
        });
    }

private:
    std::size_t head() const { return (static_cast<std::size_t>(kw_ * m_) * sizeof(float) + 63) / 64 * 64; }
    std::size_t work(std::int64_t w) const { return (t_.gemm_work_bytes(w, kw_ * m_, c_) + 63) / 64 * 64; }
    const vec::Table& t_;
    bool has_bias_;
    std::int64_t c_, m_, kh_, kw_, each_;
    Tensor packed_;
};

}  // namespace conv_transpose
QUERN_END
