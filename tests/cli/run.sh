#!/bin/sh
# The tool's contract: exit codes, where messages go, files that are written.   run.sh QUERN SOURCE WORK
quern=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
failed=0
# expect CODE PATTERN COMMAND...: the exit code, and a pattern in what it prints on both streams.
expect() {
    code=$1 pattern=$2
    shift 2
    out=$("$@" 2>&1)
    got=$?
    if [ $got != "$code" ] || { [ -n "$pattern" ] && ! printf '%s' "$out" | grep -q -- "$pattern"; }; then
        printf 'FAILED: %s\n  exit %s, expected %s with "%s"\n%s\n' "$*" $got "$code" "$pattern" "$out"
        failed=1
    fi
}
model=$source/examples/models/digits.onnx
# Two blank 8x8 images.
{ printf '\223NUMPY\001\000\166\000'; printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }"; head -c 512 /dev/zero; } >image.npy

expect 0 '^quern 0\.' "$quern" --version
expect 0 'inspect' "$quern" --help
for command in run bench test inspect check; do expect 0 'Options' "$quern" $command --help; done
expect 64 'subcommand' "$quern"
expect 64 'isa' "$quern" run "$model" --isa mmx
expect 0 'prob: float\[2, 10\]' "$quern" run "$model" --input image=image.npy
expect 0 '' "$quern" run "$model" --input image=image.npy --output-dir out --threads 1 --portable --isa baseline
[ "$(wc -c <out/prob.npy)" = 208 ] || { echo "FAILED: out/prob.npy is not 2x10 floats"; failed=1; }
expect 1 "cannot read" "$quern" run "$model" --input image=missing.npy
expect 1 "has no input 'x'" "$quern" run "$model" --input x=image.npy
expect 1 "was not given" "$quern" run "$model"
expect 1 "io" "$quern" run missing.onnx
expect 1 "invalid_model" "$quern" run image.npy
expect 0 '"median_ms":' "$quern" bench "$model" --input image=image.npy --seconds 0 --json --threads 1 --output-dir bench
expect 0 '"idle_cpu_ms":' "$quern" bench "$model" --input image=image.npy --seconds 0 --json --idle 0.01
[ -s bench/prob.npy ] || { echo "FAILED: no bench/prob.npy"; failed=1; }
expect 0 'image' "$quern" inspect "$model"
expect 0 'digraph' "$quern" inspect "$model" --dot
expect 0 '^{' "$quern" inspect "$model" --stage final --json
expect 0 'matmul\|gemm\|conv' "$quern" inspect "$model" --stage plan
expect 0 '' "$quern" inspect "$model" --profile --dim n=4 --trace trace.json
grep -q '"ph"' trace.json || { echo "FAILED: no Chrome trace"; failed=1; }
expect 0 '' "$quern" inspect "$model" --stage import --save saved.onnx
expect 0 'prob: float\[2, 10\]' "$quern" run saved.onnx --input image=image.npy
expect 0 'no problem' "$quern" check "$model"
# A model of one node whose operator is a function that comes along: FunctionProto w = v + v, and the ModelProto.
printf '\012\005Twice\042\001v\052\001w\072\016\012\001v\012\001v\022\001w\042\003AddJ\004\012\000\020\024R\001d' >twice.pb
printf '\010\012\022\000\0727\012\020\012\001x\022\001y\042\005Twice\072\001d\022\001gZ\017\012\001x\022\012\012\010\010\001\022\004\012\002\010\002b\017\012\001y\022\012\012\010\010\001\022\004\012\002\010\002B\004\012\000\020\024B\005\012\001d\020\001' >twice.onnx
{ printf '\223NUMPY\001\000\166\000'; printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"; head -c 8 /dev/zero; } >two.npy
expect 2 'd::Twice is not implemented' "$quern" check twice.onnx
expect 0 'no problem' "$quern" check twice.onnx --function twice.pb
expect 0 'y: float\[2\]' "$quern" run twice.onnx --function twice.pb@1 --input x=two.npy
expect 2 'since opset 2' "$quern" run twice.onnx --function twice.pb@2 --input x=two.npy
mkdir -p case/test_data_set_0 && cp "$model" case/model.onnx
# TensorProto: dims 1,1,8,8; data_type 1; 256 bytes of raw_data.
{ printf '\010\001\010\001\010\010\010\010\020\001\112\200\002'; head -c 256 /dev/zero; } >case/test_data_set_0/input_0.pb
expect 1 'missing' "$quern" test --case case
expect 0 'ran' "$quern" test --case case --out made
cp made/test_data_set_0/output_0.pb case/test_data_set_0/
expect 0 'pass' "$quern" test --case case
cp case/test_data_set_0/input_0.pb case/test_data_set_0/output_0.pb
expect 1 'expected float' "$quern" test --case case
[ -z "$("$quern" run "$model" --input image=image.npy --output-dir out 2>&1)" ] || { echo "FAILED: not quiet in a pipe"; failed=1; }
exit $failed
