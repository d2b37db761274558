#!/usr/bin/env bash
# Operators of com.microsoft agree with ONNX Runtime, or with its recorded answers where it is not installed.
needs_shared=no
. "$(dirname "$0")/env.sh"
python=$(find_python onnx,numpy,onnxruntime 2>/dev/null) || python=$(find_python onnx,numpy) || exit 77
"$python" "$here/contrib.py" "$1"
