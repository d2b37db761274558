#!/usr/bin/env python3
"""Two builds of the quern tool on the same models, interleaved: bench/compare.sh calls this."""
import argparse, json, math, statistics, subprocess, sys


def measure(tool, model, options, seconds):
    p = subprocess.run([tool, "bench", model, "--json", "--seconds", str(seconds), *options], capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{tool} bench {model}: {p.stderr.strip()}")
    return json.loads(p.stdout.strip().splitlines()[-1])


def verdict(logs, least=0.01):
    """Median of log(change/base) over the rounds, three of its standard errors (from the median absolute deviation, so
    that one disturbed round does not widen it), and whether the difference counts."""
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in logs)
    noise = 3 * 1.2533 * spread / math.sqrt(len(logs))
    return middle, noise, abs(middle) > max(noise, math.log1p(least))


def main():
    args = sys.argv[1:]
    options = args[args.index("--") + 1:] if "--" in args else []
    args = args[:args.index("--")] if "--" in args else args
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument("--seconds", type=float, default=0.5)
    ap.add_argument("--metrics", default="median_ms,load_ms,first_ms,peak_rss_mb", help="of quern bench --json, with commas")
    ap.add_argument("base")
    ap.add_argument("change")
    ap.add_argument("models", nargs="+")
    a = ap.parse_args(args)
    slower = 0
    print(f"{'model':40s} {'metric':12s} {'base':>10s} {'change':>10s} {'change/base':>12s} {'noise':>8s}")
    for model in a.models:
        runs = {"base": [], "change": []}
        for r in range(a.rounds):  # base first in one round, last in the next: drift hits both alike
            for which in (("base", "change"), ("change", "base"))[r % 2]:
                runs[which].append(measure(getattr(a, which), model, options, a.seconds))
        for metric in a.metrics.split(","):
            base, change = ([x[metric] for x in runs[w]] for w in ("base", "change"))
            if min(base + change) <= 0:
                continue
            middle, noise, counts = verdict([math.log(c / b) for b, c in zip(base, change)])
            word = "" if not counts else "  SLOWER" if middle > 0 and metric.endswith("ms") else "  MORE" if middle > 0 else "  better"
            slower += counts and middle > 0
            print(f"{model.split('/')[-1]:40s} {metric:12s} {statistics.median(base):10.3f} {statistics.median(change):10.3f} "
                  f"{math.exp(middle):12.3f} {100 * noise:7.1f}%{word}", flush=True)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
