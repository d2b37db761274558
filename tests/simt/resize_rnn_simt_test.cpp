// kernels/resize/cuda.cu and kernels/rnn/cuda.cu against double references.
#include <quern/kernels/resize/cuda.hpp>
#include <quern/kernels/rnn/cuda.hpp>

#include "device_test.hpp"

namespace {

using namespace device_test;
using namespace quern;
using resize::CudaCoord;
using resize::CudaMode;
using resize::CudaNearest;

class Resize : public DeviceTest {};

// One axis at a time, in double.
std::vector<double> along(const resize::CudaResize& r, int k, const std::vector<double>& x, std::int64_t outer,
                          std::int64_t inner) {
    const std::int64_t n = r.in[k], m = r.out[k];
    const double scale = r.scale[k], length = scale * static_cast<double>(n);
    std::vector<double> y(static_cast<std::size_t>(outer * m * inner));
    for (std::int64_t o = 0; o < m; ++o) {
        double c = (static_cast<double>(o) + 0.5) / scale - 0.5;
        if (r.coord == CudaCoord::asymmetric) c = static_cast<double>(o) / scale;
        if (r.coord == CudaCoord::align_corners)
            c = length == 1 ? 0 : static_cast<double>(o) * static_cast<double>(n - 1) / (length - 1);
        if (r.coord == CudaCoord::pytorch_half_pixel && length == 1) c = -0.5;
        if (r.coord == CudaCoord::tf_half_pixel_for_nn) c += 0.5;
        std::vector<std::pair<std::int64_t, double>> taps;
        const auto floor = static_cast<std::int64_t>(std::floor(c));
        if (r.mode == CudaMode::nearest) {
            double i = std::floor(c);
            if (r.nearest == CudaNearest::round_prefer_floor) i = std::ceil(c - 0.5);
            if (r.nearest == CudaNearest::round_prefer_ceil) i = std::floor(c + 0.5);
            if (r.nearest == CudaNearest::ceil) i = std::ceil(c);
            taps.emplace_back(static_cast<std::int64_t>(i), 1.0);
        } else if (r.mode == CudaMode::linear) {
            taps = {{floor, 1 - (c - static_cast<double>(floor))}, {floor + 1, c - static_cast<double>(floor)}};
        } else {
            const double a = r.cubic_a;
            double sum = 0;
            for (std::int64_t i = floor - 1; i <= floor + 2; ++i) {
                const double d = std::fabs(static_cast<double>(i) - c);
                double w = d <= 1  ? ((a + 2) * d - (a + 3)) * d * d + 1
                           : d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
                                   : 0;
                if (r.exclude_outside && (i < 0 || i >= n)) w = 0;
                sum += w;
                taps.emplace_back(i, w);
            }
            if (r.exclude_outside)
                for (auto& t : taps) t.second /= sum;
        }
        for (std::int64_t p = 0; p < outer; ++p)
            for (std::int64_t i = 0; i < inner; ++i) {
                double v = 0;
                for (auto [at, w] : taps)
                    v += w * x[static_cast<std::size_t>(
                                 (p * n + std::min(std::max<std::int64_t>(at, 0), n - 1)) * inner + i)];
                y[static_cast<std::size_t>((p * m + o) * inner + i)] = v;
            }
    }
    return y;
}
void check_resize(resize::CudaResize r) {
    SCOPED_TRACE(testing::Message() << "mode " << static_cast<int>(r.mode) << " coordinates "
                                    << static_cast<int>(r.coord) << " nearest " << static_cast<int>(r.nearest));
    std::int64_t count = r.outer * r.inner;
    for (int k = 0; k < r.axes; ++k) {
        count *= r.in[k];
        if (r.scale[k] == 0) r.scale[k] = static_cast<double>(r.out[k]) / static_cast<double>(r.in[k]);
    }
    const auto x = random_values(static_cast<std::size_t>(count));
    std::vector<double> want(x.begin(), x.end());
    for (int k = 0; k < r.axes; ++k) {
        std::int64_t outer = r.outer, inner = r.inner;
        for (int j = 0; j < k; ++j) outer *= r.out[j];
        for (int j = k + 1; j < r.axes; ++j) inner *= r.in[j];
        want = along(r, k, want, outer, inner);
    }
    const auto dx = on_device(x);
    r.x = dx.data();
    run_each<float>(
        want.size(),
        [&](float* y) {
            r.y = y;
            return resize::cuda_resize(r, nullptr);
        },
        [&](const std::vector<float>& got) { expect_close(got, want, 2e-6); });
}
TEST_F(Resize, ModesAndCoordinates) {
    for (auto mode : {CudaMode::nearest, CudaMode::linear, CudaMode::cubic})
        for (auto coord : {CudaCoord::half_pixel, CudaCoord::pytorch_half_pixel, CudaCoord::align_corners,
                           CudaCoord::asymmetric, CudaCoord::tf_half_pixel_for_nn})
            for (auto nearest : {CudaNearest::round_prefer_floor, CudaNearest::round_prefer_ceil, CudaNearest::floor,
                                 CudaNearest::ceil}) {
                if (mode != CudaMode::nearest && nearest != CudaNearest::floor) continue;
                check_resize({mode, coord, nearest, -0.75, false, 2, 3, 1, {5, 7}, {10, 11}});
                check_resize({mode, coord, nearest, -0.5, mode == CudaMode::cubic, 2, 2, 4, {6, 9}, {3, 4}});
                check_resize({mode, coord, nearest, -0.75, false, 1, 1, 3, {4}, {1}});
            }
}
TEST_F(Resize, ThreeAxesFractionsAndLimits) {
    check_resize(
        {CudaMode::linear, CudaCoord::half_pixel, CudaNearest::floor, -0.75, false, 3, 1, 1, {2, 3, 4}, {4, 3, 6}});
    check_resize({CudaMode::linear, CudaCoord::asymmetric, CudaNearest::floor, -0.75, false, 1, 1, 1, {5}, {7}, {1.5}});
    resize::CudaResize r;
    r.axes = 4;
    EXPECT_EQ(resize::cuda_resize(r, nullptr), cudaErrorInvalidValue);
    r.axes = 0;
    r.outer = 0;
    EXPECT_EQ(resize::cuda_resize(r, nullptr), cudaSuccess);
}

class Rnn : public DeviceTest {};

// One step of one row in double: state and cell in place. `in` and `sum`: the inputs' and the state's share of each gate;
// `sum_of`: the latter of a gate for another state.
template <class SumOf>
void step(rnn::CudaCell cell, const std::vector<double>& in, const SumOf& sum_of, std::vector<double>& h,
          std::vector<double>& c) {
    const std::size_t n = h.size();
    const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    const auto x = [&](std::size_t g, std::size_t u) { return in[g * n + u]; };
    std::vector<double> next(n), reset(n);
    for (std::size_t u = 0; u < n; ++u) reset[u] = sigmoid(x(1 % (in.size() / n), u) + sum_of(1 % (in.size() / n), u, h)) * h[u];
    for (std::size_t u = 0; u < n; ++u) {
        const auto all = [&](std::size_t g) { return x(g, u) + sum_of(g, u, h); };
        switch (cell) {
            case rnn::CudaCell::lstm:
                c[u] = sigmoid(all(2)) * c[u] + sigmoid(all(0)) * std::tanh(all(3));
                next[u] = sigmoid(all(1)) * std::tanh(c[u]);
                break;
            case rnn::CudaCell::gru:
                next[u] = (1 - sigmoid(all(0))) * std::tanh(x(2, u) + sum_of(2, u, reset)) + sigmoid(all(0)) * h[u];
                break;
            case rnn::CudaCell::gru_linear:
                next[u] = (1 - sigmoid(all(0))) * std::tanh(x(2, u) + sigmoid(all(1)) * sum_of(2, u, h)) +
                          sigmoid(all(0)) * h[u];
                break;
            case rnn::CudaCell::rnn: next[u] = std::tanh(all(0));
        }
    }
    h = next;
}
void check_rnn(rnn::CudaCell cell, std::int64_t seq, std::int64_t batch, std::int64_t in, std::int64_t n,
               std::int64_t dirs, bool reverse, bool full) {
    SCOPED_TRACE(testing::Message() << "cell " << static_cast<int>(cell) << ", " << seq << " x " << batch << " x " << in
                                    << " -> " << n << ", " << dirs << (reverse ? " reverse" : ""));
    const auto z = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const std::int64_t gates = rnn::cuda_gates(cell);
    const auto x = random_values(z(seq * batch * in), 1, 1), w = random_values(z(dirs * gates * n * in), 0.3f, 2),
               r = random_values(z(dirs * gates * n * n), 0.3f, 3), b = random_values(z(dirs * 2 * gates * n), 0.3f, 4),
               h0 = random_values(z(dirs * batch * n), 1, 5), c0 = random_values(z(dirs * batch * n), 1, 6);
    const auto at = [](const std::vector<float>& v, std::int64_t i) { return static_cast<double>(v[static_cast<std::size_t>(i)]); };
    std::vector<double> want(z(seq * dirs * batch * n)), want_c(z(dirs * batch * n)), last(want_c.size());
    for (std::int64_t d = 0; d < dirs; ++d)
        for (std::int64_t i = 0; i < batch; ++i) {
            std::vector<double> h(z(n)), c(z(n)), share(z(gates * n));
            for (std::int64_t u = 0; full && u < n; ++u)
                h[z(u)] = at(h0, (d * batch + i) * n + u), c[z(u)] = at(c0, (d * batch + i) * n + u);
            const auto sum_of = [&](std::size_t g, std::size_t u, const std::vector<double>& state) {
                const auto q = static_cast<std::int64_t>(g), unit = static_cast<std::int64_t>(u);
                double v = full ? at(b, (d * 2 + 1) * gates * n + q * n + unit) : 0;
                for (std::int64_t k = 0; k < n; ++k) v += state[z(k)] * at(r, (d * gates * n + q * n + unit) * n + k);
                return v;
            };
            for (std::int64_t s = 0; s < seq; ++s) {
                const std::int64_t t = d == 1 || reverse ? seq - 1 - s : s;
                for (std::int64_t q = 0; q < gates * n; ++q) {
                    double v = full ? at(b, d * 2 * gates * n + q) : 0;
                    for (std::int64_t k = 0; k < in; ++k)
                        v += at(x, (t * batch + i) * in + k) * at(w, (d * gates * n + q) * in + k);
                    share[z(q)] = v;
                }
                step(cell, share, sum_of, h, c);
                for (std::int64_t u = 0; u < n; ++u) want[z(((t * dirs + d) * batch + i) * n + u)] = h[z(u)];
            }
            for (std::int64_t u = 0; u < n; ++u)
                want_c[z((d * batch + i) * n + u)] = c[z(u)], last[z((d * batch + i) * n + u)] = h[z(u)];
        }
    const auto dx = on_device(x), dw = on_device(w), dr = on_device(r), db = on_device(b), dh = on_device(h0),
               dc = on_device(c0);
    rnn::CudaRnn l;
    l.cell = cell;
    l.seq = seq, l.batch = batch, l.in = in, l.hidden = n, l.directions = dirs, l.reverse = reverse;
    l.x = dx.data(), l.w = dw.data(), l.r = dr.data();
    if (full) l.b = db.data(), l.h0 = dh.data(), l.c0 = dc.data();
    DeviceBuffer<char> scratch(rnn::cuda_rnn_scratch(l));
    DeviceBuffer<float> yh(want_c.size()), yc(want_c.size());
    l.y_h = yh.data();
    if (cell == rnn::CudaCell::lstm) l.y_c = yc.data();
    run_each<float>(
        want.size(),
        [&](float* y) {
            l.y = y;
            return rnn::cuda_rnn(l, scratch.data(), nullptr);
        },
        [&](const std::vector<float>& got) {
            expect_close(got, want, 1e-5);
            if (l.y_c) expect_close(yc.download(), want_c, 1e-5);
            expect_close(yh.download(), last, 1e-5);
        });
}
TEST_F(Rnn, SequencesInBothDirections) {
    for (auto cell : {rnn::CudaCell::lstm, rnn::CudaCell::gru, rnn::CudaCell::gru_linear, rnn::CudaCell::rnn}) {
        check_rnn(cell, 5, 3, 6, 12, 2, false, true);
        check_rnn(cell, 3, 5, 4, 9, 1, true, true);
        check_rnn(cell, 4, 1, 40, 33, 1, false, false);
    }
    rnn::CudaRnn l;
    l.directions = 3;
    EXPECT_EQ(rnn::cuda_rnn(l, nullptr, nullptr), cudaErrorInvalidValue);
}

}  // namespace
