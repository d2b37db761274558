#!/usr/bin/env bash
# Operators of com.microsoft agree with ONNX Runtime, where it is installed.
. "$(dirname "$0")/env.sh"
python=$(find_python onnx,numpy,onnxruntime) || exit 77
"$python" "$here/contrib.py" "$1"
