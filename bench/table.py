#!/usr/bin/env python3
"""Results of bench_peers.py as a Markdown table: table.py RESULTS.json... [--work RESULTS.json...] [--roofline JSON JSON]. Ratios are the better
peer's figure by quern's, for loading ONNX Runtime's: above 1 quern is better. --work: results of runs back to back, whose processor time is the work itself; what the
runs of RESULTS take of it is listed."""
import argparse, glob, json, math


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def read(paths):
    results = {}
    for path in (p for pattern in paths for p in sorted(glob.glob(pattern))):
        with open(path) as f:
            results.update(json.load(f))
    return results


RUNNERS = ("ours", "ort", "openvino")
GETTERS = {"median": lambda x: x["median_ms"], "p99": lambda x: x["p99_ms"], "processor time": lambda x: x["cpu_ms"], "load": lambda x: x["load_ms"],  # of ONNX Runtime alone
           "load + first run": lambda x: x["load_ms"] + x["first_ms"], "memory": lambda x: x["peak_rss_mb"]}


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("results", nargs="+")
    ap.add_argument("--work", nargs="+", default=[])
    ap.add_argument("--roofline", nargs=2, default=[])
    a = ap.parse_args()
    results, work = read(a.results), read(a.work)
    for when, line in zip(("before", "after"), a.roofline):
        r = json.loads(line)
        print(f"Roofline {when}: {r['isa']}, {r['threads']} threads: {r['fma_gflops']:.0f} GFLOP/s of FMA, {r['read_gbs']:.0f} GB/s of reads.")
    head = ["model"] + [f"{what}: quern" if r == "ours" else {"ort": "ONNX Runtime", "openvino": "OpenVINO"}[r] for what in ("ms", "p99") for r in RUNNERS]
    head += list(GETTERS) + (["processor time by work: quern", "ONNX Runtime", "OpenVINO"] if work else []) + ["difference"]
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    columns = {k: [] for k in GETTERS}
    for name, entry in sorted(results.items()):
        ours = entry.get("ours", {})
        peers = [entry[p] for p in RUNNERS[1:] if "median_ms" in entry.get(p, {})]
        if "median_ms" not in ours or not peers:
            print(f"| {name} | {ours.get('error', 'no peer ran')} " + "| " * (len(head) - 2) + "|")
            continue
        cells = [f"{entry[r][k]:.2f}" if k in entry.get(r, {}) else "" for k in ("median_ms", "p99_ms") for r in RUNNERS]
        for what, get in GETTERS.items():
            others = [entry["ort"]] if what == "load" and "load_ms" in entry.get("ort", {}) else peers
            columns[what].append(min(map(get, others)) / get(ours))
            cells.append(f"{columns[what][-1]:.2f}")
        for r in RUNNERS if work else ():
            base = work.get(name, {}).get(r, {}).get("cpu_ms")
            cells.append(f"{entry[r]['cpu_ms'] / base:.2f}" if base and "cpu_ms" in entry.get(r, {}) else "")
        print("| " + " | ".join([name, *cells, f"{ours.get('difference') or 0:.0e}"]) + " |")
    blank = "| " * 6
    for what, f in (("geometric mean", geometric), ("worst", lambda v: min(v, default=float("nan")))):
        print(f"| {what} {blank}| " + " | ".join(f"{f(columns[k]):.3f}" for k in GETTERS) + " | " + "| " * (3 * bool(work)) + "|")


if __name__ == "__main__":
    main()
