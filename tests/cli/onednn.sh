#!/bin/sh
# oneDNN is opened by models that need it and by no others: onednn.sh QUERN SOURCE (glibc's loader tells what it opens).
quern=$1 models=$2/examples/models
opened() { LD_DEBUG=files "$quern" inspect "$models/$1" --profile --dim n=1 --isa avx2 2>&1 | grep -c 'file=libdnnl'; }
if [ "$(opened digits.onnx)" = 0 ]; then echo "FAILED: digits.onnx has depthwise convolutions (by oneDNN within AVX2), but oneDNN was not opened"; exit 1; fi
if [ "$(opened digits_qdq.onnx)" != 0 ]; then echo "FAILED: digits_qdq.onnx needs no oneDNN, but it was opened"; exit 1; fi
