#!/usr/bin/env bash
# Builds the library, the tool and the tests for AArch64 with Debian's cross compiler and runs them under QEMU's user mode (20 minutes on 2 cores; nothing about
# speed can be learnt so): unit tests, the README's program, the fuzz corpus, and the trained models where ../shared is there.
. "$(dirname "${BASH_SOURCE[0]}")/../../cmake/setup.sh"

build=${QUERN_BUILD_DIR:-build/aarch64}
QUERN_ONEDNN=OFF
install_packages g++-aarch64-linux-gnu qemu-user googletest
configure -DCMAKE_TOOLCHAIN_FILE=tests/aarch64/toolchain.cmake -DQUERN_CUDA=OFF -DQUERN_BUILD_TESTS=ON -DQUERN_BUILD_CLI=ON
build_targets quern_tests quern_cli quern_readme quern_fuzz_replay

emulated() { qemu-aarch64 -L /usr/aarch64-linux-gnu "$@"; }
say "testing"
emulated "$build/tests/quern_tests" --gtest_brief=1 --gtest_filter=-Hostile.FoldingDoesNotDoTheWorkOfHours "$@"  # which wants it done within a minute
emulated "$build/tests/readme/quern_readme" examples/models/digits.onnx
emulated "$build/tests/fuzz/quern_fuzz_replay" -n 2 tests/fuzz/corpus | tail -1
printf '#!/bin/sh\nexec qemu-aarch64 -L /usr/aarch64-linux-gnu "%s" "$@"\n' "$(readlink -f "$build/quern")" >"$build/quern.sh"
chmod +x "$build/quern.sh"
tests/models/real.sh "$(readlink -f "$build/quern.sh")" || [ $? = 77 ]
