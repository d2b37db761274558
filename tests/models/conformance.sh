#!/usr/bin/env bash
# ONNX's official cases: at least as many pass as tests/models/conformance.count says.
. "$(dirname "$0")/env.sh"
python=$(find_python onnx,numpy,ml_dtypes) || exit 77
quern=$(readlink -f "$1")
dir=$PWD/conformance
mkdir -p "$dir"
[ -d "$dir/cases" ] || tar xf "$shared/conformance/cases.tar.xz" -C "$dir" || exit 1
"$python" "$shared/conformance/score.py" "$quern test" --check-outputs --cases "$dir/cases" --out "$dir/score.csv" >"$dir/score.log" 2>&1 ||
    { tail -20 "$dir/score.log"; exit 1; }
grep -E '^ALL' "$dir/score.log"
passed=$(grep -c ',pass,' "$dir/score.csv")
crashed=$(grep -c -E ',(crash|timeout),' "$dir/score.csv")
want=$(cat "$here/conformance.count")
echo "$passed passed, $want wanted, $crashed crashed or hung"
[ "$crashed" = 0 ] && [ "$passed" -ge "$want" ]
