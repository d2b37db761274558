// Every kernel of the matmul and conv lists, attention and LSTM over the shapes of real models: GFLOP/s, and the part of what fused
// multiply-adds reach in the same process on as many threads. QUERN_BENCH_THREADS and QUERN_BENCH_ISA (avx2, baseline).
#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include <quern/base/thread_pool.hpp>
#include <quern/kernels/attention/fused.hpp>
#include <quern/kernels/conv/chain.hpp>
#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/rnn/rnn.hpp>

QUERN_BEGIN
std::span<const Backend* const> linked_backends() noexcept;
QUERN_END

namespace {
using namespace quern;

int threads() {
    const char* t = std::getenv("QUERN_BENCH_THREADS");
    return t ? std::max(1, std::atoi(t)) : 1;
}
Isa isa() {
    const char* s = std::getenv("QUERN_BENCH_ISA");
    std::string name = s ? s : "";
    return name == "baseline" ? Isa::baseline : name == "avx2" ? Isa::avx2 : best_isa();
}
ThreadPool& pool() {
    static ThreadPool p(threads());
    return p;
}
/// GFLOP/s of one thread in a product that lives in the first cache.
double peak() {
    const vec::Table& t = vec::table(isa());
    constexpr std::int64_t m = 56, n = 64, k = 64;
    std::vector<float> a(m * k, 1.f), b(t.packed_floats(n, k) + 16), c(m * n), w(t.gemm_work_bytes(m, n, k) / 4 + 16), plain(k * n, 1.f);
    t.pack_b_f32(n, k, plain.data(), n, false, 1.f, b.data());
    double best = 0;
    for (int i = 0; i < 200; ++i) {
        auto start = std::chrono::steady_clock::now();
        for (int j = 0; j < 20; ++j) t.gemm_packed_f32(m, n, k, a.data(), k, false, b.data(), c.data(), n, {}, w.data());
        double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, 20 * 2e-9 * m * n * k / s);
    }
    return best;
}
std::vector<float> values(std::size_t n) {
    std::mt19937 rng(1);
    std::normal_distribution<float> d;
    std::vector<float> v(n);
    for (float& x : v) x = d(rng);
    return v;
}
struct Operand {
    std::vector<std::int64_t> dims;
    std::vector<float> data;
    explicit Operand(std::vector<std::int64_t> d) : dims(std::move(d)), data(values(static_cast<std::size_t>(count()))) {}
    std::int64_t count() const {
        std::int64_t n = 1;
        for (std::int64_t x : dims) n *= x;
        return n;
    }
    View view() { return {DType::f32, static_cast<std::int32_t>(dims.size()), dims.data(), data.data()}; }
    Tensor tensor() const { return Tensor::borrow(DType::f32, Shape(std::span<const std::int64_t>(dims)), data.data()); }
};
void measure(benchmark::State& state, const Kernel& kernel, std::vector<View> in, View out, double flop) {
    std::vector<View> outs{out};
    Booking booking = kernel.book(in, outs, pool().width());
    std::vector<std::byte> memory(booking.scratch + 64);
    auto* scratch = memory.data() + (64 - reinterpret_cast<std::size_t>(memory.data()) % 64) % 64;
    RunWorkers workers(&pool(), nullptr);
    for (auto _ : state) kernel.run(Call{in, outs, scratch, booking.state.get(), workers});
    static const double top = peak();
    double done = flop * static_cast<double>(state.iterations());
    state.counters["GFLOP/s"] = benchmark::Counter(done * 1e-9, benchmark::Counter::kIsRate);
    state.counters["%peak"] = benchmark::Counter(done * 1e-7 / (top * threads()), benchmark::Counter::kIsRate);
}
template <class P, class F> void list(Family family, const P& p, const std::string& shape, F run) {
    for (const Backend* b : linked_backends()) {
        if (b->device != Device::cpu) continue;
        for (const RankedEntry& line : b->lists[static_cast<int>(family)]) {
            const auto* entry = static_cast<const Entry<P>*>(line.entry);
            Target target{isa(), linked_backends(), nullptr};
            if (!entry->refuse(p, target).empty()) continue;
            benchmark::RegisterBenchmark((std::string(entry->name) + "/" + shape).c_str(), [=](benchmark::State& s) { run(s, *entry); })->UseRealTime();
        }
    }
}
template <class F> void lines(const char* file, F f) {
    std::ifstream in(std::string(QUERN_SOURCE_DIR) + "/bench/shapes/" + file);
    for (std::string line; std::getline(in, line);)
        if (!line.empty() && line[0] != '#') f(std::istringstream(line));
}
}  // namespace

