"""The parts of gpu.sh that need Python: models on the device against the CPU, kernels and models against PyTorch, models against ONNX Runtime (CUDA, TensorRT), the report.

Weights are drawn from seeds (shared/zoo), so that answers mean nothing but must agree: the device's with the CPU backend's.
Every part prints a line as soon as it has it and adds a JSON line to OUT/results.jsonl, from which `report` makes the table.
"""
import argparse, concurrent.futures, json, os, re, statistics, subprocess, sys, time

MODELS = ["squeezenet1_1", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "resnet18", "resnet50", "efficientnet_b0",
          "vgg16", "densenet121", "convnext_tiny", "vit_b_16", "swin_t", "unet_small", "lraspp_mobilenet_v3_large",
          "ssdlite320_mobilenet_v3_large", "minilm_l6", "distilbert", "bert_base", "t5_small_encoder", "lstm_bi2", "gpt2_kv",
          "llama100m_kv", "bert_base_fp16", "whisper_tiny_encoder", "whisper_tiny_decoder", "clip_vit_b32_vision", "resnet50_int8_qdq"]
BIG = {"resnet50": "b8", "mobilenet_v2": "b8", "vit_b_16": "b8", "bert_base": "b8s128", "minilm_l6": "b8s128", "vgg16": "b8",
       "convnext_tiny": "b8", "efficientnet_b0": "b8"}
TORCHVISION = ["squeezenet1_1", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "resnet18", "resnet50", "efficientnet_b0",
               "vgg16", "densenet121", "convnext_tiny", "vit_b_16", "swin_t"]
BY_LIBRARIES = {"bert_base", "bert_base_fp16", "minilm_l6", "vit_b_16", "gpt2_kv", "resnet50", "vgg16", "unet_small", "convnext_tiny"}  # also by cuBLASLt and cuDNN
PROVIDERS = ["CUDAExecutionProvider", "TensorrtExecutionProvider"]
COMPILED = {"resnet50", "bert_base"}  # torch.compile takes most of a minute a model


def log(args, part, **row):
    with open(f"{args.out}/results.jsonl", "a") as f:
        f.write(json.dumps(dict(part=part, **row)) + "\n")


def chosen(args):
    only = args.only.split(",") if args.only else MODELS
    there = {f[:-10] for f in os.listdir(f"{args.zoo}/skel") if f.endswith(".skel.json")}
    return [m for m in only if m in there]


