#!/usr/bin/env bash
# Sets up, builds and runs the main job on real input: text read from images, handwritten digits,
# and, where the trained models that may not be committed lie in ../shared/real, speech in a recording and more.
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
real=${QUERN_REAL_MODELS:-../shared/real}
ex=$build/examples
in=examples/inputs
wrong=0

# expect ANSWER COMMAND...: runs it, shows what it prints, and says whether ANSWER is in it.
expect() {
    local want=$1 out
    shift
    printf '\n$ %s\n' "$*"
    out=$("$@") || { echo "$out"; echo "   ** failed"; wrong=1; return; }
    echo "$out"
    case $out in *"$want"*) ;; *) echo "   ** expected: $want"; wrong=1 ;; esac
}

install_packages
install_onednn
if [ -e "$build/CMakeCache.txt" ]; then configure; else configure -DQUERN_BUILD_TESTS=OFF; fi # the tests need more packages
build_targets quern_cli quern_examples

say "a line of text in an image (look at $in/*.png)"
expect HELLO "$ex/read_line" examples/models/ocr_crnn.onnx "$in/line_hello.png"
expect "TENSOR 42" "$ex/read_line" examples/models/ocr_crnn.onnx "$in/line_tensor42.png"
expect "QUERN READS 2026" "$ex/read_line" examples/models/ocr_crnn.onnx "$in/line_quern.png"
say "handwritten digits"
expect "2 0 4 9 4 1 2 4 6 7" "$ex/digits" examples/models/digits.onnx "$in/digits.png"

say "the same digits by a model with an operator of the program's own in it"
expect "digits: 2 0 4 9 4 1 2 4 6 7" "$ex/custom_op" examples/models/digits_strip.onnx "$in/digits.png"

say "models that this repository may not hold, from $real"
if [ -e "$real/silero_vad/model.onnx" ]; then
    expect "speech from 0.86 s to 4.00 s" "$ex/voice_activity" "$real/silero_vad/model.onnx" "$in/speech.wav"
else
    echo "voice_activity: no $real/silero_vad/model.onnx (see examples/README.md)"
fi
if [ -e "$real/magika/model.onnx" ]; then
    expect "png" "$ex/file_type" "$real/magika/model.onnx" "$real/magika/cases.json" "$in/digits.png" examples/run.sh README.md
else
    echo "file_type: no $real/magika/model.onnx"
fi
if [ -e "$real/minilm/model.onnx" ]; then
    expect "0.69" "$ex/sentence_similarity" "$real/minilm/model.onnx" "$in/sentences.txt"
else
    echo "sentence_similarity: no $real/minilm/model.onnx ($real/minilm/fill.py makes it)"
fi

if [ $wrong = 0 ]; then say "all answers are as expected"; else say "some answers are NOT as expected (marked **)"; fi
exit $wrong
