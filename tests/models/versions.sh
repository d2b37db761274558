#!/usr/bin/env bash
# The trained models, and ONNX's models of opset 9, answer as before when onnx's version converter makes them newest. QUERN_ZOO:
# a folder of further models.
. "$(dirname "$0")/env.sh"
python=$(find_python onnx,numpy) || exit 77
quern=$(readlink -f "$1")
dir=$PWD/conformance
mkdir -p "$dir"
[ -d "$dir/cases" ] || tar xf "$shared/conformance/cases.tar.xz" -C "$dir" || exit 1
"$python" "$here/versions.py" "$quern" "$shared/real" "$dir/cases/light" ${QUERN_ZOO:+"$QUERN_ZOO" --zoo "$shared/zoo" --limit 700}
