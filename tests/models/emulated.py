"""Models of the zoo on the emulated CUDA device against the CPU: how many steps are placed there, why others are not, how far the answers are.

  emulated.py --emulated build/quern-emulated --quern build/quern --zoo ../shared/zoo --work DIR [--only NAME,...]   needs onnx, numpy

Fails where an answer is further from the CPU's than the limit (relative to the largest value of the output), or a step that computes runs
on the host for a reason that is not listed here.
"""
import argparse, os, sys, time, types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench"))
import gpu_models

# name: model, dims of the inputs (None: the first variant), last value of a cut, limit, operators that may run on the host
CASES = {
    "squeezenet1_1": ("squeezenet1_1", None, None, 2e-5, ()),
    "mobilenet_v2": ("mobilenet_v2", None, None, 2e-5, ()),
    "mobilenet_v3_large": ("mobilenet_v3_large", None, None, 2e-5, ()),
    "shufflenet_v2_x1_0": ("shufflenet_v2_x1_0", None, None, 2e-5, ()),
    "minilm_l6 s32": ("minilm_l6", {"N": 1, "S": 32}, None, 2e-5, ()),
    "lstm_bi2 s32": ("lstm_bi2", {"N": 1, "S": 32}, None, 2e-5, ()),
    "bert, 2 layers, s32": ("bert_base", {"N": 1, "S": 32}, "/m/encoder/layer.1/output/LayerNorm/LayerNormalization_output_0", 2e-5, ()),
    # CPU: f32 between the operators; device: rounded after each, as the model says.
    "bert f16, 2 layers, s32": ("bert_base_fp16", {"N": 1, "S": 32}, "/m/encoder/layer.1/output/LayerNorm/LayerNormalization_output_0", 1e-2, ()),
    "gpt2 decode p128": ("gpt2_kv", "decode_p128", None, 2e-5, ()),
    "llama decode p128": ("llama100m_kv", "decode_p128", None, 2e-5, ()),
    # The boxes' number is data: suppression and what follows from it run on the host. Boxes whose scores tie may change places.
    "ssdlite320": ("ssdlite320_mobilenet_v3_large", None, None, 1e-3, ("NonMaxSuppression", "NonZero", "Shape", "TopK")),
}
HOST_IS_RIGHT = ("x Range: ",  # positions, made of sizes, which are the host's
                 "come from data", "too little work", "control flow", "a view of a value on the host")


def build(args, case, model, cut):
    import onnx
    z = gpu_models.zoo(args)
    path = f"{args.work}/{case.replace(' ', '_').replace(',', '')}.onnx"
    if not os.path.exists(path):
        m, _ = z.build(f"{args.zoo}/skel", model)
        if cut:
            known = {v.name for v in m.graph.value_info} | {o.name for o in m.graph.output}
            if cut not in known:
                m.graph.value_info.append(onnx.helper.make_tensor_value_info(cut, m.graph.output[0].type.tensor_type.elem_type, None))
            m = onnx.utils.Extractor(m).extract_model([i.name for i in m.graph.input], [cut])
        onnx.save(m, path)
    return path


def in_one_order(folder):
    """Detections sorted by label, then by box, where the folder holds some: the order among equal scores is free."""
    import numpy as np
    names = ("labels", "boxes", "scores")
    if not all(os.path.exists(f"{folder}/{n}.npy") for n in names):
        return
    labels, boxes, scores = (np.load(f"{folder}/{n}.npy") for n in names)
    order = np.lexsort([np.round(c) for c in boxes.T[::-1]] + [labels])
    for n, v in zip(names, (labels, boxes, scores)):
        np.save(f"{folder}/{n}.npy", v[order])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--emulated", required=True), p.add_argument("--quern", required=True), p.add_argument("--zoo", required=True)
    p.add_argument("--work", required=True), p.add_argument("--only")
    args = p.parse_args()
    os.makedirs(args.work, exist_ok=True)
    import numpy as np
    failed = []
    for case, (model, dims, cut, limit, allowed) in CASES.items():
        if args.only and not any(o in case for o in args.only.split(",")):
            continue
        path = build(args, case, model, cut)
        feeds = []
        for k, (key, value) in enumerate(gpu_models.zoo(args).inputs(f"{args.zoo}/skel", model, dims).items()):
            file = f"{path[:-5]}.{k}.npy"
            np.save(file, value)
            feeds += ["--input", f"{key}={file}"]
        want, got = path[:-5] + ".cpu", path[:-5] + ".cuda"
        out, why = gpu_models.call([args.quern, "run", path, *feeds, "--output-dir", want], 600)
        if out is None:
            failed.append(f"{case}: the CPU backend: {why}")
            print(failed[-1], flush=True)
            continue
        device, host, reasons = gpu_models.placement(types.SimpleNamespace(bin=args.emulated), path)
        begin = time.time()
        out, why = gpu_models.call([args.emulated, "run", path, *feeds, "--device", "cuda", "--output-dir", got], 3600)
        if out is None:
            failed.append(f"{case}: {why}")
            print(failed[-1], flush=True)
            continue
        in_one_order(got), in_one_order(want)
        err, what = gpu_models.difference(got, want)
        print(f"{case}: {device} steps on the device, {host} on the host, difference {err:.1e} (limit {limit:.0e}) {what}, {time.time() - begin:.0f} s", flush=True)
        for r in reasons:
            right = any(h in r for h in HOST_IS_RIGHT) or any(f" {op}: " in r for op in allowed)
            print(f"    host{'' if right else ', not expected'}: {r}", flush=True)
            if not right:
                failed.append(f"{case}: {r}")
        if not err <= limit:
            failed.append(f"{case}: difference {err:.1e}")
    print(f"{len(failed)} failures")
    for f in failed:
        print(f"  {f}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
