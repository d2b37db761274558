#!/usr/bin/env python3
"""Times Loop, Scan and sequences: quern against ONNX Runtime, in turn, one thread.

  control.py QUERN [--rounds 3] [--seconds 1] [--keep DIR]

Prints the median latency of each in milliseconds and their ratio (above 1: quern is faster); answers are compared first.
Needs python with numpy, onnx, onnxruntime.
"""
import argparse, os, re, statistics, subprocess, tempfile, time
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper

N, F, I, B = h.make_node, T.FLOAT, T.INT64, T.BOOL
vi = h.make_tensor_value_info


def const(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def loop_body(nodes, state, outs):
    return h.make_graph(nodes + [N("Identity", ["go"], ["on"])], "body", [vi("i", I, []), vi("go", B, [])] + state, [vi("on", B, [])] + outs)


def models():
    rng = np.random.default_rng(0)
    yield "1,000 additions of 16 floats", [
        N("Loop", ["n", "", "x"], ["y"], body=loop_body([N("Add", ["v", "x"], ["w"])], [vi("v", F, [16])], [vi("w", F, [16])]))], \
        [vi("x", F, [16])], [vi("y", F, [16])], [const("n", np.int64(1000))]
    yield "1,000 products of 64 floats, stacked", [
        N("Loop", ["n", "", "x"], ["y", "ys"], body=loop_body([N("Mul", ["v", "x"], ["w"]), N("Identity", ["w"], ["w2"])], [vi("v", F, [64])], [vi("w", F, [64]), vi("w2", F, [64])]))], \
        [vi("x", F, [64])], [vi("y", F, [64]), vi("ys", F, [1000, 64])], [const("n", np.int64(1000))]
    yield "a list grown 200 times by Concat", [
        N("Loop", ["n", "", "x"], ["y"], body=loop_body([N("Unsqueeze", ["i", "z"], ["one"]), N("Concat", ["v", "one"], ["w"], axis=0)], [vi("v", I, ["L"])], [vi("w", I, ["M"])]))], \
        [vi("x", I, [1])], [vi("y", I, ["K"])], [const("n", np.int64(200)), const("z", np.array([0], np.int64))]
    hidden = 64
    cell = h.make_graph([N("MatMul", ["xt", "W"], ["a"]), N("MatMul", ["ht", "R"], ["b"]), N("Add", ["a", "b"], ["s"]), N("Tanh", ["s"], ["h2"]), N("Identity", ["h2"], ["o"])], "cell",
                        [vi("ht", F, [1, hidden]), vi("xt", F, [1, hidden])], [vi("h2", F, [1, hidden]), vi("o", F, [1, hidden])])
    weights = [const(n, (rng.standard_normal((hidden, hidden)) / 8).astype(np.float32)) for n in "WR"]
    yield "Scan of a tanh cell, 128 steps of 64", [N("Scan", ["h0", "x"], ["hn", "y"], num_scan_inputs=1, body=cell)], \
        [vi("h0", F, [1, hidden]), vi("x", F, [128, 1, hidden])], [vi("hn", F, [1, hidden]), vi("y", F, [128, 1, hidden])], weights
    sequence = lambda name: h.make_tensor_sequence_value_info(name, F, None)
    yield "1,000 insertions of 256 floats, joined", [
        N("SequenceEmpty", [], ["e"]), N("Loop", ["n", "", "e"], ["l"], body=loop_body([N("SequenceInsert", ["sq", "x"], ["more"])], [sequence("sq")], [sequence("more")])),
        N("ConcatFromSequence", ["l"], ["y"], axis=0)], [vi("x", F, [256])], [vi("y", F, ["K"])], [const("n", np.int64(1000))]


def peer(session, feeds, seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        t = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - t)
    return statistics.median(times) * 1e3


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("quern")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--seconds", type=float, default=1)
    ap.add_argument("--keep")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = a.keep or tmp
        os.makedirs(folder, exist_ok=True)
        rng = np.random.default_rng(1)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for k, (name, nodes, inputs, outputs, weights) in enumerate(models()):
            path = os.path.join(folder, f"control{k}.onnx")
            onnx.save(h.make_model(h.make_graph(nodes, "control", inputs, outputs, weights), opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            feeds, args = {}, []
            for i in inputs:
                shape = [d.dim_value for d in i.type.tensor_type.shape.dim]
                feeds[i.name] = (rng.standard_normal(shape) * 0.1).astype(np.float32) if i.type.tensor_type.elem_type == F else np.zeros(shape, np.int64)
                np.save(os.path.join(folder, i.name + ".npy"), feeds[i.name])
                args += ["--input", i.name + "=" + os.path.join(folder, i.name + ".npy")]
            want = session.run(None, feeds)
            command = [a.quern, "bench", path, "--threads", "1", "--seconds", str(a.seconds), "--output-dir", folder] + args
            ours, theirs = [], []
            for _ in range(a.rounds):
                text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                ours.append(float(re.search(r"median +([0-9.]+) ms", text).group(1)))
                theirs.append(peer(session, feeds, a.seconds))
            for o, w in zip(outputs, want):
                np.testing.assert_allclose(np.load(os.path.join(folder, o.name + ".npy")), w, rtol=1e-4, atol=1e-5)
            print(f"{name:40s} quern {statistics.median(ours):8.3f} ms   ONNX Runtime {statistics.median(theirs):8.3f} ms   {statistics.median(theirs) / statistics.median(ours):6.2f}")


if __name__ == "__main__":
    main()
