// What an engine is compiled for.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "executor.hpp"
#include "version.hpp"

QUERN_BEGIN

/// Instruction sets of x86-64, in order; `baseline` is what the compiler assumes without flags.
enum class Isa : std::uint8_t { baseline = 0, avx2 = 1, avx512 = 2 };
QUERN_API const char* isa_name(Isa) noexcept;
/// The best instruction set that this machine and this build have.
QUERN_API Isa best_isa() noexcept;

enum class LogLevel : std::uint8_t { debug, info, warning };
/// Receives one line without newline; called from the compiling thread, and from a running one where a library on the device refuses a call.
using LogCallback = std::function<void(LogLevel, std::string_view)>;

struct Backend;  // quern::cpu::backend(), quern::cuda::backend()

/// Everything has a default; aggregate, so designated initializers work: `{.threads = 2}`.
struct Options {
    /// "cpu"; "cuda" or "cuda:N": nodes that CUDA kernels accept run on that GPU, the others on the CPU.
    std::string device = "cpu";
    /// A node that would run on the CPU although a device was asked for is an error that names it and the reason.
    bool strict_device = false;
    /// With a device: inputs and outputs are device memory (cuda.hpp); only what nodes on the CPU read is copied, and run() waits for that alone.
    bool device_io = false;
    /// With a device: products of f32 may be rounded to TF32 (10 bits of mantissa), several times faster.
    bool tf32 = false;
    /// With a device: repeated runs of a shape are recorded once and replayed as a whole.
    bool device_graphs = true;
    /// Folders of optional libraries of a device (cuBLASLt), used where they are found there; "": the system's own search.
    std::vector<std::string> library_dirs;
    /// Threads of the engine's own pool, the calling one included; 0: as many as the process may use
    /// (cgroup and affinity respected); 1: no thread is ever made. Ignored with an executor.
    int threads = 0;
    std::shared_ptr<Executor> executor;
    /// Caps the instruction set, for reproducibility between machines.
    Isa isa = Isa::avx512;
    /// false: 3 x 3 convolutions are direct sums. Winograd's method takes a half to a third of the time; its relative error is some 3e-6 of
    /// the largest values in place of 1e-6, and infinities and NaN spread over blocks of 4 x 4 outputs.
    bool winograd = true;
    /// false: only the portable kernels.
    bool accelerated = true;
    /// Bytes that weights packed, activations and scratch may take; 0: no limit. Exceeding it is
    /// an out_of_memory error before the memory is taken.
    std::size_t memory_limit = 0;
    /// Seconds that one run may take; looked at between steps and before each tile of work; 0: no limit. deadline_exceeded then.
    double deadline = 0;
    /// Stops after the named optimization pass (for bisection); empty: all.
    std::string stop_after;
    bool optimize = true;
    /// ONNX names of values to keep readable after a run (Session::tap). Tapping may undo fusions of these.
    std::vector<std::string> taps;
    /// Backends by hand, best first; empty: all that were linked into quern::quern.
    std::vector<const Backend*> backends;
    /// Times the kernels that accept each node while compiling and keeps the fastest, also in Engine::save(). Dimensions that the inputs leave
    /// open are `tune_dims` by name, else 1. Without it nothing is timed and the choice is the same everywhere.
    bool tune = false;
    std::vector<std::pair<std::string, std::int64_t>> tune_dims;
    LogCallback log;
};

/// An ONNX function as the meaning of an operator, as `onnx.defs.get_schema(name).function_body` and model files hold them.
struct FunctionBody {
    std::string bytes;  ///< a serialized FunctionProto, which names its domain and operator; copied
    /// The opset of the operator's domain from which on this is its meaning. Models of an older opset do not use it; of several bodies that apply the
    /// newest counts.
    std::int64_t since = 0;
};

/// Limits on what a model file may make the loader do; all sizes are also bounded by the bytes present.
struct LoadOptions {
    /// Folder for external data; default: the model file's. Names may not leave it.
    std::string external_data_dir;
    /// Gives the bytes of an external data location instead of the file system; return an empty
    /// string_view when there is none. The bytes must outlive the model.
    std::function<std::string_view(std::string_view location)> resolver;
    std::size_t memory_limit = 0;
    LogCallback log;
    /// For operators that neither the model nor quern has, and for those that quern has in an older revision only than `since`.
    std::vector<FunctionBody> functions;
};

QUERN_END
