#!/usr/bin/env python3
"""Small models of audio: quern against ONNX Runtime and OpenVINO, in turn, each in a process of its own.

  audio.py QUERN [NAME ...] [--threads 2] [--rounds 3] [--seconds 0.2]

Prints medians in microseconds, best peer/quern (above 1: quern is faster) and the largest difference to ONNX Runtime's answer by its largest value.
NAME: parts of the models' names; default all. Weights are random. Needs python with numpy, onnx, onnxruntime, openvino.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
import numpy as np


class Net:
    """A graph that grows node by node; `c` is the number of channels of `x`."""

    def __init__(self, *shape):
        self.rng, self.nodes, self.weights, self.shape = np.random.default_rng(0), [], [], shape
        self.x, self.c = "x", shape[1]

    def const(self, a):
        from onnx import numpy_helper
        self.weights.append(numpy_helper.from_array(np.asarray(a), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *shape):
        return self.const((self.rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32))

    def op(self, kind, *inputs, outs=1, **attrs):
        from onnx import helper
        names = [f"v{len(self.nodes)}_{i}" for i in range(outs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names[0] if outs == 1 else names

    def then(self, kind, *more, **attrs):
        self.x = self.op(kind, self.x, *more, **attrs)
        return self

    def conv(self, co, *kernel, stride=1, dilation=1, group=1, pads=None):
        n = len(kernel)
        pads = pads if pads is not None else [(k - 1) * dilation // 2 for k in kernel] + [(k - 1) * dilation - (k - 1) * dilation // 2 for k in kernel]
        self.then("Conv", self.weight(co, self.c // group, *kernel), self.weight(co), strides=[stride] * n, dilations=[dilation] * n, group=group, pads=pads)
        self.c = co
        return self

    def causal(self, co, k, dilation=1):
        return self.conv(co, k, dilation=dilation, pads=[(k - 1) * dilation, 0])

    def transposed(self, co, *kernel, stride, pad=0):
        n = len(kernel)
        self.then("ConvTranspose", self.weight(self.c, co, *kernel), self.weight(co), strides=[stride] * n, pads=[pad] * 2 * n)
        self.c = co
        return self

    def gated(self, value="Tanh"):
        """Half of the channels (through `value`; None: as they are) times the sigmoid of the others."""
        a, b = self.op("Split", self.x, outs=2, axis=1, num_outputs=2)
        self.x = self.op("Mul", self.op(value, a) if value else a, self.op("Sigmoid", b))
        self.c //= 2
        return self

    def save(self, path):
        import onnx
        from onnx import TensorProto, helper
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "audio", [value("x", self.shape)], [value(self.x, None)], self.weights)
        onnx.save(onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)), path)


def wavenet(length, channels, layers):
    n = Net(1, 1, length).conv(channels, 1)
    skip = None
    for i in range(layers):
        x = n.x
        n.causal(2 * channels, 3, 2 ** (i % 8)).gated()
        y = n.x
        out = n.conv(channels, 1).x
        skip = out if skip is None else n.op("Add", skip, out)
        n.x = y
        n.x = n.op("Add", x, n.conv(channels, 1).x)
    n.x = skip
    return n.then("Relu").conv(1, 1)


def tcn(length, channels, layers):
    n = Net(1, channels, length)
    for i in range(layers):
        x = n.x
        n.causal(channels, 3, 2 ** i).then("Relu").causal(channels, 3, 2 ** i).then("Relu")
        n.x = n.op("Add", x, n.x)
    return n


def tasnet(length, channels, hidden, layers):
    n = Net(1, channels, length)
    slope = n.const(np.full((1, 1), 0.25, np.float32))
    for i in range(layers):
        x = n.x
        n.conv(hidden, 1).then("PRelu", slope).conv(hidden, 3, dilation=2 ** i, group=hidden).then("PRelu", slope).conv(channels, 1)
        n.x = n.op("Add", x, n.x)
    return n


def vocoder(length):
    """HiFi-GAN's shape, small (https://arxiv.org/abs/2010.05646)."""
    n = Net(1, 80, length).conv(64, 7)
    for channels, stride, kernel in ((32, 8, 16), (16, 8, 16), (8, 4, 8)):
        n.then("LeakyRelu", alpha=0.1).transposed(channels, kernel, stride=stride, pad=(kernel - stride) // 2)
        begin, total = n.x, None
        for k in (3, 7):
            n.x = begin
            for dilation in (1, 3):
                x = n.x
                n.then("LeakyRelu", alpha=0.1).conv(channels, k, dilation=dilation).then("LeakyRelu", alpha=0.1).conv(channels, k)
                n.x = n.op("Add", x, n.x)
            total = n.x if total is None else n.op("Add", total, n.x)
        n.x = n.op("Mul", total, n.const(np.float32(0.5)))
    return n.then("LeakyRelu", alpha=0.1).conv(1, 7).then("Tanh")


def conformer(length, channels, kernel):
    """The convolution module (https://arxiv.org/abs/2005.08100)."""
    n = Net(1, channels, length)
    n.conv(2 * channels, 1).gated(None).conv(channels, kernel, group=channels)
    n.x = n.op("Mul", n.x, n.op("Sigmoid", n.x))
    n.conv(channels, 1)
    n.x = n.op("Add", "x", n.x)
    return n


def encoder(length):
    n = Net(1, 1, length)
    for channels, kernel, stride in ((16, 16, 5), (32, 8, 4), (64, 8, 4), (64, 8, 4)):
        n.conv(channels, kernel, stride=stride, pads=[kernel // 2] * 2).then("Relu")
    return n


MODELS = {
    "FIR 512 taps, 4096 samples": lambda: Net(1, 1, 4096).conv(1, 512, pads=[511, 0]),
    "FIR 64 taps, 48000 samples": lambda: Net(1, 1, 48000).conv(1, 64, pads=[63, 0]),
    "two FIRs of 255 taps, 16000 samples": lambda: Net(1, 2, 16000).conv(2, 255, group=2),
    "WaveNet 16 channels, 2048": lambda: wavenet(2048, 16, 10),
    "WaveNet 8 channels, 256": lambda: wavenet(256, 8, 10),
    "TCN 4 channels, 8192": lambda: tcn(8192, 4, 6),
    "TCN 32 channels, 1000": lambda: tcn(1000, 32, 6),
    "TCN 64 channels, 200": lambda: tcn(200, 64, 6),
    "Conv-TasNet 64 to 128 channels, 800": lambda: tasnet(800, 64, 128, 6),
    "depthwise 31 taps, 256 channels, 500": lambda: Net(1, 256, 500).conv(256, 31, group=256),
    "depthwise 15 taps, 64 channels, 4000": lambda: Net(1, 64, 4000).conv(64, 15, group=64),
    "Conformer module, 144 channels, 200": lambda: conformer(200, 144, 31),
    "HiFi-GAN, small, 32 frames": lambda: vocoder(32),
    "ConvTranspose1d 256 to 128, kernel 16, stride 8, 100": lambda: Net(1, 256, 100).transposed(128, 16, stride=8, pad=4),
    "ConvTranspose1d 64 to 32, kernel 16, stride 8, 1000": lambda: Net(1, 64, 1000).transposed(32, 16, stride=8, pad=4),
    "inverse STFT, kernel 512, stride 128, 200": lambda: Net(1, 514, 200).transposed(1, 512, stride=128),
    "strided encoder, 16000 samples": lambda: encoder(16000),
    "ConvTranspose2d 32 to 3, kernel 4, stride 2, 64 x 64": lambda: Net(1, 32, 64, 64).transposed(3, 4, 4, stride=2, pad=1),
    "ConvTranspose2d 64 to 64, kernel 2, stride 2, 64 x 64": lambda: Net(1, 64, 64, 64).transposed(64, 2, 2, stride=2),
    "ConvTranspose2d 256 to 128, kernel 4, stride 2, 16 x 16": lambda: Net(1, 256, 16, 16).transposed(128, 4, 4, stride=2, pad=1),
    "ConvTranspose2d 100 to 512, kernel 4, one pixel": lambda: Net(1, 100, 1, 1).transposed(512, 4, 4, stride=1),
}


def peer(kind, path, x, out, threads, seconds):
    """In a process of its own: the median in microseconds on stdout, the answer to `out`."""
    x = np.load(x)
    if kind == "ort":
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        io, name = session.io_binding(), session.get_outputs()[0].name
        io.bind_cpu_input("x", x)
        io.bind_output(name)
        answer, call = session.run([name], {"x": x})[0], lambda: session.run_with_iobinding(io)
    else:
        import openvino as ov
        core = ov.Core()
        request = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        request.set_tensor("x", ov.Tensor(x, shared_memory=True))
        call = request.infer
        call()
        answer = request.get_output_tensor(0).data.copy()
    np.save(out, answer)

    def median(f, seconds):
        times, end = [], time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            f()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e6
    call(), call()
    print(median(call, seconds) - median(lambda: None, 0.01))  # less what the interpreter takes


def main():
    if sys.argv[1:2] == ["--peer"]:
        return peer(*sys.argv[2:6], int(sys.argv[6]), float(sys.argv[7]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("quern")
    p.add_argument("names", nargs="*")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=0.2)
    a = p.parse_args()
    print("| model | quern | ONNX Runtime | OpenVINO | best peer/quern | difference |\n|---|---|---|---|---|---|")
    for name, make in MODELS.items():
        if a.names and not any(n in name for n in a.names):
            continue
        with tempfile.TemporaryDirectory() as d:
            net = make()
            path, x = os.path.join(d, "m.onnx"), os.path.join(d, "x.npy")
            net.save(path)
            np.save(x, np.random.default_rng(1).normal(size=net.shape).astype(np.float32))
            times = {"quern": [], "ort": [], "openvino": []}
            for _ in range(a.rounds):
                r = subprocess.run([a.quern, "bench", path, "--input", f"x={x}", "--threads", str(a.threads), "--seconds", str(a.seconds), "--json", "--output-dir", d], capture_output=True, text=True, check=True)
                times["quern"].append(json.loads(r.stdout)["median_ms"] * 1e3)
                for kind in ("ort", "openvino"):
                    r = subprocess.run([sys.executable, __file__, "--peer", kind, path, x, os.path.join(d, kind), str(a.threads), str(a.seconds)], capture_output=True, text=True, check=True)
                    times[kind].append(float(r.stdout))
            ours, theirs = np.load(os.path.join(d, net.x + ".npy")).astype(float), np.load(os.path.join(d, "ort.npy")).astype(float)
            t = {k: statistics.median(v) for k, v in times.items()}
            print(f"| {name} | {t['quern']:.0f} | {t['ort']:.0f} | {t['openvino']:.0f} | {min(t['ort'], t['openvino']) / t['quern']:.2f} | {np.abs(ours - theirs).max() / np.abs(theirs).max():.0e} |", flush=True)


if __name__ == "__main__":
    main()
