#!/usr/bin/env python3
"""How far each model of the zoo is from the machine's limits, and where its time goes: gap.py --quern build/quern --roofline build/bench/quern_roofline.

Operations are those of the direct form of convolutions, products and recurrent cells (a fused multiply-add is two), counted by ONNX Runtime's
profile of the unoptimized model (its shapes); Winograd's method does with fewer and so can be over 100 %. Columns: the time that they take at the FMA
peak and that reading the weights once takes from memory (caches keep small models' weights: then it is no limit), both measured before and after; the median
of `quern bench`; the larger limit by the median; the operators that take most of the quickest of the profiled runs (`quern inspect --profile`).
Needs onnx, onnxruntime, numpy."""
import argparse, glob, json, math, os, re, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def operations(node, ins, outs):
    """FLOP of one node, from the shapes of its inputs and outputs."""
    size = math.prod
    if node in ("Conv", "ConvInteger"):
        return 2 * size(outs[0]) * size(ins[1][1:])
    if node == "ConvTranspose":
        return 2 * size(ins[0]) * size(ins[1][1:])
    if node == "MatMul":
        return 2 * size(outs[0]) * ins[0][-1]
    if node == "Gemm":
        return 2 * size(outs[0]) * size(ins[0]) // outs[0][0]
    if node in ("LSTM", "GRU", "RNN"):
        steps, batch = ins[0][:2]
        return 2 * steps * batch * (size(ins[1]) + size(ins[2]))
    return 0


def count(model, feeds):
    """(FLOP of a run, bytes of the weights)"""
    import onnx, onnxruntime as ort
    with tempfile.TemporaryDirectory() as tmp:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.enable_profiling = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, True
        options.profile_file_prefix, options.log_severity_level = os.path.join(tmp, "p"), 4
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights are missing in the profile
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, feeds)
        with open(session.end_profiling()) as f:
            events = json.load(f)
    shapes = lambda x: [next(iter(i.values())) for i in x]
    flop = sum(operations(a["op_name"], shapes(a["input_type_shape"]), shapes(a["output_type_shape"]))
               for a in (e.get("args", {}) for e in events if e.get("name", "").endswith("_kernel_time")) if a.get("output_type_shape"))
    graph = onnx.load(model).graph
    read = {i for n in graph.node if n.op_type not in ("Gather", "Constant") for i in n.input}  # rows of tables are not all read
    return flop, sum(4 * math.prod(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.name in read)


def ask(command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quern", default=f"{HERE}/../build/quern"); p.add_argument("--roofline", default=f"{HERE}/../build/bench/quern_roofline")
    p.add_argument("--shared", default=f"{HERE}/../../shared"); p.add_argument("--models", default="/tmp/zoo"); p.add_argument("--only", default="")
    p.add_argument("--threads", type=int, default=2); p.add_argument("--seconds", type=float, default=0.5)
    a = p.parse_args()
    sys.path[:0] = [os.path.join(a.shared, "zoo"), os.path.join(a.shared, "peers")]
    import bench_peers, materialize
    import numpy as np
    zoo, threads = os.path.join(a.shared, "zoo", "skel"), ["--threads", str(a.threads)]
    names = sorted(os.path.basename(f)[:-10] for f in glob.glob(f"{zoo}/*.skel.json"))
    limits, rows = [json.loads(ask([a.roofline, str(a.threads)]))], []
    for name in names:
        model = f"{a.models}/{name}.onnx"
        if (a.only and name not in a.only.split(",")) or re.search("int[48]|fp16", name) or not os.path.exists(model):
            continue
        with tempfile.TemporaryDirectory() as tmp:
            inputs, feeds = [], materialize.inputs(zoo, name, next(iter(materialize.meta(zoo, name)["variants"])))
            for n, x in feeds.items():
                np.save(f"{tmp}/{bench_peers.safe(n)}.npy", x)
                inputs += ["--input", f"{n}={tmp}/{bench_peers.safe(n)}.npy"]
            flop, weights = count(model, feeds)
            if not flop:
                continue
            median = json.loads(ask([a.quern, "bench", model, *inputs, *threads, "--seconds", str(a.seconds), "--json"]))["median_ms"]
            profile = ask([a.quern, "inspect", model, "--profile", *inputs, *threads])
        shares = {}
        for share, op in re.findall(r"us +([\d.]+) % +(\S+) by ", profile.split("by node:")[0]):
            shares[op] = shares.get(op, 0) + float(share)
        most = sorted(shares.items(), key=lambda x: -x[1])[:4]
        rows.append((name, flop, weights, median, ", ".join(f"{op} {s:.0f} %" for op, s in most if s >= 3)))
    limits.append(json.loads(ask([a.roofline, str(a.threads)])))
    peak, read = (max(x[k] for x in limits) for k in ("fma_gflops", "read_gbs"))
    print(f"{limits[0]['isa']}, {a.threads} threads: {', '.join('%.0f' % x['fma_gflops'] for x in limits)} GFLOP/s of FMA, "
          f"{', '.join('%.0f' % x['read_gbs'] for x in limits)} GB/s of reads (before, after)\n")
    print("| model | GFLOP | at the FMA peak, ms | weights, MB | from memory, ms | median, ms | limit/median | GFLOP/s | where the time goes |\n" + "|---" * 9 + "|")
    for name, flop, weights, median, where in rows:
        compute, memory = flop / peak / 1e6, weights / read / 1e6
        print(f"| {name} | {flop / 1e9:.2f} | {compute:.2f} | {weights / 1e6:.0f} | {memory:.2f} | {median:.2f} | {100 * max(compute, memory if weights > 64e6 else 0) / median:.0f} % | "
              f"{flop / median / 1e6:.0f} | {where} |")


if __name__ == "__main__":
    main()
