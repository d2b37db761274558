#!/usr/bin/env python3
"""Models and the same models converted to the newest opset by onnx's version converter give the same answer.

usage: versions.py QUERN MODEL.onnx ... | FOLDER ... [--limit MB] [--zoo DIR]

Folders are searched for .onnx files of at most --limit MB (default 60). --zoo: the folder of materialize.py, which gives models of its names inputs.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import version_converter


def models(paths, limit):
    for p in paths:
        if os.path.isfile(p):
            yield p
        for root, _, files in sorted(os.walk(p)):
            for f in sorted(files):
                path = os.path.join(root, f)
                if f.endswith(".onnx") and os.path.getsize(path) <= limit * 2**20:
                    yield path


def feeds_of(model, rng, fill):
    """Random inputs; what is not known of a shape becomes 1 in front and `fill` elsewhere."""
    feeds, held = {}, {t.name for t in model.graph.initializer}
    for i in model.graph.input:
        if i.name in held:
            continue
        t = i.type.tensor_type
        dims = [d.dim_value if d.dim_value > 0 else 1 if n == 0 else fill for n, d in enumerate(t.shape.dim)]
        kind = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        if kind.kind in "iub":
            feeds[i.name] = rng.integers(0, 2, dims).astype(kind)
        elif kind.kind == "f":
            feeds[i.name] = rng.standard_normal(dims).astype(kind)
        else:
            return None
    return feeds


def zoo_feeds(zoo, path):
    """The zoo's own inputs of the model; None where it is none of the zoo's."""
    name = os.path.splitext(os.path.basename(path))[0]
    if not zoo or not os.path.exists(os.path.join(zoo, "skel", name + ".skel.json")):
        return None
    sys.path.insert(0, zoo)
    import materialize
    return materialize.inputs(os.path.join(zoo, "skel"), name)


def run(quern, path, feeds, folder):
    args = []
    for n, (name, a) in enumerate(feeds.items()):
        np.save(os.path.join(folder, f"{n}.npy"), a)
        args += ["--input", f"{name}={folder}/{n}.npy"]
    out = os.path.join(folder, "out" + str(len(os.listdir(folder))))
    r = subprocess.run([quern, "run", path, *args, "--output-dir", out], capture_output=True, text=True, timeout=300)
    if r.returncode:
        return None, (r.stderr or r.stdout).strip().splitlines()[0][:200]
    # Sequences and maps are written as ONNX's messages: their bytes.
    load = lambda p: np.load(p) if p.endswith(".npy") else np.frombuffer(open(p, "rb").read(), np.uint8)
    return {f: load(os.path.join(out, f)) for f in sorted(os.listdir(out))}, ""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("quern")
    ap.add_argument("paths", nargs="+")
    ap.add_argument("--limit", type=float, default=60)
    ap.add_argument("--zoo", default="")
    a = ap.parse_args()
    quern, newest = a.quern, onnx.defs.onnx_opset_version()
    same = failed = skipped = 0
    for path in models(a.paths, a.limit):
        name = os.path.relpath(path, os.path.commonpath([os.path.abspath(p) for p in a.paths]) if len(a.paths) > 1 else os.path.dirname(os.path.abspath(path)))
        model = onnx.load(path)
        was = {o.domain: o.version for o in model.opset_import}.get("", 0)
        given = zoo_feeds(a.zoo, path)
        try:
            if not given and feeds_of(model, np.random.default_rng(3), 1) is None:
                raise RuntimeError("inputs of strings, sequences or maps")
            newer = version_converter.convert_version(model, newest)
        except Exception as e:
            print(f"skip {name} (opset {was}): {str(e).splitlines()[0][:120]}")
            skipped += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            for fill in (16, 64, 1, 576):  # sizes that some model needs
                feeds = given or feeds_of(model, np.random.default_rng(3), fill)
                before, why = run(quern, path, feeds, folder)
                if before is not None or given:
                    break
            if before is None:
                print(f"skip {name} (opset {was}): the model as it is: {why}")
                skipped += 1
                continue
            onnx.save(newer, os.path.join(folder, "newer.onnx"))
            after, why = run(quern, os.path.join(folder, "newer.onnx"), feeds, folder)
        if after is None:
            print(f"FAIL {name} (opset {was} to {newest}): {why}")
            failed += 1
            continue
        worst = 0.0
        for key, x in before.items():
            y = after.get(key)
            if y is None or x.shape != y.shape or x.dtype != y.dtype:
                worst = float("inf")
                break
            if x.size and x.dtype.kind in "fiub":
                x, y = x.astype(np.float64), y.astype(np.float64)
                both = np.isfinite(x) & np.isfinite(y)
                worst = max(worst, float((np.abs(x - y)[both]).max(initial=0) / max(1e-9, np.abs(x[both]).max(initial=0))), 0.0 if (np.isfinite(x) == np.isfinite(y)).all() else float("inf"))
        print(f"{'same' if worst <= 1e-5 else 'FAIL'} {name} (opset {was} to {newest}): {worst:.1e}", flush=True)
        same += worst <= 1e-5
        failed += worst > 1e-5
    print(f"{same} the same, {failed} not, {skipped} skipped")
    return 1 if failed or not same else 0


if __name__ == "__main__":
    sys.exit(main())
