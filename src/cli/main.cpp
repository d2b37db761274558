// quern: the command-line tool.
#include <CLI/CLI.hpp>
#include <quern/quern.hpp>

#include "commands.hpp"

namespace {
using cli::Args;

constexpr const char* footer = R"(Examples:
  quern check model.onnx                                      what would stop it from running
  quern run model.onnx --input image=cat.npy                  a summary of the outputs
  quern run model.onnx --input image=cat.npy --output-dir out one .npy for each output
  quern inspect model.onnx --stage plan                       chosen kernels, and why others were refused
  quern inspect model.onnx --profile --input image=cat.npy    time of each node
  quern bench model.onnx --input image=cat.npy --threads 2    latency, load time, memory
  quern compile model.onnx -o model.engine                    an engine file, for `run` and `bench`

Exit codes: 0 done (test: passed); 1 failed: bad input, bad model, an answer that differs;
2 the model needs something that quern does not implement; 64 wrong use of the command line.
`quern COMMAND --help` tells the options of a command. Errors go to stderr, one message each.)";

void model_options(CLI::App& c, Args& a, bool engines = false) {
    c.add_option("model", a.model, engines ? "The ONNX file, or an engine file of `quern compile`" : "The ONNX file")->required()->type_name("MODEL");
    c.add_option("--external-data-dir", a.external_data_dir, "Folder of external weights (default: the model's)")->type_name("DIR");
    c.add_option("--function", a.functions, "A serialized ONNX FunctionProto as the meaning of an operator that quern has not, or has as it was before OPSET; may be repeated")
        ->type_name("FILE[@OPSET]");
}
void engine_options(CLI::App& c, Args& a) {
    c.add_option("--threads", a.threads, "Threads; 0: as many as this process may use")->check(CLI::Range(0, 4096))->capture_default_str();
    c.add_option("--isa", a.isa, "Instructions to stay within")->check(CLI::IsMember({"baseline", "avx2", "avx512", "best"}))->capture_default_str();
    c.add_option("--device", a.device, "cpu, cuda or cuda:N")->capture_default_str();
    c.add_flag("--strict-device", a.strict_device, "Fail rather than run a node on the CPU that was meant for the device");
    c.add_flag("--no-device-graphs", a.no_device_graphs, "Do not record and replay runs of the same shapes on the device");
    c.add_option("--library-dir", a.library_dirs, "Folder of cuBLASLt, to be used on the device")->type_name("DIR");
    c.add_flag("--tf32", a.tf32, "Products of f32 on the device may be rounded to TF32");
    c.add_flag("--no-winograd", a.no_winograd, "3 x 3 convolutions as direct sums");
    c.add_flag("--portable", a.portable, "Only the portable kernels, nothing of oneDNN");
    c.add_flag("--no-optimize", a.no_optimize, "Skip the optimization passes");
    c.add_option("--stop-after", a.stop_after, "Stop after this optimization pass (for bisection)")->type_name("PASS");
    c.add_option("--memory-limit", a.memory_limit_mb, "Fail rather than take more than this for weights, activations and scratch; 0: no limit")->type_name("MB");
    c.add_option("--deadline", a.deadline, "Fail when one run takes longer; 0: no limit")->type_name("SECONDS");
    c.add_flag("-v,--verbose", a.verbose, "The library's log on stderr");
}
void input_option(CLI::App& c, Args& a, const char* missing) {
    c.add_option("--input,-i", a.inputs, std::string("An input from an .npy file or a .pb (TensorProto) file; again for each input. ") + missing)
        ->allow_extra_args(false)->type_name("NAME=FILE");
}
void dim_option(CLI::App& c, Args& a) {
    c.add_option("--dim", a.dims, "Size of a named dimension where inputs are made up (default 1)")->allow_extra_args(false)->type_name("NAME=N");
}

