"""What nvcc makes of the CUDA kernels: registers, stack (spills, arrays that are indexed) and shared memory by kernel and architecture,
and whether the instructions that sources ask for are there.

  ptxas.py --objects DIR --cuobjdump PROGRAM            of the objects that were built, DIR/<family>/<source>.o: no compiler runs
  ptxas.py [--nvcc nvcc] [--arch 80,90,100,120] [--jobs N] [--cache DIR]   by compiling the sources
  both: [--root DIR] [--out FILE.md] [--allow FILE]

Fails (exit 1) where a kernel has more stack than allowed or an instruction is missing. A line of --allow is "family: kernel" as the list
behind the table shows it, a tab, the most bytes, a tab and the reason. --cache keeps what nvcc said about a source (in files
named after its text, that of the headers of this project that it includes, and nvcc's version) for the next call.
"""
import argparse, concurrent.futures, glob, hashlib, json, os, re, subprocess, sys, tempfile

# What a source names, and what its PTX must then hold.
CLAIMS = [("cp_async", r"cp\.async"), ("mma_m", r"mma\.sync"), ("ldmatrix", r"ldmatrix"), (r"load4|load_pack", r"ld\.(?:global|shared)[.:\w]*\.v[24]"), (r"store4|store_pack", r"st\.(?:global|shared)\.v[24]")]
# The instructions that the table counts.
COUNTED = {"16-byte loads": r"ld\.global(?:\.nc)?(?:\.L1::\w+)?\.v4\.\w*32", "16-byte stores": r"st\.global\.v4\.\w*32", "cp.async": r"cp\.async\.c[ag]", "mma": r"mma\.sync", "ldmatrix": r"ldmatrix"}


def headers_of(root, source, seen):
    """The sources' text and that of every <quern/...> header it includes."""
    if source in seen or not os.path.exists(source):
        return
    text = open(source, "rb").read()
    seen[source] = text
    for name in re.findall(rb'#include [<"]([^>"]+)[>"]', text):
        name = name.decode()
        for where in ([f"{root}/{name[6:]}", f"{root}/include/{name}"] if name.startswith("quern/") else [f"{os.path.dirname(source)}/{name}"]):
            headers_of(root, where, seen)


def ask(args, include, source, arch):
    """{"log": what ptxas said, "counts": instructions of the PTX by claim} or {"error": ...}."""
    seen = {}
    headers_of(args.root, source, seen)
    key = hashlib.sha256(json.dumps([args.version, arch, sorted(hashlib.sha256(t).hexdigest() for t in seen.values()), os.path.basename(os.path.dirname(source)), CLAIMS, list(COUNTED.items())]).encode()).hexdigest()[:24]
    kept = args.cache and f"{args.cache}/{key}.json"
    if kept and os.path.exists(kept):
        return json.load(open(kept))
    with tempfile.TemporaryDirectory() as tmp:
        command = [args.nvcc, "-std=c++20", "-O3", "-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v", "-keep", "-keep-dir", tmp, "-I", f"{args.root}/include", "-I", include, source, "-o", f"{tmp}/out.cubin"]
        r = subprocess.run(command, capture_output=True, text=True)
        if r.returncode:
            return {"error": r.stderr[-2000:]}
        ptx = "".join(open(f).read() for f in glob.glob(f"{tmp}/*.ptx"))
        said = {"log": r.stderr, "claims": [len(re.findall(i, ptx)) for _, i in CLAIMS], "counts": {n: len(re.findall(i, ptx)) for n, i in COUNTED.items()}}
    if kept:
        os.makedirs(args.cache, exist_ok=True)
        with open(f"{kept}.{os.getpid()}", "w") as f:
            json.dump(said, f)
        os.replace(f"{kept}.{os.getpid()}", kept)
    return said


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


