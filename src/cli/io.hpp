// What the commands share: options, tensors from files and to files.
#pragma once
#include <quern/quern.hpp>

#include <string>
#include <vector>

#include "commands.hpp"

namespace cli {

quern::Options options(const Args&);
quern::LoadOptions load_options(const Args&);

/// A tensor from .npy or .pb (TensorProto); for .npy, given the port, raw integers become the port's
/// type where NumPy has no such type.
quern::Tensor load_tensor(const std::string& path, const quern::PortInfo* port = nullptr);
quern::Tensor load_pb(const std::string& path);
void save_pb(const std::string& path, const std::string& name, const quern::Tensor&);

/// The model's inputs in its order, from NAME=FILE; raises invalid_argument for an unknown name and,
/// unless `make_up`, for a missing one. Made-up floats are in [0, 1), everything else is 0.
std::vector<quern::NamedTensor> gather_inputs(const std::vector<quern::PortInfo>& ports, const Args&, bool make_up);

/// "float[N, 3, ?]"
std::string port_text(const quern::PortInfo&);
/// NAME as a file name: letters, digits and ._- stay, all else becomes _.
std::string safe(const std::string& name);
/// Writes safe(NAME).npy, with a note on stderr where the file holds raw bits.
void save_output(const std::string& dir, const std::string& name, const quern::Tensor&);
void make_dir(const std::string& dir);
/// Splits NAME=FILE at the '=' whose left side is one of `known`, else at the first.
std::pair<std::string, std::string> split(const std::string& arg, const std::vector<quern::PortInfo>& known);
}  // namespace cli
