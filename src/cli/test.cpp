// quern test: an ONNX backend test case (model.onnx, test_data_set_*/input_*.pb, output_*.pb).
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "elements.hpp"
#include "io.hpp"

namespace cli {
namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Case {
    std::vector<std::string> input_names;  ///< empty: the model's own order
    std::vector<quern::Kind> output_kinds;  ///< empty: as the model says
    Tolerance tolerance;
};

static quern::Kind kind_named(const std::string& s) {
    using quern::Kind;
    for (auto [name, kind] : {std::pair{"sequence", Kind::sequence}, {"optional", Kind::optional}, {"map", Kind::map}})
        if (s == name) return kind;
    return Kind::tensor;
}
static Case read_case(const fs::path& dir) {
    Case c;
    if (!fs::exists(dir / "case.json")) return c;
    Json j = Json::parse(read_file((dir / "case.json").string()), nullptr, false);
    if (!j.is_object()) raise(ErrorCode::invalid_argument, "'" + (dir / "case.json").string() + "' is not a JSON object");
    c.tolerance.rtol = j.value("rtol", c.tolerance.rtol);
    c.tolerance.atol = j.value("atol", c.tolerance.atol);
    for (const Json& port : j.value("inputs", Json::array())) c.input_names.push_back(port.value("name", ""));
    for (const Json& port : j.value("outputs", Json::array())) c.output_kinds.push_back(kind_named(port.value("kind", "tensor")));
    return c;
}

static std::vector<fs::path> data_sets(const fs::path& dir) {
    std::vector<fs::path> sets;
    for (const auto& e : fs::directory_iterator(dir))
        if (e.is_directory() && e.path().filename().string().rfind("test_data_set_", 0) == 0) sets.push_back(e.path());
    std::sort(sets.begin(), sets.end());
    if (sets.empty()) raise(ErrorCode::invalid_argument, "'" + dir.string() + "' has no test_data_set_* folder");
    return sets;
}
static fs::path numbered(const fs::path& set, const char* stem, std::size_t i) {
    return set / (stem + std::to_string(i) + ".pb");
}

/// Empty, or the first difference.
static std::string run_set(const quern::Engine& engine, const Case& c, const fs::path& set, const fs::path& out) {
    quern::Session session(engine);
    for (std::size_t i = 0; fs::exists(numbered(set, "input_", i)); ++i) {
        if (c.input_names.empty() ? i >= engine.inputs().size() : i >= c.input_names.size())
            raise(ErrorCode::invalid_argument, "'" + set.string() + "' has more inputs than the model");
        std::string name = c.input_names.empty() ? engine.inputs()[i].name : c.input_names[i];
        session.bind(name, load_pb(numbered(set, "input_", i).string(), kind_of(engine.inputs(), name)));
    }
    session.run();
    if (!out.empty()) make_dir((out / set.filename()).string());
    for (std::size_t i = 0; i < engine.outputs().size(); ++i) {
        const std::string& name = engine.outputs()[i].name;
        const Value& got = session.output_value(name);
        const quern::Kind kind = i < c.output_kinds.size() ? c.output_kinds[i] : engine.outputs()[i].kind;
        if (!out.empty()) {
            save_pb(numbered(out / set.filename(), "output_", i).string(), name, got, kind);
            continue;
        }
        fs::path want = numbered(set, "output_", i);
        if (!fs::exists(want)) return "'" + want.string() + "' is missing";
        std::string why = difference(got, load_pb(want.string(), kind), c.tolerance);
        if (!why.empty()) return set.filename().string() + " output '" + name + "': " + why;
    }
    return "";
}

/// Contexts joined by commas: a reason is one line.
static std::string one_line(std::string s) {
    std::replace(s.begin(), s.end(), '\n', ' ');
    return s;
}

/// Prints one line: the verdict.
static int run_case(const Args& a, const std::string& dir, bool placement) {
    std::string where;
    try {
        Case c = read_case(dir);
        quern::Model model = quern::Model::load((fs::path(dir) / "model.onnx").string(), load_options(a));
        quern::Engine engine = model.compile(options(a));
        if (placement) {
            int on_device = 0;
            std::string plan = engine.describe();
            for (std::size_t p = 0; (p = plan.find(" on the device ->", p)) != std::string::npos; ++p) ++on_device;
            for (std::size_t p = 0; (p = plan.find(" by copy on the device ->", p)) != std::string::npos; ++p) --on_device;
            where = ", " + std::to_string(on_device) + " steps on the device";
        }
        auto sets = data_sets(dir);
        for (const fs::path& set : sets)
            if (std::string why = run_set(engine, c, set, a.out_dir); !why.empty()) {
                std::printf("%s%s\n", one_line(why).c_str(), where.c_str());
                return failed;
            }
        std::printf("%s: %zu data set%s%s\n", a.out_dir.empty() ? "pass" : "ran", sets.size(), sets.size() == 1 ? "" : "s", where.c_str());
        return ok;
    } catch (const quern::Error& e) {
        std::printf("%s%s\n", one_line(e.what()).c_str(), where.c_str());
        return e.code() == ErrorCode::unsupported ? unsupported : failed;
    }
}

int test(const Args& a) {
    if (a.case_dirs.size() == 1) return run_case(a, a.case_dirs[0], false);
    int worst = ok;
    for (const std::string& dir : a.case_dirs) {
        std::printf("%s: ", fs::path(dir).filename().string().c_str());
        int result = run_case(a, dir, a.device != "cpu");
        std::fflush(stdout);
        if (result == failed || worst == ok) worst = result;
    }
    return worst;
}
}  // namespace cli
