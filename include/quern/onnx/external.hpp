// Where tensors stored outside of the model file come from.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "../base/mapped_file.hpp"
#include "proto.hpp"

QUERN_BEGIN
namespace onnx {

/// External data of one model (https://onnx.ai/onnx/repo-docs/ExternalData.html).
///
/// Without a resolver, a location is a relative path in `dir`. Absolute paths, "..", empty or "." parts,
/// backslashes, drive letters and NUL are refused before the file system is touched. The file is then
/// opened part by part without following links; where a part is a symbolic link its target must lie in
/// `dir` or in `real_dir`, the folder of the file that the model's own path links to. This admits the
/// Hugging Face cache (model.onnx and model.onnx_data both link into ../../blobs) and nothing outside.
/// Only regular files are opened. Hard links cannot be told from files and are not refused.
///
/// With a resolver the file system is never touched.
struct External {
    std::string dir;
    std::string real_dir;
    std::function<std::string_view(std::string_view location)> resolver;
    /// Open files by location; shared with the tensors that view them.
    std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> files;

    /// For the model at `path`: `dir` and `real_dir` follow from it.
    QUERN_API static External beside(const std::string& path);

    struct Bytes {
        std::string_view bytes;
        std::shared_ptr<const void> owner;  ///< null: the resolver's
    };
    /// All bytes at `location`. Raises invalid_model for a location that is not allowed, io otherwise.
    QUERN_API Bytes open(std::string_view location);
    /// The part that `t`'s external_data (location, offset, length) names; offset and length are checked
    /// against the file. Raises as open().
    QUERN_API Bytes read(const TensorProto& t);
};

}  // namespace onnx
QUERN_END
