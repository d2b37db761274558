// What the commands share: options, tensors from files and to files.
#pragma once
#include <quern/quern.hpp>

#include <string>
#include <vector>

#include "commands.hpp"

namespace cli {

quern::Options options(const Args&);
quern::LoadOptions load_options(const Args&);
/// The engine of Args::model, which may be an ONNX file or an engine file.
quern::Engine open_engine(const Args&);

/// The port's value from .npy (a tensor) or .pb (the message of its kind); for .npy, raw integers become the port's
/// type where NumPy has no such type.
quern::Value load_value(const std::string& path, const quern::PortInfo& port);
quern::Value load_pb(const std::string& path, quern::Kind kind);
void save_pb(const std::string& path, const std::string& name, const quern::Value&, quern::Kind kind);
quern::Kind kind_of(const std::vector<quern::PortInfo>& ports, const std::string& name);

/// The model's inputs in its order, from NAME=FILE; raises invalid_argument for an unknown name and,
/// unless `make_up`, for a missing one. Made-up floats are in [0, 1), everything else is 0.
std::vector<quern::NamedValue> gather_inputs(const std::vector<quern::PortInfo>& ports, const Args&, bool make_up);

/// "float[N, 3, ?]"
std::string port_text(const quern::PortInfo&);
/// NAME as a file name: letters, digits and ._- stay, all else becomes _.
std::string safe(const std::string& name);
/// Writes safe(NAME).npy, with a note on stderr where the file holds raw bits; what is no tensor goes to safe(NAME).pb.
void save_output(const std::string& dir, const std::string& name, const quern::Value&, quern::Kind kind);
void make_dir(const std::string& dir);
/// Splits NAME=FILE at the '=' whose left side is one of `known`, else at the first.
std::pair<std::string, std::string> split(const std::string& arg, const std::vector<quern::PortInfo>& known);
}  // namespace cli
