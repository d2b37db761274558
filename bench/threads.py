#!/usr/bin/env python3
"""Are answers the same bits for any number of threads? threads.py --quern build/quern [--only a,b] [--threads 1,2,3,16]: runs each model of the
zoo (../shared) with each number of threads and compares every output byte for byte. Exit code 1 where one differs."""
import argparse, filecmp, os, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quern", default=os.path.join(HERE, "..", "build", "quern")); ap.add_argument("--only", default="")
    ap.add_argument("--shared", default=os.path.join(HERE, "..", "..", "shared")); ap.add_argument("--models", default="/tmp/zoo")
    ap.add_argument("--threads", default="1,2,3,16"); ap.add_argument("--quern-args", default="")
    a = ap.parse_args()
    sys.path[:0] = [os.path.join(a.shared, "peers"), os.path.join(a.shared, "zoo")]
    import bench_peers, materialize
    import numpy as np
    zoo, only, differ, same = os.path.join(a.shared, "zoo", "skel"), set(filter(None, a.only.split(","))), [], 0
    counts = a.threads.split(",")
    for name in sorted(n[:-len(".skel.json")] for n in os.listdir(zoo) if n.endswith(".skel.json")):
        model = os.path.join(a.models, name + ".onnx")
        if (only and name not in only) or not os.path.exists(model):
            continue
        with tempfile.TemporaryDirectory() as tmp:
            feeds = []
            for n, x in materialize.inputs(zoo, name, next(iter(materialize.meta(zoo, name)["variants"]))).items():
                path = os.path.join(tmp, bench_peers.safe(n) + ".npy")
                np.save(path, x)
                feeds += ["--input", f"{n}={path}"]
            for t in counts:
                p = subprocess.run([a.quern, "run", model, *feeds, "--threads", t, "--output-dir", os.path.join(tmp, t), *a.quern_args.split()], capture_output=True, text=True)
                if p.returncode:
                    differ.append(f"{name}: {t} threads: {p.stderr.strip()}")
                    break
            else:
                files = sorted(os.listdir(os.path.join(tmp, counts[0])))
                bad = [f"{name}: {f}: {t} threads differ from {counts[0]}" for t in counts[1:] for f in files
                       if not filecmp.cmp(os.path.join(tmp, counts[0], f), os.path.join(tmp, t, f), shallow=False)]
                differ += bad or ([] if files else [f"{name}: no outputs"])
                same += bool(files) and not bad
    print(f"{same} models give the same bits with {', '.join(counts)} threads" + "".join("\n" + d for d in differ))
    return 1 if differ or not same else 0


if __name__ == "__main__":
    sys.exit(main())
