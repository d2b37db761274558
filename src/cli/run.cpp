// quern run: one run of a model on files.
#include <cstdio>

#include "elements.hpp"
#include "io.hpp"
#include "progress.hpp"

namespace cli {

static void print_summary(const std::string& name, const Tensor& t) {
    std::printf("%s: %s\n", name.c_str(), type_text(t).c_str());
    bool numeric = quern::is_float(t.dtype()) || quern::is_integer(t.dtype());
    if (numeric && t.count() > 1) {
        double low = INFINITY, high = -INFINITY, sum = 0;
        std::int64_t largest = 0, nans = 0;
        for (std::int64_t i = 0; i < t.count(); ++i) {
            double v = element(t, i);
            if (std::isnan(v)) { ++nans; continue; }
            if (v > high) high = v, largest = i;
            low = std::min(low, v);
            sum += v;
        }
        std::printf("  min %s  max %s (flat index %lld)  mean %s%s\n", number(low).c_str(), number(high).c_str(),
                    static_cast<long long>(largest), number(sum / double(t.count() - nans)).c_str(),
                    nans ? ("  NaN: " + std::to_string(nans)).c_str() : "");
    }
    std::string line = " ";
    for (std::int64_t i = 0; i < std::min<std::int64_t>(t.count(), 10); ++i) line += " " + element_text(t, i);
    if (t.count() > 10) line += " ...";
    std::printf("%s\n", line.c_str());
}

static void print_value(const std::string& name, const Value& v) {
    if (v.kind() == quern::Kind::tensor) return print_summary(name, v.tensor());
    std::printf("%s: %s\n", name.c_str(), v.to_string().c_str());
    if (v.kind() == quern::Kind::sequence)
        for (std::size_t i = 0; i < std::min<std::size_t>(v.size(), 10); ++i) print_value(name + "[" + std::to_string(i) + "]", v[i]);
    for (std::size_t i = 0; v.kind() == quern::Kind::map && i < std::min<std::size_t>(v.size(), 10); ++i)
        std::printf("  %s: %s\n", element_text(v.keys(), static_cast<std::int64_t>(i)).c_str(), element_text(v.values(), static_cast<std::int64_t>(i)).c_str());
}

int compile(const Args& a) {
    Progress progress;
    progress.show("compiling " + a.model);
    quern::Engine engine = open_engine(a);
    progress.show("writing " + a.engine);
    engine.save(a.engine);
    return ok;
}

int run(const Args& a) {
    Progress progress;
    progress.show("loading and compiling " + a.model);
    quern::Engine engine = open_engine(a);
    auto inputs = gather_inputs(engine.inputs(), a, false);
    quern::Session session(engine);
    for (auto& [name, tensor] : inputs) session.bind(name, tensor);
    progress.show("running");
    session.run();
    progress.clear();

    auto each = [&](auto&& f) {
        for (const auto& port : engine.outputs()) f(port.name, session.output_value(port.name), port.kind);
        for (const std::string& tap : a.taps) f(tap, session.tap(tap), quern::Kind::tensor);
    };
    if (a.output_dir.empty()) {
        each([](const std::string& name, const Value& v, quern::Kind) { print_value(name, v); });
    } else {
        make_dir(a.output_dir);
        each([&](const std::string& name, const Value& v, quern::Kind kind) { save_output(a.output_dir, name, v, kind); });
    }
    return ok;
}
}  // namespace cli
