#!/usr/bin/env bash
# Builds and runs every test under the sanitizers: tests/sanitizers.sh [PRESET...], by default asan-ubsan and tsan; half an hour each on 2 cores.
# What needs its own programs without them (tests/consumer) is left out by CMake.
#
# - asan-ubsan: detect_stack_use_after_return stays off: g++ 12 gives vectors of 64 bytes on the fake stack an address that is no multiple
#   of 64 and stores to it with aligned moves (seen in kernels/vec at AVX-512).
# - tsan: without oneDNN, whose OpenMP runtime ThreadSanitizer does not know.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || set -- asan-ubsan tsan
args=()
command -v ninja >/dev/null && args+=(-G Ninja)
command -v ccache >/dev/null && args+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
failed=()
for preset in "$@"; do
    echo "#### $preset"
    [ -e "build/$preset/CMakeCache.txt" ] && cmake --preset "$preset" >/dev/null || cmake --preset "$preset" "${args[@]}" >/dev/null
    cmake --build --preset "$preset" --parallel "${QUERN_JOBS:-$(nproc)}"
    ctest --preset "$preset" || failed+=("$preset")
done
[ ${#failed[@]} -eq 0 ] || { echo "#### FAILED: ${failed[*]}"; exit 1; }
