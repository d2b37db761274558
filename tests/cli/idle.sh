#!/bin/sh
# No processor time once runs are over: 10 s after some runs on three threads, at most 5 ms.   idle.sh QUERN SOURCE
out=$("$1" bench "$2/examples/models/digits.onnx" --dim n=512 --threads 3 --seconds 0.2 --idle 10 --json) || exit 1
printf '%s\n' "$out" | sed -n 's/.*"idle_cpu_ms":\([0-9.e-]*\).*/\1/p' | awk '{ seen = 1; if ($1 > 5) { print "idle for 10 s, and used " $1 " ms"; failed = 1 } } END { exit !seen || failed }'
