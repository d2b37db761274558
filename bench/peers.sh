#!/bin/bash
# bench/peers.sh [TABLE...]: quern beside ONNX Runtime and OpenVINO over the zoo, as Markdown on stdout. Tables, all if none is named:
#   threads2 threads1 b8        speed, loading, memory, p99 with 2 threads, 1 thread, and batches of 8
#   hogs1 hogs2                 the same beside one and two spinning processes
#   pause                       requests 20 ms apart: processor time a run, and how much more than that of runs back to back (threads2)
# Each model is a file in WORK (bench/results/peers): what is there is not measured again, so a run that was cut off goes on; remove WORK to begin anew.
# ROUNDS (5), SECONDS_EACH (0.4), ONLY (models by comma), MODELS (/tmp/zoo), SHARED (../shared), PYTHON (with onnxruntime, openvino, onnx, numpy), BUILD.
# Model files are read once before they are timed: nobody pays for the disk. threads2 takes 10 to 12 minutes for 30 models.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
shared=${SHARED:-$here/../../shared} build=${BUILD:-$here/../build} python=${PYTHON:-python3} models=${MODELS:-/tmp/zoo}
work=${WORK:-$here/results/peers} rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-0.4}
# The f32 models; beside a neighbour and with pauses one of each kind is enough.
all=bert_base,clip_vit_b32_vision,convnext_tiny,densenet121,distilbert,efficientnet_b0,gpt2_kv,keras_mobilenet_v2,llama100m_kv,llama100m_kv_dynamo23,\
lraspp_mobilenet_v3_large,lstm_bi2,minilm_l6,mobilenet_v2,mobilenet_v3_large,mobilenet_v3_large_dynamo,resnet18,resnet50,shufflenet_v2_x1_0,squeezenet1_1,\
ssdlite320_mobilenet_v3_large,swin_t,swin_t_dynamo,t5_small_encoder,unet_small,vgg16,vit_b_16,whisper_tiny_decoder,whisper_tiny_encoder,whisper_tiny_encoder_dynamo
few=bert_base,mobilenet_v2,mobilenet_v3_large_dynamo,resnet50

measure() { # TABLE LIST OPTIONS...
    local table=$1 list=${ONLY:-$2} name part
    shift 2
    mkdir -p "$work/$table"
    for name in ${list//,/ }; do
        part=$work/$table/$name.json
        [ -s "$part" ] && continue
        [ -e "$models/$name.onnx" ] && cat "$models/$name.onnx" >/dev/null
        if "$python" "$shared/peers/bench_peers.py" --zoo "$shared/zoo/skel" --models "$models" --quern "$build/quern" --runners ours,ort,openvino \
            --rounds "$rounds" --seconds "$seconds" --only "$name" --out "$part.new" "$@" >"$part.log" 2>&1; then
            mv "$part.new" "$part"
        else
            echo "$table: $name failed, see $part.log" >&2
        fi
    done
}
[ $# -gt 0 ] || set -- threads2 threads1 b8 hogs1 hogs2 pause
for table; do
    case $table in
        threads2) measure threads2 $all --threads 2 ;;
        threads1) measure threads1 $all --threads 1 ;;
        b8) measure b8 $all --threads 2 --variant b8 ;;
        hogs1) measure hogs1 $few --threads 2 --hogs 1 ;;
        hogs2) measure hogs2 $few --threads 2 --hogs 2 ;;
        pause) measure pause $few --threads 2 --pause-ms 20 ;;
        *) sed -n 2,10p "$0" | cut -c3- >&2; exit 64 ;;
    esac
done
for table; do
    printf '\n### %s\n\n`bench/peers.sh %s`, %s rounds of %s s, %s, %s\n' "$table" "$table" "$rounds" "$seconds" "$(date '+%Y-%m-%d %H:%M')" \
        "$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo "no revision")"
    more=()
    [ "$table" != pause ] || more=(--work "$work"/threads2/*.json)
    "$python" "$here/table.py" "$work/$table"/*.json "${more[@]}"
done
