#!/usr/bin/env bash
# What the CUDA backend costs a build: the time to compile and link it for sm_80, sm_90, sm_100 and sm_120 (with PTX of the last),
# and what it adds to a stripped, static executable (the tool; only oneDNN, where it is found, stays a shared library).
#   bench/cuda_build.sh [FOLDER]     FOLDER: where it builds; kept if named
# Kernels are compiled anew, all else may come from ccache. JOBS=N builds at once (the machine's processors).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
architectures="80-real;90-real;100-real;120"
jobs=${JOBS:-$(nproc)}
if [ $# -gt 0 ]; then
    out=$1
    mkdir -p "$out"
else
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
prefix=$(ls -d "$root"/.deps/onednn "$root"/.deps/onednn/local 2>/dev/null | paste -sd ';') || true
configure() {  # folder, value of QUERN_CUDA
    cmake -S "$root" -B "$out/$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DQUERN_BUILD_TESTS=OFF -DQUERN_BUILD_CLI=ON \
        -DQUERN_CUDA="$2" "-DCMAKE_CUDA_ARCHITECTURES=$architectures" "-DCMAKE_PREFIX_PATH=$prefix" >"$out/$1.log"
}
configure with ON
configure without OFF
ninja -C "$out/with" -t clean quern_cuda_objects >/dev/null
load=$(cut -d' ' -f1 /proc/loadavg)
begin=$(date +%s)
CCACHE_DISABLE=1 ninja -C "$out/with" -j"$jobs" quern_cuda_objects >"$out/kernels.log"
compiled=$(date +%s)
ninja -C "$out/without" -j"$jobs" quern_cli >"$out/without.log"
ninja -C "$out/with" -j"$jobs" quern_cli >"$out/with.log"
rm -f "$out/with/quern"
linking=$(date +%s)
ninja -C "$out/with" quern_cli >>"$out/with.log"
linked=$(date +%s)
bytes() { strip -s -o "$out/$1.stripped" "$out/$1/quern" && stat -c %s "$out/$1.stripped"; }
section() { size -A "$out/with.stripped" | awk -v s="$1" '$1 == s { n = $2 } END { print n + 0 }'; }
with=$(bytes with)
without=$(bytes without)
nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$out/with/CMakeCache.txt")
echo "commit $(git -C "$root" rev-parse --short HEAD), $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p'), $jobs jobs on $(nproc) processors, load $load before"
echo "kernels for $architectures: $((compiled - begin)) s to compile; the executable: $((linked - linking)) s to link"
echo "stripped static executable: $without bytes without the backend, $with with it: $(((with - without) / 1024)) KiB more, of which device code $(($(section .nv_fatbin) / 1024)) KiB"
