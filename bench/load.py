#!/usr/bin/env python3
"""Loading and memory beside the peers: load.py --quern build/quern [--only a,b] [--out r.json]. For each model of the zoo, in turn and each in a
fresh process: quern from the ONNX file, quern from an engine file that `quern compile` wrote, ONNX Runtime, OpenVINO. The files are read once
before, so that nobody pays for the disk. Loading includes compiling; memory is VmHWM of a process that loads and runs six times.

Prints a Markdown table of ratios (above 1: quern is better) and what misses: loading against ONNX Runtime (2 asked, 5 with an engine file), loading
and first run against the better peer (1), peak memory against the better peer (1.43)."""
import argparse, json, math, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ASKED = {"load": 2.0, "engine": 5.0, "first": 1.0, "memory": 1 / 0.7}


def ratios(e):
    """The figures of one model, or None where a runner failed."""
    if any("error" in e.get(r, {"error": 1}) for r in ("ours", "engine", "ort")):
        return None
    peers = [e[p] for p in ("ort", "openvino") if p in e and "error" not in e[p]]
    first = lambda x: x["load_ms"] + x["first_ms"]
    return {"load": e["ort"]["load_ms"] / e["ours"]["load_ms"], "engine": e["ort"]["load_ms"] / e["engine"]["load_ms"],
            "first": min(map(first, peers)) / first(e["ours"]), "memory": min(p["peak_rss_mb"] for p in peers) / e["ours"]["peak_rss_mb"]}


def table(results):
    print("| model | quern, ms | engine file | ONNX Runtime | OpenVINO | ONNX Runtime/quern | ONNX Runtime/engine file | load + first run | "
          "memory, MB | engine file | ONNX Runtime | OpenVINO | best peer/quern | misses |")
    print("|---" * 14 + "|")
    columns = {k: [] for k in ASKED}
    for name, e in sorted(results.items()):
        r = ratios(e)
        if r is None:
            print(f"| {name} | " + "; ".join(f"{k}: {v['error']}" for k, v in e.items() if isinstance(v, dict) and "error" in v) + " |" * 12)
            continue
        for k in columns:
            columns[k].append(r[k])
        ms = [f"{e[p]['load_ms']:.0f}" if "load_ms" in e.get(p, {}) else "" for p in ("ours", "engine", "ort", "openvino")]
        mb = [f"{e[p]['peak_rss_mb']:.0f}" if "load_ms" in e.get(p, {}) else "" for p in ("ours", "engine", "ort", "openvino")]
        print("| " + " | ".join([name, *ms, f"{r['load']:.2f}", f"{r['engine']:.2f}", f"{r['first']:.2f}", *mb, f"{r['memory']:.2f}",
                                 " ".join(k for k in ASKED if r[k] < ASKED[k])]) + " |")
    geo = {k: math.exp(sum(map(math.log, v)) / len(v)) if v else float("nan") for k, v in columns.items()}
    for what, f in (("geometric mean", geo.get), ("worst", lambda k: min(columns[k], default=float("nan")))):
        print(f"| {what} | | | | | {f('load'):.2f} | {f('engine'):.2f} | {f('first'):.2f} | | | | | {f('memory'):.2f} | |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quern", default=os.path.join(HERE, "..", "build", "quern"))
    ap.add_argument("--shared", default=os.path.join(HERE, "..", "..", "shared")); ap.add_argument("--models", default="/tmp/zoo")
    ap.add_argument("--only", default=""); ap.add_argument("--runners", default="ours,engine,ort,openvino")
    ap.add_argument("--threads", type=int, default=2); ap.add_argument("--rounds", type=int, default=3); ap.add_argument("--out", default="")
    ap.add_argument("--table", help="print the table of an earlier --out and stop")
    a = ap.parse_args()
    if a.table:
        with open(a.table) as f:
            return table(json.load(f))
    sys.path[:0] = [os.path.join(a.shared, "peers"), os.path.join(a.shared, "zoo")]
    import bench_peers, materialize
    import numpy as np
    zoo = os.path.join(a.shared, "zoo", "skel")
    call = argparse.Namespace(quern=os.path.abspath(a.quern), threads=a.threads, seconds=0, pause_ms=0, quern_args="", peer_python=sys.executable,
                              precision="f32", hogs=0)
    only, results = set(filter(None, a.only.split(","))), {}
    for name in sorted(n[:-len(".skel.json")] for n in os.listdir(zoo) if n.endswith(".skel.json")):
        if only and name not in only:
            continue
        model, spec = os.path.join(a.models, name + ".onnx"), materialize.meta(zoo, name)
        if not os.path.exists(model):
            continue
        with tempfile.TemporaryDirectory() as tmp:
            feeds, variant, engine = {}, next(iter(spec["variants"])), os.path.join(tmp, "engine")
            for n, x in materialize.inputs(zoo, name, variant).items():
                feeds[n] = os.path.join(tmp, bench_peers.safe(n) + ".npy")
                np.save(feeds[n], x)
            with open(model, "rb") as f:
                while f.read(1 << 24):
                    pass
            made = subprocess.run([call.quern, "compile", model, "-o", engine, "--threads", str(a.threads)], capture_output=True, text=True)
            entry = {r: [] for r in a.runners.split(",")}
            out = {r: os.path.join(tmp, r + ".out") for r in entry}
            for _ in range(a.rounds):
                for r in entry:
                    if r == "engine" and made.returncode:
                        entry[r].append({"error": made.stderr.strip()[:200]})
                    else:
                        os.makedirs(out[r], exist_ok=True)
                        entry[r].append(bench_peers.run_one("ours" if r == "engine" else r, engine if r == "engine" else model, feeds, call, out[r], 180))
            bad = {r: [x for x in runs if "error" in x] for r, runs in entry.items()}
            results[name] = {r: bad[r][0] if bad[r] else {k: statistics.median(x[k] for x in runs) for k in runs[0]} for r, runs in entry.items()}
            if "engine" in entry and not bad["engine"] and not bad.get("ours", [1]):
                results[name]["engine"]["difference"] = bench_peers.difference(out["engine"], out["ours"])
        if a.out:
            with open(a.out, "w") as f:
                json.dump(results, f, indent=1)
    table(results)


if __name__ == "__main__":
    main()
