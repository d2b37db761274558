#!/usr/bin/env python3
"""Times forests of decision trees: quern against ONNX Runtime, each in a process of its own, in turn.

  forest.py QUERN [--trees 500] [--threads 2] [--rounds 3] [--seconds 1] [--keep DIR]

Trains, at benchmark time, a random forest on scikit-learn's digits (1,797 rows of 64), a deeper one on drawn data (10,000 rows of 50), and a boosted regressor
like XGBoost's defaults. Prints the median latency of each, and their ratio (above 1: quern is faster), for a batch of 1 and of 1,000;
answers are compared first. Needs python with numpy, onnx, onnxruntime, scikit-learn, skl2onnx.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile
import numpy as np


def peer(path, feed, threads, seconds):
    import time, onnxruntime as ort
    so = ort.SessionOptions()
    so.intra_op_num_threads = threads
    s = ort.InferenceSession(path, so, providers=["CPUExecutionProvider"])
    x = np.load(feed)
    io = s.io_binding()
    io.bind_cpu_input("X", x)
    for o in s.get_outputs():
        io.bind_output(o.name)
    for _ in range(3):
        s.run_with_iobinding(io)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        t = time.perf_counter()
        s.run_with_iobinding(io)
        times.append(time.perf_counter() - t)
    print(statistics.median(times) * 1e3)


def make(folder, trees):
    from sklearn import datasets, ensemble
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    rng = np.random.default_rng(0)
    digits = datasets.load_digits()
    X = rng.normal(size=(10000, 50)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + 0.5 * rng.normal(size=len(X)))
    work = {
        "digits_classifier": (ensemble.RandomForestClassifier(trees, random_state=0, n_jobs=2), digits.data.astype(np.float32), digits.target),
        "deep_classifier": (ensemble.RandomForestClassifier(trees, random_state=0, n_jobs=2), X, (y > 0).astype(int) + (y > 1)),
        "boosted_regressor": (ensemble.GradientBoostingRegressor(n_estimators=trees, max_depth=6, subsample=0.2, max_features=8, random_state=0), X, y),
    }
    for name, (m, data, target) in work.items():
        path = os.path.join(folder, f"{name}_{trees}.onnx")
        if not os.path.exists(path):
            m.fit(data, target)
            onx = to_onnx(m, initial_types=[("X", FloatTensorType([None, data.shape[1]]))], options={id(m): {"zipmap": False}} if hasattr(m, "classes_") else None,
                          target_opset={"": 17, "ai.onnx.ml": 3})
            with open(path, "wb") as f:
                f.write(onx.SerializeToString())
            for batch in (1, 1000):
                np.save(os.path.join(folder, f"{name}_{batch}.npy"), data[:batch] + rng.normal(size=(batch, data.shape[1])).astype(np.float32) * 0.1)
        yield name, path


def main():
    if sys.argv[1] == "--peer":
        return peer(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    ap = argparse.ArgumentParser()
    ap.add_argument("quern")
    ap.add_argument("--trees", type=int, default=500)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--seconds", type=float, default=1)
    ap.add_argument("--keep")
    ap.add_argument("--make-only", action="store_true")
    args = ap.parse_args()
    folder = args.keep or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    print(f"{'forest':20} batch  quern ms   ort ms   ratio")
    for name, path in make(folder, args.trees):
        if args.make_only:
            continue
        import onnxruntime as ort
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (1, 1000):
            feed = os.path.join(folder, f"{name}_{batch}.npy")
            ours, theirs = [], []
            for _ in range(args.rounds):
                out = subprocess.run([args.quern, "bench", path, "--input", f"X={feed}", "--threads", str(args.threads), "--seconds", str(args.seconds),
                                      "--output-dir", folder, "--json"], capture_output=True, text=True, check=True).stdout
                ours.append(json.loads(out)["median_ms"])
                theirs.append(float(subprocess.run([sys.executable, __file__, "--peer", path, feed, str(args.threads), str(args.seconds)],
                                                   capture_output=True, text=True, check=True).stdout))
            for o, want in zip(session.get_outputs(), session.run(None, {"X": np.load(feed)})):
                got = np.load(os.path.join(folder, o.name + ".npy"))
                # Near ties of two classes may fall either way.
                fine = np.allclose(got, want, rtol=1e-4, atol=1e-5) if want.dtype.kind == "f" else np.mean(got != want) < 0.005
                if not fine:
                    print(f"{name}: {o.name} differs from ONNX Runtime's")
                    return 1
            a, b = statistics.median(ours), statistics.median(theirs)
            print(f"{name:20} {batch:5}  {a:8.4f}  {b:8.4f}  {b / a:6.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
