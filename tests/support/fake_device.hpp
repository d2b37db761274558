// A device made of host memory: its streams do nothing before somebody waits, its memory is full of NaN, and it has kernels for two operators.
#pragma once
#include <cmath>
#include <deque>
#include <functional>
#include <map>

#include <quern/kernels/device.hpp>
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/softmax/softmax.hpp>

#include "op_test.hpp"

QUERN_BEGIN
std::span<const Backend* const> linked_backends() noexcept;
QUERN_END

namespace fake_device {
using namespace quern;
using namespace quern_test;

using Work = std::vector<std::function<void()>>;
/// Does nothing before somebody waits, and then no more than that needs.
struct FakeStream {
    std::deque<std::function<void()>> work;
    Work captured;
    bool capturing = false, no_graphs = false;
    std::size_t pushed = 0, done = 0;
    void push(std::function<void()> f);
    void run_to(std::size_t n) {
        while (done < n) {
            auto f = std::move(work.front());
            work.pop_front();
            ++done;
            f();
        }
    }
};
struct FakeEvent {
    FakeStream* stream = nullptr;
    std::size_t at = 0;
    void run() const {
        if (stream) stream->run_to(at);
    }
};
struct Counts {
    int packed = 0, opened = 0, to_device = 0, to_host = 0, synchronized = 0, captured = 0, replayed = 0, streams = 0, trims = 0, events = 0;
    int waits = 0, follows = 0;
    std::size_t held = 0;
    std::size_t left = 0;  ///< the most work that was left on a stream when the host went on after a wait
    bool fail_next_kernel = false;
    int forget_wait = -1;              ///< planted faults: the host's wait that does nothing, counted from now,
    bool forget_stream_waits = false;  ///< all waits of streams
    std::size_t no_memory_from = SIZE_MAX;
    bool no_pinned = false;
    std::uint32_t eager = 0;  ///< not 0: streams work now and then though nobody waits, at random from this seed
    std::function<void()> at_kernel;
};
inline Counts counts;
inline void FakeStream::push(std::function<void()> f) {
    if (capturing) return captured.push_back(std::move(f));
    work.push_back(std::move(f));
    ++pushed;
    if (!counts.eager) return;
    counts.eager = counts.eager * 1664525u + 1013904223u;
    if (counts.eager >> 30 == 0) run_to(done + 1 + (counts.eager >> 8) % work.size());
}

class FakeDevice final : public DeviceApi {
public:
    FakeDevice() { ++counts.opened; }
    ~FakeDevice() override { EXPECT_TRUE(sizes_.empty()) << "device memory was not given back"; }
    const std::string& description() const noexcept override { return text_; }
    int ordinal() const noexcept override { return 0; }
    int sm() const noexcept override { return 80; }
    void* allocate(std::size_t n) override {
        if (n >= counts.no_memory_from) raise(ErrorCode::out_of_memory, "no device memory, on purpose");
        void* p = ::operator new(n, std::align_val_t(256));
        std::memset(p, 0xFF, n);
        sizes_.emplace(p, n);
        counts.held += n;
        return p;
    }
    void release(void* p) noexcept override {
        std::size_t n = sizes_.at(p);
        std::memset(p, 0xFF, n);
        counts.held -= n;
        sizes_.erase(p);
        ::operator delete(p, std::align_val_t(256));
    }
    void trim() noexcept override { ++counts.trims; }
    void* allocate_pinned(std::size_t n) override {
        if (counts.no_pinned) raise(ErrorCode::out_of_memory, "no page-locked memory, on purpose");
        auto* p = static_cast<char*>(::operator new(n, std::align_val_t(64)));
        pinned_[p] = n;
        return p;
    }
    void release_pinned(void* p) noexcept override {
        pinned_.erase(static_cast<char*>(p));
        ::operator delete(p, std::align_val_t(64));
    }
    void* make_stream() override { return ++counts.streams, new FakeStream; }
    void destroy_stream(void* s) noexcept override { counts.streams -= s != nullptr, delete static_cast<FakeStream*>(s); }
    void to_device(void* to, const void* from, std::size_t n, void* s) override {
        ++counts.to_device;
        if (auto it = pinned_.upper_bound(const_cast<char*>(static_cast<const char*>(from))); it != pinned_.begin() && static_cast<const char*>(from) < std::prev(it)->first + std::prev(it)->second)
            return late_.push_back({static_cast<const char*>(from), n}), enqueue(s, [=, this] { std::memcpy(to, from, n), forget(from, n); });  // read when the copy comes to it
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + n);
        enqueue(s, [=, staged = std::move(staged)] { std::memcpy(to, staged.data(), n); });
    }
    void to_host(void* to, const void* from, std::size_t n, void* s) override {
        ++counts.to_host;
        auto* t = static_cast<const char*>(to);
        if (std::none_of(late_.begin(), late_.end(), [&](auto& l) { return l.first < t + n && t < l.first + l.second; })) std::memset(to, 0xFF, n);
        enqueue(s, [=] { std::memcpy(to, from, n); });
    }
    void copy(void* to, const void* from, std::size_t n, void* s) override {
        enqueue(s, [=] { std::memcpy(to, from, n); });
    }
    void synchronize(void* s) override {
        ++counts.synchronized;
        if (s) static_cast<FakeStream*>(s)->run_to(static_cast<FakeStream*>(s)->pushed);
    }
    void* make_event() override { return ++counts.events, new FakeEvent; }
    void destroy_event(void* e) noexcept override { --counts.events, delete static_cast<FakeEvent*>(e); }
    void record(void* e, void* s) override { *static_cast<FakeEvent*>(e) = {static_cast<FakeStream*>(s), static_cast<FakeStream*>(s)->pushed}; }
    void wait(void* event) override {
        ++counts.waits;
        const FakeEvent e = *static_cast<FakeEvent*>(event);
        if (counts.forget_wait >= 0 && counts.forget_wait-- == 0) return;
        e.run();
        if (e.stream) counts.left = std::max(counts.left, e.stream->work.size());
    }
    void follow(void* s, void* event) override {
        ++counts.follows;
        if (!counts.forget_stream_waits) enqueue(s, [e = *static_cast<FakeEvent*>(event)] { e.run(); });
    }
    void* mark(void* s) override {
        void* e = make_event();
        return record(e, s), e;
    }
    double between(void* first, void* second) override {
        static_cast<FakeEvent*>(second)->run();
        return destroy_event(first), destroy_event(second), 1;
    }
    bool begin_capture(void* s) override {
        auto* f = static_cast<FakeStream*>(s);
        return !f->no_graphs && (f->capturing = true);
    }
    bool capturing(void* s) override { return static_cast<FakeStream*>(s)->capturing; }
    std::shared_ptr<const void> end_capture(void* s) override {
        ++counts.captured;
        auto* f = static_cast<FakeStream*>(s);
        f->capturing = false;
        return std::make_shared<Work>(std::move(f->captured));
    }
    void replay(const void* graph, void* s) override {
        ++counts.replayed;
        for (auto& w : *static_cast<const Work*>(graph)) static_cast<FakeStream*>(s)->push(w);
    }
    int enter() override { return 0; }
    void leave(int) noexcept override {}

private:
    static void enqueue(void* s, std::function<void()> f) {
        if (s) static_cast<FakeStream*>(s)->push(std::move(f));
        else f();
    }
    void forget(const void* from, std::size_t n) {
        auto it = std::find(late_.begin(), late_.end(), std::make_pair(static_cast<const char*>(from), n));
        if (it != late_.end()) late_.erase(it);
    }
    std::string text_ = "fake";
    std::map<void*, std::size_t> sizes_;
    std::map<char*, std::size_t> pinned_;
    std::vector<std::pair<const char*, std::size_t>> late_;  // what copies under way still read
};

