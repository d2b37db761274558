#!/usr/bin/env bash
# Fuzzes the loader, the compiler and the kernels with hostile models: tests/fuzz/run.sh SECONDS [SEED_FOLDER...]
#
# Builds build-fuzz/ with clang, AddressSanitizer, UndefinedBehaviorSanitizer and libFuzzer (Debian: clang,
# libclang-rt-14-dev), portable kernels only. New inputs gather in build-fuzz/corpus, findings in
# build-fuzz/findings; a finding is replayed with `build-fuzz/tests/fuzz/quern_fuzz FILE`, and kept, once
# mended, in tests/fuzz/corpus. Exits 1 on a finding.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [SEED_FOLDER...]}
shift
build=${QUERN_BUILD_DIR:-$root/build-fuzz}
cxx=${CLANGXX:-clang++}

args=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -gline-tables-only" -DQUERN_SANITIZE=address,undefined,fuzzer-no-link
      -DQUERN_FUZZ=ON -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=12 -DQUERN_ONEDNN=OFF -DQUERN_CUDA=OFF -DQUERN_BUILD_CLI=OFF -DQUERN_BUILD_EXAMPLES=OFF -DQUERN_INSTALL=OFF)
if [ ! -e "$build/CMakeCache.txt" ]; then
    args+=("-DCMAKE_CXX_COMPILER=$cxx")
    command -v ninja >/dev/null && args+=(-G Ninja)
    command -v ccache >/dev/null && args+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
cmake -S "$root" -B "$build" "${args[@]}" >/dev/null
cmake --build "$build" --parallel "${QUERN_JOBS:-$(nproc)}" --target quern_fuzz

mkdir -p "$build/corpus" "$build/findings"
export ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
exec "$build/tests/fuzz/quern_fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -malloc_limit_mb=1024 -max_len=32768 \
    -print_final_stats=1 -artifact_prefix="$build/findings/" "$build/corpus" "$root/tests/fuzz/corpus" "$@"
