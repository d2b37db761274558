#!/usr/bin/env python3
"""A model of 20 tiny nodes: what running costs beside the arithmetic. `overhead.py QUERN [THREADS]` (python with onnx, onnxruntime, numpy). The
peer is called with bound inputs and outputs, and the interpreter's share of that call is measured on an empty function and taken off."""
import json, statistics, subprocess, sys, tempfile, time, os

import numpy as np
import onnx
from onnx import TensorProto, helper


def model():
    nodes, last = [], "x"
    weights = []
    for i in range(5):
        w = np.random.default_rng(i).normal(size=(16, 16)).astype(np.float32) / 4
        weights.append(onnx.numpy_helper.from_array(w, f"w{i}"))
        weights.append(onnx.numpy_helper.from_array(w[0].copy(), f"b{i}"))
        for op, ins in (("MatMul", [last, f"w{i}"]), ("Add", [f"m{i}", f"b{i}"]), ("Sigmoid", [f"a{i}"]), ("Mul", [f"s{i}", last])):
            out = {"MatMul": f"m{i}", "Add": f"a{i}", "Sigmoid": f"s{i}", "Mul": f"y{i}"}[op]
            nodes.append(helper.make_node(op, ins, [out]))
        last = f"y{i}"
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16])
    graph = helper.make_graph(nodes, "tiny", [value("x")], [value(last)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    quern, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "tiny.onnx")
        onnx.save(model(), path)
        import onnxruntime as ort
        so = ort.SessionOptions()
        so.intra_op_num_threads = threads
        session = ort.InferenceSession(path, so, providers=["CPUExecutionProvider"])
        io = session.io_binding()
        io.bind_cpu_input("x", np.ones((1, 16), np.float32))
        io.bind_output(session.get_outputs()[0].name)

        def median(f, n=20000):
            times = []
            for _ in range(n):
                t = time.perf_counter()
                f()
                times.append(time.perf_counter() - t)
            return statistics.median(times) * 1e6
        ours, theirs = [], []
        empty = median(lambda: None)
        for _ in range(5):
            p = subprocess.run([quern, "bench", path, "--threads", str(threads), "--seconds", "0.5", "--json"], capture_output=True, text=True, check=True)
            ours.append(json.loads(p.stdout)["median_ms"] * 1e3)
            theirs.append(median(lambda: session.run_with_iobinding(io)) - empty)
    print(f"20 tiny nodes, {threads} threads: quern {statistics.median(ours):.2f} us, ONNX Runtime {statistics.median(theirs):.2f} us, "
          f"ratio {statistics.median(theirs) / statistics.median(ours):.2f}")


if __name__ == "__main__":
    main()
