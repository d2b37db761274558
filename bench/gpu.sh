#!/usr/bin/env bash
# Checks and times the CUDA backend on a machine with a GPU and no network.
#
#   bench/gpu.sh --pack [DIR]   on the machine that builds: gathers programs, zoo skeletons and ONNX's cases in DIR (.gpu), under 64 MiB
#   bench/gpu.sh [DIR]          on the machine with the GPU: runs everything; what comes out is under $OUT (default: DIR/out)
#
# GPU_PARTS chooses parts (default: info tests models conformance sanitizer kernels torch ort; also ptxas); GPU_SECONDS is the time for all of them
# (default 280). A part that fails or takes too long does not stop the next one. Needs there: a driver; python3 with numpy and
# onnx for models; PyTorch, and ONNX Runtime with its CUDA or TensorRT provider, for comparisons; compute-sanitizer for its part. What is missing is said and left out.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
started=$(date +%s)

pack() {
    set -e
    local dir=$1 shared=$root/../shared
    [ -d "$shared" ] || shared=$root/shared
    local build=${GPU_BUILD:-$root/build}  # configured with QUERN_CUDA and tests
    cmake --build "$build" --target quern_cli cuda_device_test
    rm -rf "$dir/bin" "$dir/lib" "$dir/zoo"
    mkdir -p "$dir/bin" "$dir/lib"
    strip -o "$dir/bin/quern" "$build/quern"
    strip -o "$dir/bin/cuda_device_test" "$build/tests/simt/cuda_device_test"
    ldd "$build/quern" "$build/tests/simt/cuda_device_test" | awk '/=> \// && !/libc\.so|libm\.so|libpthread|libdl\.so|librt\.so|ld-linux/ {print $3}' | sort -u |
        while read -r so; do strip -o "$dir/lib/$(basename "$so")" "$so"; done
    cp "$here/gpu.sh" "$here/gpu_models.py" "$here/ptxas.py" "$dir/"
    tar czf "$dir/sources.tar.gz" -C "$root" $(cd "$root" && find kernels include \( -name '*.hpp' -o -name '*.cu' -o -name '*.inc' \))
    cp -r "$shared/zoo" "$dir/zoo" && chmod -R u+w "$dir/zoo"
    cp -f "$shared/conformance/cases.tar.xz" "$dir/"
    chmod u+w "$dir/cases.tar.xz"
    git -C "$root" rev-parse --short HEAD >"$dir/commit"
    tar czf "$dir/programs.tar.gz" -C "$dir" bin lib
    rm -rf "$dir/bin" "$dir/lib"
    du -sh "$dir"
}

if [ "$1" = --pack ]; then
    pack "${2:-$root/.gpu}"
    exit
fi

dir=${1:-$root/.gpu}
[ -x "$dir/bin/quern" ] || tar xzf "$dir/programs.tar.gz" -C "$dir" || { echo "no programs in $dir: run bench/gpu.sh --pack where a toolkit is" >&2; exit 1; }
dir=$(cd "$dir" && pwd)
out=${OUT:-$dir/out}
export LD_LIBRARY_PATH=$dir/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
mkdir -p "$out"
work=$(mktemp -d)
parts=${GPU_PARTS:-info tests models conformance sanitizer kernels torch ort}
budget=${GPU_SECONDS:-280}
left() { echo $((budget - ($(date +%s) - started))); }
: >"$out/gpu.log"
rm -f "$out/results.jsonl"
# run NAME SECONDS COMMAND...: the output goes to the terminal, to $out/gpu.log and for the report to $work/NAME.log.
run() {
    local name=$1 limit=$2 rest
    shift 2
    rest=$(left)
    [ "$limit" -gt "$rest" ] && limit=$rest
    if [ "$limit" -lt 5 ]; then
        echo "== $name: left out, the time is used up"
        return
    fi
    echo "== $name (at $(($(date +%s) - started)) s, up to $limit s)"
    timeout -k 3 "$limit" "$@" 2>&1 | tee -a "$out/gpu.log" "$work/$name.log"
    local rc=${PIPESTATUS[0]}
    [ "$rc" = 124 ] || [ "$rc" = 137 ] && echo "== $name: stopped after $limit s"
    [ "$rc" = 0 ] || echo "== $name: exit $rc"
}
wants() { [[ " $parts " == *" $1 "* ]]; }
python=$(command -v python3)
# cuBLASLt and cuDNN are measured beside our own kernels where they are found: PyTorch's own first, which fit each other.
library=
for name in 'libcublasLt.so.1[23]' 'libcudnn.so.9'; do
    file=$(find $("$python" -c 'import sys; print(*[p for p in sys.path if p.endswith("-packages")])') /usr/local/cuda*/ /opt /usr/lib -name "$name" 2>/dev/null | head -1)
    library="$library${file:+ --library-dir $(dirname "$file")}"
