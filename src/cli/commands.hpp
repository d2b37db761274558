// The arguments of all commands, and the commands.
#pragma once
#include <string>
#include <vector>

namespace cli {

enum Exit { ok = 0, failed = 1, unsupported = 2, usage = 64 };

struct Args {
    std::string model;
    std::vector<std::string> inputs;  ///< NAME=FILE
    std::vector<std::string> dims;    ///< SYMBOL=N, for inputs that are made up
    std::vector<std::string> taps;
    std::vector<std::string> functions;  ///< FILE or FILE@OPSET
    std::vector<std::string> case_dirs, library_dirs;
    std::string output_dir, out_dir, engine;
    std::string stage, save, trace, stop_after, external_data_dir;
    std::string isa = "best";
    int threads = 0;
    double seconds = 2, pause_ms = 0, idle = 0, deadline = 0;
    std::size_t memory_limit_mb = 0;
    bool no_winograd = false, portable = false, no_optimize = false, verbose = false;
    std::string device = "cpu";
    bool strict_device = false, no_device_graphs = false, tf32 = false;
    std::string schemas, reasons, kernels;
    bool markdown = false;
    bool tune = false;
    bool json = false, dot = false, profile = false;
};

int run(const Args&);
int bench(const Args&);
int compile(const Args&);
int test(const Args&);
int inspect(const Args&);
int check(const Args&);
int ops(const Args&);
}  // namespace cli