def built(args, source):
    """By architecture [(kernel, registers, static shared memory, stack)], and the PTX, of the object made from the source."""
    name = f"{args.objects}/{os.path.relpath(source, args.root + '/kernels')}.o"
    if not os.path.exists(name):
        return f"no object {name}"
    ask = lambda what: subprocess.run([args.cuobjdump, what, name], capture_output=True, text=True).stdout
    kernels, arch, kernel = {}, None, None
    for line in ask("-res-usage").splitlines():
        if m := re.match(r"arch = sm_(\d+)", line):
            arch = m.group(1)
        elif m := re.match(r" *Function (\S+):", line):
            kernel = m.group(1)
        elif m := re.match(r" *REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            kernels.setdefault(arch, []).append((kernel, int(m.group(1)), int(m.group(3)), int(m.group(2))))
    ptx = ask("-ptx")
    return kernels, {"claims": [len(re.findall(i, ptx)) for _, i in CLAIMS], "counts": {n: len(re.findall(i, ptx)) for n, i in COUNTED.items()}}


def compiled(said):
    """The same list from what ptxas said."""
    kernels = []
    for name, body in zip(re.findall(r"Compiling entry function '([^']+)'", said["log"]), re.split(r"Compiling entry function '[^']+'", said["log"])[1:]):
        stack, used, smem = (re.search(e, body) for e in (r"(\d+) bytes stack frame", r"Used (\d+) registers", r"(\d+) bytes smem"))
        kernels.append((name, int(used.group(1)), int(smem.group(1)) if smem else 0, int(stack.group(1))))
    return kernels


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), p.add_argument("--nvcc", default="nvcc"), p.add_argument("--cache")
    p.add_argument("--arch", default="80,90,100,120"), p.add_argument("--jobs", type=int, default=os.cpu_count()), p.add_argument("--out"), p.add_argument("--allow")
    p.add_argument("--objects"), p.add_argument("--cuobjdump", default="cuobjdump")
    args = p.parse_args()
    sources = sorted(glob.glob(f"{args.root}/kernels/*/*.cu"))
    if not sources:
        sys.exit(f"no kernels under {args.root}")
    allowed = {}
    for line in open(args.allow) if args.allow else []:
        if line.strip() and not line.startswith("#"):
            label, most, _ = line.split("\t")
            allowed[label] = int(most)
    unused, failures, rows, listed, counts = set(allowed), [], {}, [], {}

    def take(source, by_arch, said, arch=""):
        family = os.path.relpath(source, f"{args.root}/kernels").removesuffix(".cu").removesuffix("/cuda")
        asked = open(source).read()
        for (wanted, instruction), n in zip(CLAIMS, said["claims"]):
            if re.search(wanted, asked) and not n:
                failures.append(f"{family}: the source uses {wanted}, its PTX {arch} has no {instruction}")
        for arch, kernels in by_arch.items():
            if not kernels:
                failures.append(f"{family}, sm_{arch}: no kernel")
            counts[family, arch] = said["counts"]
            plain = subprocess.run(["c++filt"], input="\n".join(k[0] for k in kernels), capture_output=True, text=True).stdout.splitlines()
            for name, (_, registers, shared, stack) in zip(plain, kernels):
                rows.setdefault((family, arch), []).append((registers, shared, stack))
                label = f"{family}: {short(name)}"
                if stack:
                    listed.append(f"{label} (sm_{arch}): {registers} registers, {stack} bytes of stack")
                    unused.discard(label)
                if stack > allowed.get(label, 0):
                    failures.append(f"{label}, sm_{arch}: {stack} bytes of stack, {allowed.get(label, 0)} are allowed")

    if args.objects:
        how = "`cuobjdump -res-usage` of the objects that were built"
        for source in sources:
            made = built(args, source)
            if isinstance(made, str):
                failures.append(made)
            else:
                take(source, *made)
    else:
        args.version = subprocess.run([args.nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        how = "nvcc " + re.search("release [0-9.]+", args.version).group(0)
        with tempfile.TemporaryDirectory() as include, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            os.makedirs(f"{include}/quern")
            os.symlink(os.path.abspath(f"{args.root}/kernels"), f"{include}/quern/kernels")
            jobs = {(s, a): pool.submit(ask, args, include, s, a) for s in sources for a in args.arch.split(",")}
            for (source, arch), job in jobs.items():
                said = job.result()
                if "error" in said:
                    failures.append(f"{source} for sm_{arch} does not compile: {said['error']}")
                else:
                    take(source, {arch: compiled(said)}, said, f"for sm_{arch}")
    lines = ["# What nvcc makes of the kernels", "", f"By `bench/ptxas.py` ({how}): registers a thread, static shared memory and stack in bytes, the largest of each; kernels with a stack; instructions in the PTX.", "",
             "| family | sm | kernels | registers | shared | stack | with a stack | " + " | ".join(COUNTED) + " |", "|" + "---|" * (7 + len(COUNTED))]
    for (family, arch), kernels in sorted(rows.items(), key=lambda r: (r[0][0], int(r[0][1]))):
        lines.append(f"| {family} | {arch} | {len(kernels)} | " + " | ".join(str(max(k[i] for k in kernels)) for i in range(3)) + f" | {sum(k[2] > 0 for k in kernels)} | " + " | ".join(str(counts[family, arch][n]) for n in COUNTED) + " |")
    lines += ["", f"{sum(map(len, rows.values()))} kernels, {len(listed)} with a stack:", ""] + [f"- {s}" for s in listed]
    if args.out:
        open(args.out, "w").write("\n".join(lines) + "\n")
    print("\n".join(lines))
    for label in sorted(unused):
        print("needs no stack here:", label)
    for f in failures:
        print("FAILED:", f)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
