#!/usr/bin/env bash
# Fuzzes the loader, the compiler and the kernels with hostile models: tests/fuzz/run.sh SECONDS [SEED_FOLDER...]
# The same with hostile engine files: QUERN_FUZZ_TARGET=engine tests/fuzz/run.sh SECONDS
#
# Builds build-fuzz/ with clang, AddressSanitizer, UndefinedBehaviorSanitizer and libFuzzer (Debian: clang,
# libclang-rt-14-dev), portable kernels only. New inputs gather in build-fuzz/corpus (engines: build-fuzz/corpus-engine),
# findings in build-fuzz/findings; a finding is replayed with `build-fuzz/tests/fuzz/quern_fuzz FILE`
# (quern_fuzz_engine), and kept, once mended, in tests/fuzz/corpus: an engine file as the model it is of and a test
# of what was wrong in it, for the file itself is refused by the next version. Exits 1 on a finding.
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
case ${QUERN_FUZZ_TARGET:-model} in
    model) target=quern_fuzz corpus=$build/corpus ;;
    engine) target=quern_fuzz_engine corpus=$build/corpus-engine ;;
    *) echo "QUERN_FUZZ_TARGET is '$QUERN_FUZZ_TARGET'; accepted: model, engine" >&2; exit 2 ;;
esac
cmake --build "$build" --parallel "${QUERN_JOBS:-$(nproc)}" --target "$target"

mkdir -p "$corpus" "$build/findings"
export ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
seeds=$root/tests/fuzz/corpus
if [ "$target" = quern_fuzz_engine ]; then
    seeds=$build/seeds-engine
    rm -rf "$seeds"
    mkdir -p "$seeds"
    "$build/tests/fuzz/$target" --seeds "$seeds" "$root"/tests/fuzz/corpus/*.onnx
fi
exec "$build/tests/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -malloc_limit_mb=1024 -max_len=32768 \
    -print_final_stats=1 -artifact_prefix="$build/findings/" "$corpus" "$seeds" "$@"
