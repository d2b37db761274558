#!/usr/bin/env python3
"""onnx_schemas.txt: what ONNX's own schemas say of each operator, in one line, for `quern ops` and the test that compares.

  make_schemas.py > onnx_schemas.txt        (needs the onnx package)

Facts (names, numbers, types) taken from the onnx package, which is Apache-2.0 (https://github.com/onnx/onnx); nothing of its text.
"""
import onnx
from onnx import defs

short = {"tensor(": "", ")": ""}
sets = {}


def name_of(types):
    """A name for a set of types; sequences and the like keep their full names."""
    key = ",".join(t[7:-1] if t.startswith("tensor(") else t.replace(" ", "") for t in sorted(types))
    return sets.setdefault(key, f"t{len(sets)}")


domains = ("", "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.preview")
since = {}
for s in defs.get_all_schemas_with_history():
    if s.domain in domains:
        since.setdefault((s.domain, s.name), {})[s.since_version] = s
lines = []
for (domain, name), versions in sorted(since.items()):
    s = versions[max(versions)]
    option = {defs.OpSchema.FormalParameterOption.Optional: "?", defs.OpSchema.FormalParameterOption.Variadic: "*"}
    ports = [" ".join((p.type_str if not p.type_str.startswith("tensor(") else p.type_str[7:-1]).replace(" ", "") + option.get(p.option, "") for p in side)
             for side in (s.inputs, s.outputs)]
    constraints = " ".join(f"{c.type_param_str}={name_of(c.allowed_type_strs)}" for c in s.type_constraints)
    needed = " ".join(f"{a.name}:{a.type.name}" for a in sorted(s.attributes.values(), key=lambda a: a.name) if a.required)
    kind = "deprecated" if s.deprecated else "function" if s.has_function or s.has_context_dependent_function else ""
    lines.append(";".join([domain or "ai.onnx", name, ",".join(map(str, sorted(versions))), ports[0], ports[1], constraints, needed, kind]))
print(f"# onnx {onnx.__version__}; made by make_schemas.py; facts of the onnx package, Apache-2.0")
print("# element types: datatype;number;name   types: name;types   then   domain;operator;revisions;inputs;outputs;type variables;required attributes;deprecated or function")
for name, number in sorted(onnx.TensorProto.DataType.items(), key=lambda i: i[1]):
    if number:
        print(f"datatype;{number};{({'FLOAT': 'float', 'DOUBLE': 'double', 'BOOL': 'bool'}).get(name, name.lower())}")
for key, n in sets.items():
    print(f"{n};{key}")
print("\n".join(lines))
