// quern inspect and quern check: what a model is, what becomes of it, what stops it.
#include <cstdio>

#include "io.hpp"
#include "npy.hpp"
#include "progress.hpp"

namespace cli {

static void print_ports(const char* what, const std::vector<quern::PortInfo>& ports) {
    for (const auto& p : ports) std::printf("%-7s %s: %s\n", what, p.name.c_str(), port_text(p).c_str());
}

/// Runs six times with the given inputs, the missing ones made up; tells the quickest of the last five.
static void profile(const quern::Engine& engine, const Args& a) {
    quern::Session session(engine);
    auto inputs = gather_inputs(engine.inputs(), a, true);
    for (auto& [name, tensor] : inputs) session.bind(name, tensor);
    session.run();
    session.profile(true);
    std::string table, trace;
    double least = 0;
    for (int i = 0; i < 5; ++i) {
        session.run();
        double sum = 0;
        for (const auto& t : session.times()) sum += t.micros;
        if (i && sum >= least) continue;
        least = sum;
        table = session.profile_table();
        if (!a.trace.empty()) trace = session.profile_trace();
    }
    std::fputs(table.c_str(), stdout);
    if (!a.trace.empty()) {
        File f = open_file(a.trace, "wb");
        write_bytes(f.get(), trace.data(), trace.size(), a.trace);
        std::fprintf(stderr, "trace written to %s (open it in chrome://tracing or ui.perfetto.dev)\n", a.trace.c_str());
    }
}

int inspect(const Args& a) {
    Progress progress;
    progress.show("loading " + a.model);
    quern::Model model = quern::Model::load(a.model, load_options(a));
    bool whole = a.stage.empty() && !a.dot && !a.json && !a.profile && a.trace.empty() && a.save.empty();
    std::string stage = a.stage.empty() ? "import" : a.stage;
    quern::Options o = options(a);
    progress.show("working on stage " + stage);
    if (whole) {
        progress.clear();
        print_ports("input", model.inputs());
        print_ports("output", model.outputs());
    }
    if (!a.save.empty()) {
        auto saved = model.save(a.save, stage, o);
        progress.clear();
        saved.value();
    } else if (a.profile || !a.trace.empty()) {
        quern::Engine engine = model.compile(o);
        progress.clear();
        profile(engine, a);
    } else if (stage == "plan") {
        std::string text = model.compile(o).describe();
        progress.clear();
        std::fputs(text.c_str(), stdout);
    } else {
        std::string text = model.dump(stage, a.json ? "json" : a.dot ? "dot" : "text", o);
        progress.clear();
        std::fputs(text.c_str(), stdout);
        if (!text.empty() && text.back() != '\n') std::fputc('\n', stdout);
    }
    return ok;
}

int check(const Args& a) {
    Progress progress;
    progress.show("checking " + a.model);
    auto problems = quern::check(a.model, options(a), load_options(a));
    progress.clear();
    if (!problems.ok()) raise(problems.error());
    for (const quern::Problem& p : *problems) {
        std::string op = p.domain.empty() ? p.op : p.domain + "::" + p.op;
        std::printf("%s: ", quern::error_code_name(p.code));
        if (!p.node.empty() || !op.empty()) std::printf("node '%s' (%s", p.node.c_str(), op.c_str());
        if (!op.empty() && p.opset > 0) std::printf(", opset %lld", static_cast<long long>(p.opset));
        if (!p.node.empty() || !op.empty()) std::printf("%s%s): ", p.dtype.empty() ? "" : ", ", p.dtype.c_str());
        std::printf("%s\n", p.reason.c_str());
    }
    std::size_t n = problems->size();
    if (n) std::printf("%zu problem%s\n", n, n == 1 ? "" : "s");
    else std::printf("no problem found: the model loads and compiles\n");
    return n ? unsupported : ok;
}
}  // namespace cli