int main(int argc, char** argv) {
    lines("matmul.txt", [](std::istringstream s) {
        std::int64_t m, k, n;
        bool constant;
        s >> m >> k >> n >> constant;
        auto b = std::make_shared<Operand>(std::vector<std::int64_t>{k, n});
        matmul::Problem p;
        if (constant) p.b = b->tensor(), p.n = n, p.k = k;
        list<matmul::Problem>(Family::matmul, p, std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n) + (constant ? "" : "/computed"),
             [=](benchmark::State& state, const Entry<matmul::Problem>& entry) {
                 Operand a({m, k}), y({m, n});
                 auto kernel = entry.make(p, Target{isa(), linked_backends(), nullptr});
                 measure(state, *kernel, {a.view(), b->view()}, y.view(), 2.0 * static_cast<double>(m * k * n));
             });
    });
    lines("conv.txt", [](std::istringstream s) {
        std::int64_t size, c, m, kernel, stride, group;
        s >> size >> c >> m >> kernel >> stride >> group;
        auto w = std::make_shared<Operand>(std::vector<std::int64_t>{m, c / group, kernel, kernel});
        std::int64_t pad = kernel / 2, out = (size + 2 * pad - kernel) / stride + 1;
        conv::Problem p;
        p.layout = conv::Layout::nhwc;
        p.window = {{kernel, kernel}, {stride, stride}, {pad, pad, pad, pad}, {1, 1}, conv::AutoPad::notset};
        p.group = group, p.channels = c, p.out_channels = m, p.has_bias = true, p.post = vec::Post::relu, p.w = w->tensor();
        std::ostringstream name;
        name << size << "x" << size << "x" << c << "->" << m << "/k" << kernel << "s" << stride << "g" << group;
        list<conv::Problem>(Family::conv, p, name.str(), [=](benchmark::State& state, const Entry<conv::Problem>& entry) {
            Operand x({1, size, size, c}), bias({m}), y({1, out, out, m});
            auto made = entry.make(p, Target{isa(), linked_backends(), nullptr});
            measure(state, *made, {x.view(), w->view(), bias.view()}, y.view(), 2.0 * static_cast<double>(out * out * m * c / group * kernel * kernel));
        });
    });
    lines("line.txt", [](std::istringstream s) {
        std::int64_t size, c, m, kernel, stride, dilation, group;
        s >> size >> c >> m >> kernel >> stride >> dilation >> group;
        auto w = std::make_shared<Operand>(std::vector<std::int64_t>{m, c / group, kernel});
        std::int64_t pad = (kernel - 1) * dilation, out = (size - 1) / stride + 1;
        for (conv::Layout layout : {conv::Layout::nchw, conv::Layout::nhwc}) {
            const bool last = layout == conv::Layout::nhwc;
            conv::Problem p;
            p.layout = layout;
            p.window = {{kernel}, {stride}, {pad, 0}, {dilation}, conv::AutoPad::notset};
            p.group = group, p.channels = c, p.out_channels = m, p.width = size, p.has_bias = true, p.post = vec::Post::relu, p.w = w->tensor();
            std::ostringstream name;
            name << size << "x" << c << "->" << m << "/k" << kernel << "s" << stride << "d" << dilation << "g" << group << (last ? "/nwc" : "/ncw");
            list<conv::Problem>(Family::conv, p, name.str(), [=](benchmark::State& state, const Entry<conv::Problem>& entry) {
                Operand x(last ? std::vector<std::int64_t>{1, size, c} : std::vector<std::int64_t>{1, c, size}), bias({m}), y(last ? std::vector<std::int64_t>{1, out, m} : std::vector<std::int64_t>{1, m, out});
                auto made = entry.make(p, Target{isa(), linked_backends(), nullptr});
                measure(state, *made, {x.view(), w->view(), bias.view()}, y.view(), 2.0 * static_cast<double>(out * m * (c / group) * kernel));
            });
        }
    });
    lines("attention.txt", [](std::istringstream s) {
        std::int64_t b, h, q, t, d;
        s >> b >> h >> q >> t >> d;
        using attention::Factor;
        auto rows = [=](std::int64_t role) { return attention::Layout{{0, 0, -1, 0}, {1, role, -1, 0}, {2, 1, h, 0}, {2, Factor::inner, d, 0}}; };
        attention::FusedProblem p;
        p.scale = 0.125f;
        p.q = p.y = rows(Factor::query);
        p.k = p.v = rows(Factor::key);
        std::ostringstream name;
        name << "attention.fused/" << b << "x" << h << "/" << q << "x" << t << "x" << d;
        benchmark::RegisterBenchmark(name.str().c_str(), [=](benchmark::State& state) {
            Operand x({b, q, h * d}), k({b, t, h * d}), v({b, t, h * d}), y({b, q, h * d});
            attention::FusedKernel kernel(p, vec::table(isa()));
            measure(state, kernel, {x.view(), k.view(), v.view()}, y.view(), 4.0 * static_cast<double>(b * h * q * t * d));
        })->UseRealTime();
    });
    lines("lstm.txt", [](std::istringstream s) {
        std::int64_t seq, batch, in, hidden, dirs;
        s >> seq >> batch >> in >> hidden >> dirs;
        auto w = std::make_shared<Operand>(std::vector<std::int64_t>{dirs, 4 * hidden, in}), r = std::make_shared<Operand>(std::vector<std::int64_t>{dirs, 4 * hidden, hidden});
        rnn::Problem p;
        p.hidden = hidden;
        p.directions = static_cast<int>(dirs);
        for (std::int64_t i = 0; i < dirs; ++i)
            for (const char* f : {"sigmoid", "tanh", "tanh"}) p.activations.push_back(rnn::Activation::named(f));
        p.w = w->tensor(), p.r = r->tensor();
        std::ostringstream name;
        name << "rnn.sequence/" << seq << "x" << batch << "x" << in << "->" << hidden << "x" << dirs;
        benchmark::RegisterBenchmark(name.str().c_str(), [=](benchmark::State& state) {
            Operand x({seq, batch, in}), y({seq, dirs, batch, hidden});
            rnn::SequenceKernel kernel(p, Target{isa(), linked_backends(), nullptr});
            measure(state, kernel, {x.view(), w->view(), r->view()}, y.view(), 8.0 * static_cast<double>(seq * batch * dirs * hidden * (in + hidden)));
        })->UseRealTime();
    });
    lines("chain.txt", [](std::istringstream s) {
        std::int64_t size, c, d, m, kernel, stride;
        s >> size >> c >> d >> m >> kernel >> stride;
        std::int64_t out = (size + kernel / 2 * 2 - kernel) / stride + 1;
        auto we = std::make_shared<Operand>(std::vector<std::int64_t>{d, c, 1, 1}), wd = std::make_shared<Operand>(std::vector<std::int64_t>{d, 1, kernel, kernel}),
             wp = std::make_shared<Operand>(std::vector<std::int64_t>{m, d, 1, 1});
        std::ostringstream name;
        name << "conv.chain/" << size << "x" << size << "x" << c << "->" << d << "->" << m << "/k" << kernel << "s" << stride;
        benchmark::RegisterBenchmark(name.str().c_str(), [=](benchmark::State& state) {
            conv::ChainProblem p;
            std::int64_t pad = kernel / 2;
            p.window = {{kernel, kernel}, {stride, stride}, {pad, pad, pad, pad}, {1, 1}, conv::AutoPad::notset};
            if (c) p.expand.w = we->tensor(), p.expand.post = vec::Post::relu;
            p.depthwise.w = wd->tensor(), p.depthwise.post = vec::Post::relu;
            if (m) p.project.w = wp->tensor();
            Target target{isa(), linked_backends(), nullptr};
            if (!conv::refuse_chain(p, target).empty()) return state.SkipWithError("refused");
            Operand x({1, size, size, c ? c : d}), y({1, out, out, m ? m : d});
            conv::ChainKernel made(p, target);
            double work = static_cast<double>(size * size * c * d + out * out * d * (kernel * kernel + m));
            measure(state, made, {x.view(), View{}, View{}, wd->view(), View{}, View{}, View{}}, y.view(), 2.0 * work);
        })->UseRealTime();
    });
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