class FakeSoftmax final : public Kernel {
public:
    FakeSoftmax() { inplace = 1; }
    const char* name() const noexcept override { return "softmax.fake"; }
    void run(const Call& c) const override {
        if (counts.at_kernel) counts.at_kernel();
        if (std::exchange(counts.fail_next_kernel, false)) raise(ErrorCode::device, "softmax.fake: failed on purpose");
        const std::int64_t cols = c.in[0].dim(-1), rows = cols ? c.in[0].count() / cols : 0;
        const float* x = c.in[0].in<float>();
        float* y = c.out[0].out<float>();
        static_cast<FakeStream*>(c.stream)->push([=] {
            for (std::int64_t r = 0; r < rows; ++r) {
                float m = -INFINITY, s = 0;
                for (std::int64_t i = 0; i < cols; ++i) m = std::max(m, x[r * cols + i]);
                for (std::int64_t i = 0; i < cols; ++i) s += std::exp(x[r * cols + i] - m);
                for (std::int64_t i = 0; i < cols; ++i) y[r * cols + i] = std::exp(x[r * cols + i] - m) / s;
            }
        });
    }
};
/// Packs B transposed; the constant itself is never read. Or reads it, when `plain`.
class FakeProduct final : public Kernel {
public:
    FakeProduct(const matmul::Problem& p, const Target& target) : n_(p.n), k_(p.k), packed_(p.trans_b) {
        if (!packed_) return;
        weights_.push_back(packed_weights(target, "matmul.fake", {p.b}, static_cast<std::size_t>(k_ * n_) * sizeof(float), [&](std::byte* to) {
            ++counts.packed;
            for (std::int64_t i = 0; i < n_; ++i)
                for (std::int64_t j = 0; j < k_; ++j) reinterpret_cast<float*>(to)[j * n_ + i] = static_cast<const float*>(p.b.raw())[i * k_ + j];
        }));
        unread = 2;
    }
    const char* name() const noexcept override { return "matmul.fake"; }
    std::span<const Tensor> device_weights() const noexcept override { return weights_; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(in[0].count()) * sizeof(float);
        return b;
    }
    void run(const Call& c) const override {
        const float *a = c.in[0].in<float>(), *b = packed_ ? static_cast<const float*>(c.weights[0].data) : c.in[1].in<float>();
        float *y = c.out[0].out<float>(), *scratch = reinterpret_cast<float*>(c.scratch);
        const std::int64_t m = c.in[0].dim(0), n = n_, k = k_;
        static_cast<FakeStream*>(c.stream)->push([=] {
            std::copy_n(a, m * k, scratch);
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    float s = 0;
                    for (std::int64_t l = 0; l < k; ++l) s += scratch[i * k + l] * b[l * n + j];
                    y[i * n + j] = s;
                }
        });
    }

