// What is done with fuzzed bytes; shared by the libFuzzer target and by the replay of the corpus.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <quern/onnx/external.hpp>
#include <quern/quern.hpp>

namespace quern_fuzz {

struct State {
    bool keep_going = false;  ///< count defects instead of ending at the first
    int defects = 0;
};
inline State& state() {
    static State s;
    return s;
}
/// An error that says `internal` is a defect, whatever the bytes were.
inline void expect_no_defect(const quern::Error& e) {
    if (e.code() != quern::ErrorCode::internal) return;
    std::fprintf(stderr, "DEFECT: %s\n", e.what());
    if (!state().keep_going) std::abort();
    ++state().defects;
}
template <class T>
bool fine(const quern::Result<T>& r) {
    if (!r.ok()) expect_no_defect(r.error());
    return r.ok();
}

/// Zeros; symbols are 2. A sequence has two items. Nothing where a tensor is too large.
inline bool zeros(const quern::PortInfo& port, quern::Value& out) {
    using quern::Kind;
    if (port.dtype == quern::DType::undefined) return false;
    if (port.kind == Kind::optional) return true;
    if (port.kind == Kind::map) {
        auto keys = std::make_shared<const quern::Tensor>(port.key, quern::Shape{2});
        out = quern::Value::map(keys, quern::Tensor(port.dtype, {2}));
        return true;
    }
    if (port.kind == Kind::sequence) {
        quern::Value item;
        if (!port.elem || !zeros(*port.elem, item)) return false;
        out = quern::Value::sequence({item, item});
        return true;
    }
    quern::Shape shape;
    for (auto& d : port.dims) shape.push_back(d.value ? *d.value : 2);
    for (std::int64_t d : shape)
        if (d < 0) return false;
    if (!port.ranked) shape = {2, 3};
    if (shape.count() > 4096) return false;
    out = quern::Tensor(port.dtype, shape);
    return true;
}
inline bool zero_inputs(const quern::Engine& engine, std::vector<quern::NamedValue>& inputs) {
    for (auto& port : engine.inputs()) {
        quern::Value v;
        if (!zeros(port, v)) return false;
        inputs.emplace_back(port.name, std::move(v));
    }
    return true;
}

inline void run_model(const std::uint8_t* data, std::size_t size) {
    quern::LoadOptions load;
    load.memory_limit = 64u << 20;
    load.resolver = [](std::string_view where) {
        static const std::string weights(48, '\0');
        return where == "w.bin" ? std::string_view(weights) : std::string_view();
    };
    auto model = quern::Model::try_from_bytes({reinterpret_cast<const std::byte*>(data), size}, load);
    if (!fine(model)) return;
    quern::Options options;
    options.threads = 1;
    options.memory_limit = 64u << 20;
    options.deadline = 1;
    auto engine = model->try_compile(options);
    if (!fine(engine)) return;
    std::vector<quern::NamedValue> inputs;
    if (zero_inputs(*engine, inputs)) fine(engine->try_run_values(inputs));
}

inline void run_values(const std::uint8_t* data, std::size_t size) {
    std::span<const std::byte> bytes{reinterpret_cast<const std::byte*>(data), size};
    auto attempt = [](auto&& f) {
        try {
            f();
        } catch (const quern::Error& e) {
            expect_no_defect(e);
        }
    };
    attempt([&] { quern::onnx::parse_tensor(bytes); });
    for (auto kind : {quern::Kind::sequence, quern::Kind::optional, quern::Kind::map})
        attempt([&] {
            quern::Value v = quern::onnx::parse_value(bytes, kind);
            quern::onnx::serialize_value(v, kind, "again");
        });
}

inline void run(const std::uint8_t* data, std::size_t size) {
    if (size > (64u << 10)) return;
    run_model(data, size);
    run_values(data, size);
}

}  // namespace quern_fuzz
