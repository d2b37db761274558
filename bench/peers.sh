#!/bin/bash
# bench/peers.sh [OPTIONS OF bench_peers.py]: quern beside ONNX Runtime and OpenVINO over the zoo, with the roofline of the same minutes. Writes
# bench/results/cpu-DATE.json and .md. Needs ../shared, a python with onnxruntime, openvino, onnx and numpy in PYTHON, and a build in BUILD.
set -e
here=$(cd "$(dirname "$0")" && pwd)
shared=${SHARED:-$here/../../shared} build=${BUILD:-$here/../build} python=${PYTHON:-python3} threads=${THREADS:-2}
out=$here/results/cpu-$(date +%Y-%m-%d)
mkdir -p "$here/results"
before=$("$build/bench/quern_roofline" "$threads")
"$python" "$shared/peers/bench_peers.py" --zoo "$shared/zoo/skel" --models "${MODELS:-/tmp/zoo}" --quern "$build/quern" \
    --runners ours,ort,openvino --threads "$threads" --rounds 5 --seconds 2 --out "$out.json" "$@"
after=$("$build/bench/quern_roofline" "$threads")
"$python" "$here/table.py" "$out.json" --roofline "$before" "$after" >"$out.md"
echo "$out.md"