def call(cmd, timeout=60):
    try:
        r = subprocess.run(cmd, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "timeout"
    return (r.stdout if r.returncode == 0 else None), " ".join((r.stderr or r.stdout).split())[:300]


def libraries(args):
    return [word for folder in args.library_dir for word in ("--library-dir", folder)]


def zoo(args):
    sys.path.insert(0, args.zoo)
    import materialize
    return materialize


def model_file(args, name):
    import onnx
    path = f"{args.work}/{name}.onnx"
    if not os.path.exists(path):
        model, _ = zoo(args).build(f"{args.zoo}/skel", name)
        onnx.save(model, path)
    return path


def variants(args, name):
    return [next(iter(zoo(args).meta(f"{args.zoo}/skel", name)["variants"]))] + ([BIG[name]] if name in BIG else [])


def median_ms(f, seconds):
    for _ in range(5): f()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        t0 = time.perf_counter()
        f()
        times.append((time.perf_counter() - t0) * 1e3)
    return statistics.median(times)


def prepare(args, name):
    """The model's file, its inputs and the CPU's answer, for each variant."""
    import numpy as np
    z, path = zoo(args), model_file(args, name)
    jobs = []
    for variant in variants(args, name):
        feeds = []
        for k, (key, value) in enumerate(z.inputs(f"{args.zoo}/skel", name, variant).items()):
            file = f"{args.work}/{name}.{variant}.{k}.npy"
            np.save(file, value)
            feeds += ["--input", f"{key}={file}"]
        want = f"{args.work}/{name}.{variant}.cpu"
        out, why = call([args.bin, "run", path, *feeds, "--threads", "4", "--output-dir", want], 100)
        jobs.append((variant, path, feeds, want, None if out is not None else why))
    return name, jobs


def difference(got_dir, want_dir):
    """(largest |got - want| over the largest |want| of the output, the output, text of a failure)"""
    import numpy as np
    worst, what = 0.0, ""
    for f in sorted(os.listdir(want_dir)):
        if not os.path.exists(f"{got_dir}/{f}"):
            return 9, f"{f} is missing"
        g, w = np.load(f"{got_dir}/{f}", allow_pickle=True), np.load(f"{want_dir}/{f}", allow_pickle=True)
        if g.shape != w.shape or g.dtype != w.dtype:
            return 9, f"{f}: {g.dtype}{g.shape}, the CPU has {w.dtype}{w.shape}"
        if w.size == 0 or w.dtype.kind not in "fiub":
            continue
        g, w = g.astype(np.float64), w.astype(np.float64)
        if not np.array_equal(np.isfinite(g), np.isfinite(w)):
            return 9, f"{f}: not finite in other places"
        ok = np.isfinite(w)
        if ok.any():
            scale = max(np.abs(w[ok]).max(), 1e-30)
            off = np.abs(g[ok] - w[ok]) / scale
            worst = max(worst, float(off.max()))
            if off.max() > 1e-3:  # sorted results: entries whose keys all but tie may change places
                what += f"{f}: {int((off > 1e-3).sum())} of {off.size} elements; "
    return worst, what


def placement(args, path):
    text, why = call([args.bin, "inspect", path, "--stage", "plan", "--device", "cuda"], 60)
    if text is None:
        return None, None, [why]
    steps = [l for l in text.splitlines() if not l.startswith(("    ", "--"))]
    device = [l for l in steps if " on the device ->" in l and " by copy " not in l and " by view " not in l]
    host = [l for l in steps if " on the device ->" not in l and " by copy ->" not in l and " by view ->" not in l]
    reasons = {}
    last = ""
    for l in text.splitlines():
        m = re.match(r"    not on the device: (.*)", l)
        if m:
            key = (last.split(" ")[0], m.group(1)[:150])
            reasons[key] = reasons.get(key, 0) + 1
        elif not l.startswith("    "):
            last = l
    return len(device), len(host), [f"{n} x {op}: {why}" for (op, why), n in sorted(reasons.items(), key=lambda x: -x[1]) if "stay" not in why]


def models(args):
    names = chosen(args)
    # At most four at once, so that the memory of several large models does not meet.
    with concurrent.futures.ProcessPoolExecutor(6) as pool:
        for done in pool.map(prepare_guarded, [(args, n) for n in names]):
            name, jobs = done
            if isinstance(jobs, str):
                print(f"{name}: {jobs}", flush=True)
                continue
            for k, (variant, path, feeds, want, why) in enumerate(jobs):
                if why:
                    print(f"{name} {variant}: the CPU backend: {why}", flush=True)
                    log(args, "models", model=name, variant=variant, error="cpu: " + why)
                    continue
                device, host, reasons = placement(args, path) if k == 0 else (None, None, [])
                got = f"{args.work}/{name}.{variant}.cuda"
                out, why = call([args.bin, "bench", path, *feeds, "--device", "cuda", "--seconds", "0.5", "--json", "--output-dir", got], 60)
                row = dict(model=name, variant=variant, on_device=device, on_host=host, reasons=reasons)
                if out is None:
                    row["error"] = why
                    print(f"{name} {variant}: {why}", flush=True)
                else:
                    t = json.loads(out)
                    err, what = difference(got, want)
                    row.update(ms=t["median_ms"], min_ms=t["min_ms"], first_ms=t["first_ms"], load_ms=t["load_ms"], difference=err,
                               what=what, kernels=t.get("kernels", {}))
                    on = "" if device is None else f"{device} steps on the device, {host} on the host, "
                    print(f"{name} {variant}: {on}{t['median_ms']:.3f} ms (min {t['min_ms']:.3f}, kernels {sum(row['kernels'].values()) / 1e3:.3f}), difference {err:.1e} {what}", flush=True)
                for r in reasons[:6]:
                    print(f"    host: {r}", flush=True)
                if args.library_dir and name in BY_LIBRARIES:
                    out, why = call([args.bin, "bench", path, *feeds, "--device", "cuda", *libraries(args), "--seconds", "0.5", "--json", "--output-dir", got], 60)
                    if out is None:
                        print(f"{name} {variant} by libraries: {why}", flush=True)
                    else:
                        row["library_ms"] = json.loads(out)["median_ms"]
                        err, what = difference(got, want)
                        print(f"{name} {variant} by libraries: {row['library_ms']:.3f} ms, difference {err:.1e} {what}", flush=True)
                log(args, "models", **row)


def prepare_guarded(job):
    args, name = job
    try:
        return prepare(args, name)
    except Exception as e:
        return name, f"{type(e).__name__}: {e}"


HALF = {"MatMul 128x768x3072", "MatMul 1024x1024x1024", "MatMul 4096x4096x4096", "Conv 32x128x28x28->128 k3s1g1", "Softmax 4096x1024",
        "LayerNormalization 4096x1024", "Attention 8x12x512x64"}  # measured in f16, too


def shapes():
    """(name, operator, inputs as (shape, kind), constants (shape), attributes, flop, function of torch on its tensors)"""
    S = []
    def add(name, op, ins, consts, attrs, flop, fn):
        for t in ["float32", "float16"] if name in HALF else ["float32"]:
            S.append(dict(name=name + ("" if t == "float32" else " f16"), op=op, ins=ins, consts=consts, attrs=attrs, flop=flop, fn=fn, dtype=t))
    for m, k, n in [(1, 4096, 4096), (8, 4096, 4096), (128, 768, 768), (128, 768, 3072), (1024, 1024, 1024), (1024, 4096, 1024), (4096, 4096, 4096)]:
        add(f"MatMul {m}x{k}x{n}", "MatMul", [(m, k)], [(k, n)], {}, 2 * m * k * n, "matmul")
    add("MatMul 96x128x64x128 computed", "MatMul", [(96, 128, 64), (96, 64, 128)], [], {}, 2 * 96 * 128 * 64 * 128, "matmul")
    for b, size, c, m, r, s, g in [(1, 56, 64, 64, 3, 1, 1), (1, 14, 256, 256, 3, 1, 1), (1, 56, 64, 256, 1, 1, 1), (1, 14, 1024, 256, 1, 1, 1),
                                   (32, 56, 64, 64, 3, 1, 1), (32, 28, 128, 128, 3, 1, 1), (32, 14, 1024, 256, 1, 1, 1), (32, 112, 96, 96, 3, 2, 96), (1, 224, 3, 64, 7, 2, 1)]:
        out = (size + 2 * (r // 2) - r) // s + 1
        add(f"Conv {b}x{c}x{size}x{size}->{m} k{r}s{s}g{g}", "Conv", [(b, c, size, size)], [(m, c // g, r, r)],
            dict(kernel_shape=[r, r], strides=[s, s], pads=[r // 2] * 4, group=g), 2 * b * out * out * m * c // g * r * r, "conv")
    for rows, cols in [(1536, 128), (4096, 1024), (16384, 4096)]:
        add(f"Softmax {rows}x{cols}", "Softmax", [(rows, cols)], [], dict(axis=-1), 0, "softmax")
        add(f"LayerNormalization {rows}x{cols}", "LayerNormalization", [(rows, cols)], [(cols,), (cols,)], dict(axis=-1), 0, "layer_norm")
    for shape in [(1, 256, 56, 56), (64, 256, 56, 56)]:
        add(f"Add {shape}", "Add", [shape, shape], [], {}, 0, "add")
        add(f"Relu {shape}", "Relu", [shape], [], {}, 0, "relu")
    add("Transpose 16x512x12x64", "Transpose", [(16, 512, 12, 64)], [], dict(perm=[0, 2, 1, 3]), 0, "transpose")
    add("Transpose 4096x4096", "Transpose", [(4096, 4096)], [], dict(perm=[1, 0]), 0, "transpose2")
    add("MaxPool 32x64x112x112", "MaxPool", [(32, 64, 112, 112)], [], dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 0, "maxpool")
    add("ReduceMean 64x256x56x56 spatial", "GlobalAveragePool", [(64, 256, 56, 56)], [], {}, 0, "gap")
    add("Attention 8x12x512x64", "Attention", [(8, 12, 512, 64)] * 3, [], {}, 4 * 8 * 12 * 512 * 512 * 64, "sdpa")
    return S


def kernels(args):
    import numpy as np, onnx
    from onnx import helper, numpy_helper, TensorProto
    work = f"{args.work}/kernels"
    os.makedirs(work, exist_ok=True)
    try:
        import torch
        import torch.nn.functional as F
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    except ImportError:
        torch = None
    rng = np.random.default_rng(1)
    for s in shapes():
        ins = [rng.standard_normal(x, dtype=np.float32).astype(s["dtype"]) for x in s["ins"]]
        consts = [(rng.standard_normal(x, dtype=np.float32) * 0.05).astype(s["dtype"]) for x in s["consts"]]
        kind = getattr(TensorProto, s["dtype"].replace("32", "").upper())
        names = [f"i{k}" for k in range(len(ins))] + [f"c{k}" for k in range(len(consts))]
        g = helper.make_graph([helper.make_node(s["op"], names, ["y"], **s["attrs"])], "one",
                              [helper.make_tensor_value_info(n, kind, x.shape) for n, x in zip(names, ins)],
                              [helper.make_tensor_value_info("y", kind, None)],
                              [numpy_helper.from_array(c, n) for n, c in zip(names[len(ins):], consts)])
        path = f"{work}/m.onnx"
        m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 23 if s["op"] == "Attention" else 20)])
        m.ir_version = 10
        onnx.save(m, path)
        feeds = []
        for n, x in zip(names, ins):
            np.save(f"{work}/{n}.npy", x)
            feeds += ["--input", f"{n}={work}/{n}.npy"]
        out, why = call([args.bin, "bench", path, *feeds, "--device", "cuda", "--strict-device", "--seconds", "0.05", "--json", "--output-dir", f"{work}/got"], 40)
        library = None
        if args.library_dir and s["op"] in ("MatMul", "Conv"):
            library, _ = call([args.bin, "bench", path, *feeds, "--device", "cuda", *libraries(args), "--strict-device", "--seconds", "0.05", "--json"], 40)
        row = dict(name=s["name"], flop=s["flop"], bytes=sum(x.nbytes for x in ins + consts))
        if out is None:
            row["error"] = why
        else:
            row["us"] = sum(json.loads(out).get("kernels", {}).values())
            row["by"] = ", ".join(json.loads(out).get("kernels", {}))
        if library:
            row["library_us"] = sum(json.loads(library).get("kernels", {}).values())
            row["library_by"] = ", ".join(json.loads(library).get("kernels", {}))
        if torch:
            a = [torch.from_numpy(x).cuda() for x in ins + consts]
            at = s["attrs"]
            fn = {"matmul": lambda: a[0] @ a[1], "softmax": lambda: torch.softmax(a[0], -1),
                  "layer_norm": lambda: F.layer_norm(a[0], a[1].shape, a[1], a[2]), "add": lambda: a[0] + a[1], "relu": lambda: torch.relu(a[0]),
                  "transpose": lambda: a[0].permute(0, 2, 1, 3).contiguous(), "transpose2": lambda: a[0].t().contiguous(),
                  "maxpool": lambda: F.max_pool2d(a[0], 3, 2, 1), "gap": lambda: a[0].mean((2, 3), keepdim=True),
                  "sdpa": lambda: F.scaled_dot_product_attention(a[0], a[1], a[2]),
                  "conv": lambda: F.conv2d(a[0], a[1], stride=at["strides"][0], padding=at["pads"][0], groups=at["group"])}[s["fn"]]
            try:
                y = fn()
                for _ in range(4): fn()
                times = []
                for _ in range(20):
                    e = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                    torch.cuda.synchronize()
                    e[0].record(); fn(); e[1].record()
                    torch.cuda.synchronize()
                    times.append(e[0].elapsed_time(e[1]) * 1e3)
                row["torch_us"] = statistics.median(times)
                row["bytes"] += y.numel() * y.element_size()
                if out is not None:
                    got = np.load(f"{work}/got/y.npy").astype(np.float64)
                    want = y.cpu().numpy().astype(np.float64)
                    row["difference"] = float(np.abs(got - want).max() / np.abs(want).max())
            except Exception as e:
                row["torch_error"] = f"{type(e).__name__}: {str(e)[:100]}"
        if "us" in row and row["us"] > 0:
            rate = f"{row['flop'] / row['us'] / 1e6:.2f} TFLOP/s" if row["flop"] else f"{row['bytes'] / row['us'] / 1e3:.0f} GB/s"
            row["rate"] = rate
        print(f"{s['name']}: ours {row.get('us', float('nan')):.1f} us {row.get('rate', '')} ({row.get('by', row.get('error', ''))}), {'by libraries %.1f us (%s), ' % (row['library_us'], row['library_by']) if 'library_us' in row else ''}torch {row.get('torch_us', float('nan')):.1f} us, difference {row.get('difference', float('nan')):.1e}", flush=True)
        log(args, "kernels", **row)


def torch_models(args):
    import torch
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    z = zoo(args)

    def make(name):
        if name in TORCHVISION:
            import torchvision
            return getattr(torchvision.models, name)(weights=None)
        import transformers as t
        if name == "bert_base": return t.BertModel(t.BertConfig())
        if name == "minilm_l6": return t.BertModel(t.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536))
        if name == "distilbert": return t.DistilBertModel(t.DistilBertConfig())
        return None

    def timed(f):
        def once():
            f()
            torch.cuda.synchronize()
        return median_ms(once, 0.4)

    for name in chosen(args):
        try:
            model = make(name)
        except Exception as e:
            print(f"{name}: {type(e).__name__}: {e}", flush=True)
            continue
        if model is None: continue
        model = model.eval().cuda()
        for variant in variants(args, name):
            try:
                feeds = [torch.from_numpy(v) for v in z.inputs(f"{args.zoo}/skel", name, variant).values()]
                row = dict(model=name, variant=variant)
                with torch.inference_mode():
                    def outputs(y):
                        y = y if torch.is_tensor(y) else y[0] if not hasattr(y, "last_hidden_state") else y.last_hidden_state
                        return y.cpu()
                    # As ours is timed: inputs from and outputs to host memory.
                    row["eager_ms"] = timed(lambda: outputs(model(*[x.cuda() for x in feeds])))
                    static = [x.cuda() for x in feeds]
                    side = torch.cuda.Stream()
                    with torch.cuda.stream(side):
                        for _ in range(3): model(*static)
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        held = model(*static)
                    def replay():
                        for s, x in zip(static, feeds): s.copy_(x)
                        graph.replay()
                        return outputs(held)
                    row["graph_ms"] = timed(replay)
                    print(f"{name} {variant}: torch eager {row['eager_ms']:.3f} ms, recorded in a CUDA graph {row['graph_ms']:.3f} ms", flush=True)
            except Exception as e:
                print(f"{name} {variant}: {type(e).__name__}: {str(e)[:160]}", flush=True)
            log(args, "torch", **row)
    if args.compiled:
        for name in [n for n in chosen(args) if n in COMPILED]:
            try:
                model = torch.compile(make(name).eval().cuda(), mode="reduce-overhead")
                variant = next(iter(z.meta(f"{args.zoo}/skel", name)["variants"]))
                feeds = [torch.from_numpy(v) for v in z.inputs(f"{args.zoo}/skel", name, variant).values()]
                with torch.inference_mode():
                    def once():
                        y = model(*[x.cuda() for x in feeds])
                        return (y if torch.is_tensor(y) else y[0]).cpu()
                    ms = timed(once)
                print(f"{name} {variant}: torch.compile {ms:.3f} ms", flush=True)
                log(args, "torch", model=name, variant=variant, compiled_ms=ms)
            except Exception as e:
                print(f"{name}: torch.compile: {type(e).__name__}: {str(e)[:160]}", flush=True)


def ort_models(args):
    """ONNX Runtime's providers for the device, each in turn; TensorRT's builds its engine before it is timed."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    import onnxruntime as ort
    z, there = zoo(args), ort.get_available_providers()
    providers = [p for p in args.providers.split(",") if p in there]
    print(f"onnxruntime {ort.__version__}: {', '.join(providers) or 'no provider for the device, only ' + ', '.join(there)}", flush=True)
    for name in chosen(args) if providers else []:
        path = model_file(args, name)
        for variant in variants(args, name):
            row = dict(model=name, variant=variant)
            for provider in providers:
                try:
                    options = ort.SessionOptions()
                    options.log_severity_level = 4
                    session = ort.InferenceSession(path, options, providers=[provider] + [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p != provider and p in there])
                    feeds = z.inputs(f"{args.zoo}/skel", name, variant)
                    if session.get_providers()[0] != provider:
                        raise RuntimeError(f"runs by {session.get_providers()[0]} instead")
                    row[provider] = median_ms(lambda: session.run(None, feeds), 0.3)
                    print(f"{name} {variant}: ONNX Runtime by {provider[:-17]} {row[provider]:.3f} ms", flush=True)
                except Exception as e:
                    print(f"{name} {variant}: {provider}: {type(e).__name__}: {str(e)[:160]}", flush=True)
            log(args, "ort", **row)


def report(args):
    def rows(part):
        try:
            return [r for r in map(json.loads, open(f"{args.out}/results.jsonl")) if r["part"] == part]
        except OSError:
            return []
    gpu = "gpu"
    lines = []
    if os.path.exists(f"{args.work}/info.log"):
        info = open(f"{args.work}/info.log").read().strip()
        if info.startswith("NVIDIA"):
            gpu = re.sub(r"[^a-z0-9]+", "-", info.split(",")[0].lower()).strip("-")
        lines += ["# Measured by bench/gpu.sh", "", "```", info, "```", ""]
    if os.path.exists(f"{args.work}/tests.log"):
        tail = [l for l in open(f"{args.work}/tests.log").read().splitlines() if l.startswith("[")]
        lines += ["Kernel tests on the device: " + "; ".join(tail[-4:]), ""]
    if os.path.exists(f"{args.work}/conformance.log"):
        lines += ["ONNX's cases: " + open(f"{args.work}/conformance.log").read().split("\n")[0], ""]
    if os.path.exists(f"{args.work}/sanitizer.log"):
        lines += ["compute-sanitizer: " + " ".join(l for l in open(f"{args.work}/sanitizer.log").read().splitlines() if "ERROR SUMMARY" in l or "exit" in l), ""]
    torch, ort = {}, {}
    for r in rows("torch"):
        torch.setdefault((r["model"], r["variant"]), {}).update(r)
    for r in rows("ort"):
        ort.setdefault((r["model"], r["variant"]), {}).update(r)
    providers = [x for x in PROVIDERS if any(x in r for r in ort.values())]
    ms = lambda v: "" if v is None else f"{v:.3f}"
    lines += ["Latency in ms, inputs and outputs in host memory, f32 without TF32. Difference: largest against the CPU backend, over the largest value. By libraries: with cuBLASLt and cuDNN in Options::library_dirs.", "",
              "| model | variant | steps on the device | on the host | difference | quern | in kernels | quern by libraries | torch eager | torch in a CUDA graph | torch.compile |" + "".join(f" ONNX Runtime, {x[:-17]} |" for x in providers),
              "|---" * (11 + len(providers)) + "|"]
    for r in rows("models"):
        t = torch.get((r["model"], r["variant"]), {})
        d = r.get("error", "")[:160] or (f"{r['difference']:.1e} {r.get('what', '')}")
        lines.append(f"| {r['model']} | {r['variant']} | {r.get('on_device') if r.get('on_device') is not None else ''} | {r.get('on_host') if r.get('on_host') is not None else ''} | {d} | {ms(r.get('ms'))} | "
                     f"{ms(sum(r['kernels'].values()) / 1e3) if r.get('kernels') else ''} | {ms(r.get('library_ms'))} | {ms(t.get('eager_ms'))} | {ms(t.get('graph_ms'))} | {ms(t.get('compiled_ms'))} |" + "".join(f" {ms(ort.get((r['model'], r['variant']), {}).get(x))} |" for x in providers))
    lines += ["", "Kernels, device time in us (events); torch: the same operator in eager mode (cuBLAS, cuDNN, its own).", "",
              "| shape | quern | kernel | rate | quern by libraries | torch | torch / quern | difference |", "|---|---|---|---|---|---|---|---|"]
    for r in rows("kernels"):
        ratio = f"{r['torch_us'] / r['us']:.2f}" if r.get("us") and r.get("torch_us") else ""
        lines.append(f"| {r['name']} | {ms(r.get('us'))} | {r.get('by', r.get('error', '')[:120])} | {r.get('rate', '')} | {ms(r.get('library_us'))} | {ms(r.get('torch_us'))} | {ratio} | {r['difference']:.1e} |" if "difference" in r else
                     f"| {r['name']} | {ms(r.get('us'))} | {r.get('by', r.get('error', '')[:120])} | {r.get('rate', '')} | {ms(r.get('library_us'))} | {ms(r.get('torch_us'))} | {ratio} | |")
    open(f"{args.out}/gpu-{gpu}.md", "w").write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("part", choices=["models", "kernels", "torch", "ort", "report"])
    p.add_argument("--bin"), p.add_argument("--zoo"), p.add_argument("--work"), p.add_argument("--out", required=True), p.add_argument("--only", default="")
    p.add_argument("--library-dir", action="append", default=[])
    p.add_argument("--compiled", action="store_true")
    p.add_argument("--providers", default=",".join(PROVIDERS), help="of ONNX Runtime, for part ort")
    a = p.parse_args()
    {"models": models, "kernels": kernels, "torch": torch_models, "ort": ort_models, "report": report}[a.part](a)
