// Caches of keys and values: new rows go behind the old ones, from where a projection left them, turned on the way.
#pragma once
#include <algorithm>
#include <cstring>

#include <quern/kernels/attention/fused.hpp>
#include <quern/kernels/attention/rotary.hpp>

QUERN_BEGIN
namespace attention {

/// Y [B, H, P + L, D] = past [B, H, P, D], and behind it for each head the L rows of X, f32. Views: in[0] = past; in[1] = X of any rank with its layout,
/// whose leading roles count the B * H heads, row-major, `key` the rows, `inner` their values; in[2], in[3] = cosines and sines [B, L, R / 2] of
/// the rotation of the first R values of X's rows, or absent (ONNX's RotaryEmbedding, pairs being neighbours if `interleaved`, else halves);
/// out[0] = Y; where it has View::room, in the memory of past, whose rows then stay where they are. Sizes that disagree raise shape_mismatch. Copies are exact; a rotation is within 3 roundings of double.
struct AppendProblem {
    Layout x;
    bool interleaved = false;
};

/// The sizes of one concrete shape, checked.
struct AppendSizes {
    Strides x;
    std::int64_t batch, heads, past, rows = 0, d, half = 0, room = 0;
    bool turns = false;

    AppendSizes(const AppendProblem& problem, std::span<const View> in, const View& out) {
        const View& old = in[0];
        if (old.rank != 4 || out.rank != 4) raise(ErrorCode::shape_mismatch, "a cache of rank " + std::to_string(old.rank) + "; 4 is accepted");
        x = Strides(problem.x, in[1], "what a cache gets");
        batch = old.dims[0], heads = old.dims[1], past = old.dims[2], d = old.dims[3];
        rows = x.size[Factor::key];
        std::int64_t leads = 1;
        for (std::size_t i = 0; i < max_lead; ++i)
            if (__builtin_mul_overflow(leads, x.size[i], &leads)) agree(-1, batch * heads, "heads of a cache");
        agree(leads, batch * heads, "heads of what a cache gets");
        agree(x.size[Factor::query], 1, "queries in a cache");
        agree(x.size[Factor::inner], d, "values of a row that a cache gets");
        if (d > 1) agree(x.stride[Factor::inner], 1, "distances between the values of a row");
        const std::int64_t want[] = {batch, heads, past + rows, d};
        for (int i = 0; i < 4; ++i) agree(out.dims[i], want[i], "dimensions of a cache");
        room = out.room;
        agree(old.room, room, "rows that the old cache has room for");
        if (room && past + rows > room)
            raise(ErrorCode::shape_mismatch, "a cache with room for " + std::to_string(room) + " positions would get " + std::to_string(past + rows) + "; accepted are up to " + std::to_string(room - past) + " new ones behind " + std::to_string(past));
        auto given = [&](std::size_t i) { return i < in.size() && in[i].present(); };
        turns = given(2);
        if (turns != given(3)) raise(ErrorCode::shape_mismatch, "cosines without sines; accepted: both or none");
        for (std::size_t i = 2; i < 4 && turns; ++i) {
            if (in[i].rank != 3) raise(ErrorCode::shape_mismatch, "a table of rank " + std::to_string(in[i].rank) + "; 3 is accepted");
            agree(in[i].dims[0], batch, "batches of a table");
            agree(in[i].dims[1], rows, "rows of a table");
            if (i == 3) agree(in[i].dims[2], half, "columns of the sines");
            half = in[i].dims[2];
            if (2 * half > d || half < 0) agree(2 * half, d, "values that turn");
        }
    }

private:
    static void agree(std::int64_t found, std::int64_t wanted, const char* what) {
        if (found != wanted) raise(ErrorCode::shape_mismatch, std::string(what) + " are " + std::to_string(found) + " where " + std::to_string(wanted) + " are accepted");
    }
};

class AppendKernel final : public Kernel {
public:
    explicit AppendKernel(AppendProblem p) : p_(std::move(p)) { grows = true; }
    const char* name() const noexcept override { return "attention.append"; }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override { return {0, std::make_shared<AppendSizes>(p_, in, out[0])}; }
    void run(const Call& c) const override {
        const AppendSizes& p = *static_cast<const AppendSizes*>(c.state);
        const bool turns = p.turns;
        const std::int64_t first = p.room ? p.past : 0, total = p.past + p.rows - first, apart = p.room ? p.room : total;  // rows that are written for each head, between heads
        c.workers.ranges(p.batch * p.heads * total, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, p.d)), [&](std::int64_t from, std::int64_t to) {
            while (from < to) {
                const std::int64_t lead = from / total, row = first + from % total;
                float* y = c.out[0].out<float>() + (lead * apart + row) * p.d;
                if (row < p.past) {
                    const std::int64_t n = std::min(p.past - row, to - from);
                    std::memcpy(y, c.in[0].in<float>() + (lead * p.past + row) * p.d, static_cast<std::size_t>(n * p.d) * sizeof(float));
                    from += n;
                    continue;
                }
                std::int64_t at = p.x.offset + (row - p.past) * p.x.stride[Factor::key], rest = lead;
                for (int d = max_lead - 1; d >= 0; --d) at += rest % p.x.size[static_cast<std::size_t>(d)] * p.x.stride[static_cast<std::size_t>(d)], rest /= p.x.size[static_cast<std::size_t>(d)];
                const float* x = c.in[1].in<float>() + at;
                if (turns) {
                    const std::int64_t table = (lead / p.heads * p.rows + row - p.past) * p.half;
                    turn(x, c.in[2].in<float>() + table, c.in[3].in<float>() + table, p.half, p.d, p_.interleaved, y);
                } else {
                    std::memcpy(y, x, static_cast<std::size_t>(p.d) * sizeof(float));
                }
                ++from;
            }
        });
    }

private:
    AppendProblem p_;
};

}  // namespace attention
QUERN_END
