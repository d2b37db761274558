"""What nvcc makes of the CUDA kernels: registers, spills and shared memory by kernel and architecture, and whether the instructions
that sources ask for are there.

  ptxas.py [--root DIR] [--nvcc nvcc] [--arch 80,90,100,120] [--jobs N] [--out FILE.md] [--allow FILE]

Fails (exit 1) where a kernel spills registers or an instruction is missing. --allow names a file of kernels (one a line, as the table
shows them, with the reason behind a #) that may spill.
"""
import argparse, concurrent.futures, glob, os, re, subprocess, sys, tempfile

# What a source names, and what its PTX must then hold.
CLAIMS = [("cp_async", r"cp\.async"), ("mma_", r"mma\.sync"), ("ldmatrix", r"ldmatrix"), (r"load4|load_pack", r"ld\.global(\.nc)?(\.L1::\w+)?\.v4"), (r"store4|store_pack", r"st\.global\.v4")]


def compile_one(args, include, source, arch, ptx):
    with tempfile.TemporaryDirectory() as tmp:
        out = f"{tmp}/out"
        kind = ["-ptx", f"-arch=compute_{arch}"] if ptx else ["-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v"]
        r = subprocess.run([args.nvcc, "-std=c++20", "-O3", *kind, "-I", f"{args.root}/include", "-I", include, source, "-o", out], capture_output=True, text=True)
        if r.returncode:
            return None, r.stderr[-2000:]
        return (open(out).read() if ptx else r.stderr), ""


def short(name):
    """A template's name and arguments without namespaces, parameters left out."""
    name = re.sub(r"quern::(v\d+_\d+::)?", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    return name.removeprefix("void ")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), p.add_argument("--nvcc", default="nvcc")
    p.add_argument("--arch", default="80,90,100,120"), p.add_argument("--jobs", type=int, default=os.cpu_count()), p.add_argument("--out"), p.add_argument("--allow")
    args = p.parse_args()
    archs = args.arch.split(",")
    sources = sorted(glob.glob(f"{args.root}/kernels/*/*.cu"))
    allowed = {l.split("#")[0].strip() for l in open(args.allow)} if args.allow else set()
    failures, rows, spilled = [], {}, []
    with tempfile.TemporaryDirectory() as include, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        os.makedirs(f"{include}/quern")
        os.symlink(os.path.abspath(f"{args.root}/kernels"), f"{include}/quern/kernels")
        jobs = {(s, a, ptx): pool.submit(compile_one, args, include, s, a, ptx) for s in sources for a, ptx in [(a, False) for a in archs] + [(archs[0], True)]}
        for (source, arch, ptx), job in jobs.items():
            text, why = job.result()
            family = os.path.basename(os.path.dirname(source))
            if text is None:
                failures.append(f"{family} for sm_{arch} does not compile: {why}")
                continue
            if ptx:
                asked = open(source).read()
                for wanted, instruction in CLAIMS:
                    if re.search(wanted, asked) and not re.search(instruction, text):
                        failures.append(f"{family}: the source uses {wanted}, its PTX has no {instruction}")
                continue
            names = re.findall(r"Compiling entry function '([^']+)'", text)
            plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True).stdout.splitlines() if names else []
            parts = re.split(r"Compiling entry function '[^']+'", text)[1:]
            for name, body in zip(plain or names, parts):
                spill = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", body)
                used = re.search(r"Used (\d+) registers", body)
                smem = re.search(r"(\d+) bytes smem", body)
                stack, stores, loads = map(int, spill.groups()) if spill else (0, 0, 0)
                rows.setdefault((family, arch), []).append((int(used.group(1)) if used else 0, int(smem.group(1)) if smem else 0, stack, stores + loads))
                if stores + loads:
                    label = f"{family}: {short(name)}"
                    spilled.append(f"{label} (sm_{arch}): {stores} bytes stored, {loads} loaded")
                    if label not in allowed:
                        failures.append(f"{label} spills on sm_{arch}: {stores} bytes stored, {loads} loaded")
    lines = ["# What nvcc makes of the kernels", "", "By `bench/ptxas.py`: registers a thread, static shared memory and stack in bytes, the largest of each; kernels that spill.", "",
             "| family | sm | kernels | registers | shared | stack | spilling |", "|---|---|---|---|---|---|---|"]
    for (family, arch), kernels in sorted(rows.items(), key=lambda r: (r[0][0], int(r[0][1]))):
        lines.append(f"| {family} | {arch} | {len(kernels)} | {max(k[0] for k in kernels)} | {max(k[1] for k in kernels)} | {max(k[2] for k in kernels)} | {sum(k[3] > 0 for k in kernels)} |")
    lines += [""] + [f"- {s}" for s in spilled]
    if args.out:
        open(args.out, "w").write("\n".join(lines) + "\n")
    print("\n".join(lines))
    for f in failures:
        print("FAILED:", f)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
