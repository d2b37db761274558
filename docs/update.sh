#!/usr/bin/env bash
# docs/operators.md from the operators of a build.   update.sh QUERN [--check: compares only]
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$1" ops --schemas "$here/onnx_schemas.txt" --reasons "$here/unsupported.txt" --kernels "$here/../kernels" --markdown >"$made" || exit 1
if [ "$2" = --check ]; then
    diff -u "$here/operators.md" "$made" && exit 0
    echo "docs/operators.md is not what the operators are: run docs/update.sh build/quern"
    exit 1
fi
cp "$made" "$here/operators.md"
