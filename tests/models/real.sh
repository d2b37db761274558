#!/usr/bin/env bash
# The trained models of ../shared/real answer as recorded. minilm is run where its weights were filled in
# (QUERN_MINILM: a folder with model.onnx and the cases).
. "$(dirname "$0")/env.sh"
python=$(find_python numpy) || exit 77
"$python" "$shared/real/check.py" --quern "$1" digits digits_qdq digits_qop magika num2words ocr_crnn ppocr_det silero_vad silero_vad_16k_op15