private:
    std::int64_t n_, k_;
    bool packed_;
    std::vector<Tensor> weights_;
};

inline std::string refuse_softmax(const softmax::Problem& p, const Target&) { return p.axis == p.rank - 1 && !p.log && p.dtype == DType::f32 ? "" : "only the last axis"; }
inline std::unique_ptr<Kernel> make_softmax(const softmax::Problem&, const Target&) { return std::make_unique<FakeSoftmax>(); }
inline std::string refuse_product(const matmul::Problem& p, const Target&) {
    return p.dtype == DType::f32 && p.rank_a == 2 && p.rank_b == 2 && p.b.defined() && !p.trans_a && !p.has_bias && !p.has_residual && p.post == vec::Post::none ? "" : "only plain products";
}
inline std::unique_ptr<Kernel> make_product(const matmul::Problem& p, const Target& t) { return std::make_unique<FakeProduct>(p, t); }
inline constexpr Entry<softmax::Problem> softmax_fake{"softmax.fake", refuse_softmax, make_softmax};
inline constexpr Entry<matmul::Problem> matmul_fake{"matmul.fake", refuse_product, make_product};
inline const RankedEntry softmax_lines[] = {{&softmax_fake, 1}}, matmul_lines[] = {{&matmul_fake, 1}};
inline std::shared_ptr<DeviceApi> open_fake(int ordinal, const Options&) {
    if (ordinal) raise(ErrorCode::unsupported, "device 'fake:" + std::to_string(ordinal) + "' is not there: 1 found");
    return std::make_shared<FakeDevice>();
}
inline const Backend& fake() {
    static const Backend b = [] {
        Backend b{"fake", {}, Device::cuda, open_fake};
        b.lists[static_cast<int>(Family::softmax)] = softmax_lines;
        b.lists[static_cast<int>(Family::matmul)] = matmul_lines;
        return b;
    }();
    return b;
}
inline Options on_fake() {
    Options o;
    o.device = "fake";
    o.threads = 1;
    for (const Backend* b : linked_backends())
        if (b->device == Device::cpu) o.backends.push_back(b);
    o.backends.push_back(&fake());
    return o;
}
inline Options on_cpu() {
    Options o;
    o.threads = 1;
    return o;
}

inline Tensor noise(Shape shape, int seed = 1) {
    Tensor t(DType::f32, std::move(shape));
    std::uint32_t x = static_cast<std::uint32_t>(seed) * 2654435761u;
    for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = static_cast<float>(x >> 8) / 8388608.f - 1.f;
    return t;
}
inline int count(const std::string& text, const std::string& what) {
    int n = 0;
    for (std::size_t p = 0; (p = text.find(what, p)) != std::string::npos; p += what.size()) ++n;
    return n;
}
inline std::string error_of(const std::function<void()>& f) {
    try { f(); } catch (const Error& e) { return e.what(); }
    return "no error";
}

/// Two products, the second by a transposed constant, and a softmax: all on the device.
inline ModelBuilder chain(const std::string& rows) {
    ModelBuilder b;
    b.input("x", DType::f32, {rows, "16"}).constant("w", noise({16, 24}, 3)).constant("v", noise({8, 24}, 4));
    b.node("MatMul", {"x", "w"}, {"a"}).node("Gemm", {"a", "v"}, {"b"}, {onnx::attribute_i("transB", 1)}).node("Softmax", {"b"}, {"y"}).output("y");
    return b;
}

}  // namespace fake_device
