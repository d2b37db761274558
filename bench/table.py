#!/usr/bin/env python3
"""The results of bench_peers.py as a Markdown table: table.py RESULTS.json [--roofline JSON JSON]."""
import argparse, json, math


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("results")
    ap.add_argument("--roofline", nargs=2, default=[])
    a = ap.parse_args()
    with open(a.results) as f:
        results = json.load(f)
    for when, line in zip(("before", "after"), a.roofline):
        r = json.loads(line)
        print(f"Roofline {when}: {r['isa']}, {r['threads']} threads: {r['fma_gflops']:.0f} GFLOP/s of FMA, {r['read_gbs']:.0f} GB/s of reads.")
    print("\n| model | quern, ms | ONNX Runtime | OpenVINO | best peer/ours | load | load + first run | memory | p99 | difference |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    columns = {}
    for name, entry in sorted(results.items()):
        ours = entry.get("ours", {})
        peers = [entry[p] for p in ("ort", "openvino") if "median_ms" in entry.get(p, {})]
        if "median_ms" not in ours or not peers:
            print(f"| {name} | {ours.get('error', '')} | | | | | | | | |")
            continue

        def best(get):
            ratio = min(get(p) for p in peers) / get(ours)
            columns.setdefault(get, []).append(ratio)
            return f"{ratio:.2f}"
        ms = ["%.2f" % entry[p]["median_ms"] if "median_ms" in entry.get(p, {}) else "" for p in ("ours", "ort", "openvino")]
        print("| " + " | ".join([name, *ms, *(best(g) for g in getters), f"{ours.get('difference') or 0:.0e}"]) + " |")
    print("| geometric mean | | | | " + " | ".join(f"{geometric(columns.get(g, [])):.3f}" for g in getters) + " | |")
    print("| worst | | | | " + " | ".join(f"{min(columns.get(g, [0])):.3f}" for g in getters) + " | |")


getters = [lambda x: x["median_ms"], lambda x: x["load_ms"], lambda x: x["load_ms"] + x["first_ms"], lambda x: x["peak_rss_mb"], lambda x: x["p99_ms"]]

if __name__ == "__main__":
    main()