/// The commands, filling `a`; `chosen` is the one that was given.
void add_commands(CLI::App& app, Args& a, int (*&chosen)(const Args&)) {
    auto* run = app.add_subcommand("run", "Runs a model once; prints a summary of the outputs or writes them");
    model_options(*run, a, true), engine_options(*run, a), input_option(*run, a, "All inputs must be given.");
    run->add_option("--output-dir,-o", a.output_dir, "Writes NAME.npy for each output here (other than letters, digits and ._- in NAME become _; "
                    "bfloat16, float8: the raw bits)")->type_name("DIR");
    run->add_option("--tap", a.taps, "Also shows this value of the graph, by its ONNX name")->allow_extra_args(false)->type_name("NAME");
    run->callback([&] { chosen = cli::run; });

    auto* bench = app.add_subcommand("bench", "Measures load time, latency and memory of a model");
    model_options(*bench, a, true), engine_options(*bench, a), input_option(*bench, a, "What is not given is made up.");
    dim_option(*bench, a);
    bench->add_option("--seconds", a.seconds, "How long to measure; at least 3 runs")->capture_default_str();
    bench->add_option("--pause-ms", a.pause_ms, "Sleep between the runs")->capture_default_str();
    bench->add_option("--idle", a.idle, "Afterwards waits for this many seconds and tells what processor time the process used meanwhile")
        ->capture_default_str();
    bench->add_option("--output-dir,-o", a.output_dir, "Writes the outputs of the first run here")->type_name("DIR");
    bench->add_flag("--json", a.json, "One JSON object: load_ms (with compiling), first_ms, median_ms, min_ms, p99_ms, runs, cpu_ms (processor "
                    "time a run, pauses included), peak_rss_mb; with --idle: idle_cpu_ms, idle_seconds");
    bench->callback([&] { chosen = cli::bench; });

    auto* compile = app.add_subcommand("compile", "Writes a model as an engine file for this machine: it loads at once, its weights packed");
    model_options(*compile, a), engine_options(*compile, a), dim_option(*compile, a);
    compile->add_option("-o,--output", a.engine, "The engine file")->required()->type_name("FILE");
    compile->add_flag("--tune", a.tune, "Times the kernels that could do each node, and keeps the fastest");
    compile->callback([&] { chosen = cli::compile; });

    auto* test = app.add_subcommand("test", "Runs an ONNX backend test case: DIR/model.onnx on every DIR/test_data_set_*; tolerances from case.json "
                                    "if there; exit 0 passed, 1 failed, 2 unsupported");
    engine_options(*test, a);
    test->add_option("--case", a.case_dirs, "The folder of the case; several: one line each, and with --device how many steps ran on it")->required()->type_name("DIR");
    test->add_option("--out", a.out_dir, "Writes test_data_set_*/output_*.pb here instead of comparing")->type_name("DIR");
    test->callback([&] { chosen = cli::test; });

    auto* inspect = app.add_subcommand("inspect", "Shows a model's inputs, outputs and graph at any stage, its plan, or where its time goes");
    model_options(*inspect, a), engine_options(*inspect, a), input_option(*inspect, a, "For --profile; what is not given is made up.");
    dim_option(*inspect, a);
    inspect->add_option("--stage", a.stage, "import (default), a pass by name, final, or plan: kernels with the reasons of refusals")->type_name("STAGE");
    auto* json = inspect->add_flag("--json", a.json, "The graph as JSON");
    inspect->add_flag("--dot", a.dot, "The graph for Graphviz")->excludes(json);
    inspect->add_option("--save", a.save, "Writes the graph of the stage as an ONNX file")->type_name("FILE");
    inspect->add_flag("--profile", a.profile, "Runs the model and prints the time of each node in the quickest of five runs");
    inspect->add_option("--trace", a.trace, "As --profile, and writes Chrome trace JSON")->type_name("FILE");
    inspect->callback([&] { chosen = cli::inspect; });

    auto* check = app.add_subcommand("check", "Lists everything that keeps a model from running, at once; exit 0 nothing, 2 something");
    model_options(*check, a), engine_options(*check, a);
    check->callback([&] { chosen = cli::check; });

    auto* ops = app.add_subcommand("ops", "Lists the operators: domain, name, newest revision");
    ops->add_option("--schemas", a.schemas, "ONNX's own schemas (docs/onnx_schemas.txt): compares, and exits with 1 where an operator is neither supported at its newest revision nor listed")->type_name("FILE");
    ops->add_option("--reasons", a.reasons, "What is left out on purpose: lines DOMAIN;OPERATOR;REASON")->type_name("FILE");
    ops->add_option("--kernels", a.kernels, "The folder kernels/ of the sources: names the backends of each kernel")->type_name("DIR");
    ops->add_flag("--markdown", a.markdown, "The table of operators, revisions, types and kernels, by trying each");
    ops->add_flag("-v,--verbose", a.verbose, "Says which operators could not be tried, and why");
    ops->callback([&] { chosen = cli::ops; });
}
}  // namespace

int main(int argc, char** argv) {
    Args a;
    int (*chosen)(const Args&) = nullptr;
    CLI::App app{"quern runs ONNX models in this process: no Python, no protobuf, no server.", "quern"};
    app.footer(footer);
    quern::Version v = quern::library_version();
    app.set_version_flag("--version", "quern " + std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch));
    app.require_subcommand(1);
    add_commands(app, a, chosen);
    try {
        app.parse(argc, argv);
        return chosen(a);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? cli::ok : cli::usage;
    } catch (const quern::Error& e) {
        std::fprintf(stderr, "quern: %s\n", e.what());
        return e.code() == quern::ErrorCode::unsupported ? cli::unsupported : cli::failed;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "quern: %s\n", e.what());
        return cli::failed;
    }
}
