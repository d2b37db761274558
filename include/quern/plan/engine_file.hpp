// Engine files: the graph after all passes, packed weights and constants in one file that is mapped, not parsed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../base/mapped_file.hpp"
#include "../base/workers.hpp"
#include "../import/importer.hpp"
#include "plan.hpp"

QUERN_BEGIN

/// What an engine file says of the engine beside its graph.
struct EngineHeader {
    std::string made_by;      ///< quern's version; another one's files are refused
    std::string backends;     ///< names of what kernels were chosen from, best first, with commas
    Isa isa = Isa::baseline;  ///< kernels were chosen within it
    std::size_t taps = 0;     ///< the last outputs are taps
    std::vector<PlanPack> packs;
    std::vector<std::string> custom;  ///< operators of the application in the graph: domain::name; write_engine() finds them
};

/// The layout, all numbers little-endian:
///   0  "QUERNENG"   8  u32 format, u32 0   16  u64 size of the file   24  u64 offset and 32 u64 length of the header
///   40 u64 checksum of the header   48 u64 checksum of bytes 0 to 47   56 zeros
///   64 data: tensors and packed weights, each at a multiple of 4096 (64 if smaller than a page), then the graph as ONNX
/// The header is a protobuf message (its fields are named where it is read); among other things it has a checksum for every 4 MiB of data.
inline constexpr std::string_view engine_magic = "QUERNENG";

/// Writes the file under a temporary name and renames it. Constants that no step reads have their dims in it, not their data. Raises io.
QUERN_API void write_engine(const std::string& path, const Plan& plan, const EngineHeader& header);

struct EngineImage {
    EngineHeader header;
    std::shared_ptr<const CustomTable> custom;  // the model's nodes point into it
    Imported model;
    /// Zeros in place of the constants without data, as large as the largest: nothing may read them.
    std::shared_ptr<const MappedFile> blank;
};
/// Checks everything: sizes and offsets first, then (with `workers` beside each other) the checksums. Tensors view the file. Raises
/// invalid_model naming what is damaged, unsupported where `custom` lacks an operator that the graph needs. Without `verify` checksums are not
/// looked at (fuzzing).
QUERN_API EngineImage read_engine(std::shared_ptr<const MappedFile> file, Workers* workers, bool verify = true, const CustomOps& custom = {});

QUERN_END