done

info() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv,noheader
    echo "commit $(cat "$dir/commit"), $(nproc) cores, $(date -u +%F)"
    echo "libraries:${library:- none found}"
    "$python" -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version())'
}
conformance() {
    tar xf "$dir/cases.tar.xz" -C "$work" || return 1
    local log=$out/conformance.txt
    : >"$log"
    # A fault of a kernel ends its process's device context: 60 cases a process.
    find "$work" -name model.onnx -printf '%h\n' | sort | xargs -P 4 -n 60 sh -c '
        q=$1; shift; args=; for c; do args="$args --case $c"; done
        timeout 60 "$q" test --device cuda $args' sh "$dir/bin/quern" >>"$log" 2>&1
    echo "passed $(grep -c ': pass:' "$log"), with steps on the device $(grep ': pass:' "$log" | grep -vc ', 0 steps on the device'), unsupported $(grep -c ': unsupported:' "$log"), other $(grep -vc -e ': pass:' -e ': unsupported:' "$log")"
    grep -v -e ': pass:' -e ': unsupported:' "$log" | cut -c1-220 | head -40
}
sanitizer() {
    command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return; }
    local model=$(find "$work" -path '*test_softmax_large_number/model.onnx' | head -1)
    compute-sanitizer --tool memcheck --error-exitcode 9 "$dir/bin/cuda_device_test" --gtest_brief=1 --gtest_filter="${GPU_SANITIZE:-Softmax*:*Small*:*Ragged*}" | tail -8
    echo "memcheck of the kernel tests: exit ${PIPESTATUS[0]}"
    [ -z "$model" ] || compute-sanitizer --tool memcheck --error-exitcode 9 "$dir/bin/quern" test --device cuda --case "$(dirname "$model")" | tail -4
}
export -f info conformance sanitizer
export dir out work python library

wants info && run info 40 bash -c info
wants tests && run tests 90 "$dir/bin/cuda_device_test" --gtest_brief=1
if wants models || wants torch; then
    "$python" -c 'import numpy, onnx' 2>/dev/null || echo "no numpy or onnx: models are left out"
fi
wants models && run models "${GPU_MODELS_SECONDS:-150}" "$python" -u "$dir/gpu_models.py" models --bin "$dir/bin/quern" --zoo "$dir/zoo" --work "$work" --out "$out" $library ${GPU_MODELS:+--only "$GPU_MODELS"}
wants conformance && run conformance 60 bash -c conformance
wants sanitizer && run sanitizer 45 bash -c sanitizer
wants kernels && run kernels "${GPU_KERNELS_SECONDS:-60}" "$python" -u "$dir/gpu_models.py" kernels --bin "$dir/bin/quern" --work "$work" --out "$out" $library
if wants ptxas; then
    mkdir -p "$work/sources" && tar xzf "$dir/sources.tar.gz" -C "$work/sources" && run ptxas 120 "$python" -u "$dir/ptxas.py" --root "$work/sources" --out "$out/ptxas.md"
fi
wants torch && run torch 120 "$python" -u "$dir/gpu_models.py" torch --zoo "$dir/zoo" --out "$out" ${GPU_MODELS:+--only "$GPU_MODELS"}
if wants ort && "$python" -c 'import onnxruntime' 2>/dev/null; then
    run ort 100 "$python" -u "$dir/gpu_models.py" ort --zoo "$dir/zoo" --work "$work" --out "$out" ${GPU_MODELS:+--only "$GPU_MODELS"}
fi
"$python" "$dir/gpu_models.py" report --work "$work" --out "$out"
rm -rf "$work"
echo "== done in $(($(date +%s) - started)) s; results in $out"
