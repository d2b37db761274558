#!/usr/bin/env python3
"""Operators of domain com.microsoft against ONNX Runtime: models of one node, random inputs from a fixed seed.

usage: contrib.py QUERN [NAME ...]   (names or their beginnings; all by default)
       contrib.py --record           (writes ONNX Runtime's answers to contrib_expected.npz)

Where ONNX Runtime is not installed its recorded answers are compared with.
"""
import json
import os
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

try:
    import onnxruntime as ort
except ImportError:
    ort = None

rng = np.random.default_rng(7)
MS = "com.microsoft"


def f(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def u8(*shape, lo=0, hi=256):
    return rng.integers(lo, hi, shape).astype(np.uint8)


def i8(*shape, lo=-128, hi=128):
    return rng.integers(lo, hi, shape).astype(np.int8)


def s(x, t=np.float32):
    return np.array(x, t)


i32 = lambda *v: np.array(v, np.int32)
i64 = lambda *v: np.array(v, np.int64)


class Const:
    """An input that is an initializer of the model."""

    def __init__(self, a):
        self.a = a


CASES = []
FIRST_ONLY = ("gqa_uneven", "gqa_buffer")  # beyond a sequence's end the cache holds anything


def case(name, op, inputs, outputs=1, tol=2e-4, domain=MS, types=None, quantum=0, **attrs):
    """types: element types of outputs where they are not those of input 0; quantum: integers may differ by this."""
    CASES.append((name, op, inputs, outputs, tol, domain, types, quantum, attrs))


B, S, N, D = 2, 5, 4, 8
H = N * D

case("gelu", "Gelu", [f(3, 70)])
case("fast_gelu", "FastGelu", [f(3, 70)])
case("fast_gelu_bias", "FastGelu", [f(3, 70), f(70)])
case("bias_gelu", "BiasGelu", [f(3, 70), f(70)])
case("quick_gelu", "QuickGelu", [f(3, 70)], alpha=1.5)
case("skip_norm", "SkipLayerNormalization", [f(B, S, H), f(B, S, H), f(H), f(H)], epsilon=1e-5)
case("skip_norm_bias_sum", "SkipLayerNormalization", [f(B, S, H), f(B, S, H), f(H), f(H), f(H)], outputs=[0, 3])
case("skip_norm_no_beta", "SkipLayerNormalization", [f(B, S, H), f(1, S, H), f(H)])
case("simplified", "SimplifiedLayerNormalization", [f(B, S, H), f(H)], domain="", axis=-1, epsilon=1e-6, stash_type=1)
case("skip_simplified", "SkipSimplifiedLayerNormalization", [f(B, S, H), f(B, S, H), f(H)], outputs=[0, 3], epsilon=1e-6)
case("skip_simplified_bias", "SkipSimplifiedLayerNormalization", [f(B, S, H), f(B, S, H), f(H), f(H)])
ids = lambda n: rng.integers(0, n, (B, S)).astype(np.int32)
case("embed", "EmbedLayerNormalization", [ids(20), ids(2), f(20, H), f(9, H), f(2, H), f(H), f(H), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)], outputs=2, types=[1, 6])
case("embed_no_segment", "EmbedLayerNormalization", [ids(20), None, f(20, H), f(9, H), None, f(H), f(H)], outputs=2, types=[1, 6])
case("embed_positions_sum", "EmbedLayerNormalization", [ids(20), ids(2), f(20, H), f(9, H), f(2, H), f(H), f(H), None, ids(9)], outputs=3, types=[1, 6, 1])
q_scale = lambda: s(0.03)
case("embed_8", "QEmbedLayerNormalization", [ids(20), ids(2), u8(20, H), u8(9, H), u8(2, H), u8(H), u8(H), None] + [q_scale() for _ in range(5)] + [s(120, np.uint8)] * 5, outputs=2, types=[1, 6], tol=1e-3)
# The CPU's NHWC layout; ONNX Runtime has GroupNorm on the GPU only, so its own operators say what is right in tests/ops.

mask2 = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
for tag, extra in {
    "": [], "_mask": [mask2], "_mask_lengths": [i32(3, 5)], "_mask_ranges": [i32(3, 5, 1, 0)],
    "_mask_3d": [(rng.random((B, S, S)) < 0.7).astype(np.int32)], "_past": [None, f(2, B, N, 3, D)],
    "_bias": [None, None, f(1, N, S, S)],
}.items():
    case("attention" + tag, "Attention", [f(B, S, H), f(H, 3 * H, scale=.2), f(3 * H)] + extra, outputs=2 if tag == "_past" else 1, num_heads=N)
case("attention_causal", "Attention", [f(B, S, H), f(H, 3 * H, scale=.2), f(3 * H)], num_heads=N, unidirectional=1)
case("attention_sizes", "Attention", [f(B, S, H), f(H, 2 * H + 16, scale=.2), f(2 * H + 16)], num_heads=N, qkv_hidden_sizes=[H, H, 16])
case("attention_8", "QAttention", [u8(B, S, H), i8(H, 3 * H), f(3 * H), s(.02), s(.01), None, s(128, np.uint8), s(0, np.int8)], num_heads=N, types=[1], tol=2e-3)

case("mha", "MultiHeadAttention", [f(B, S, H), f(B, 7, H), f(B, 7, H)], num_heads=N)
case("mha_bias", "MultiHeadAttention", [f(B, S, H), f(B, S, H), f(B, S, H), f(3 * H)], num_heads=N)
case("mha_mask", "MultiHeadAttention", [f(B, S, H), f(B, S, H), f(B, S, H), None, mask2], num_heads=N)
case("mha_attention_bias", "MultiHeadAttention", [f(B, S, H), f(B, S, H), f(B, S, H), None, None, f(B, N, S, S)], num_heads=N)
case("mha_past", "MultiHeadAttention", [f(B, 1, H), f(B, 1, H), f(B, 1, H), None, None, None, f(B, N, 6, D), f(B, N, 6, D)], outputs=3, num_heads=N)
case("mha_causal", "MultiHeadAttention", [f(B, S, H), f(B, S, H), f(B, S, H)], num_heads=N, unidirectional=1)
case("mha_cross", "MultiHeadAttention", [f(B, S, H), f(B, N, 7, D), f(B, N, 7, D)], num_heads=N)

G, GD = 2, 16  # ONNX Runtime wants heads of a multiple of 16 here
tables = lambda d: (lambda a: (np.cos(a).astype(np.float32), np.sin(a).astype(np.float32)))(rng.random((16, d // 2)) * 6)
cos, sin = tables(GD)
gqa = lambda b, q, p, ends, total, *more: [f(b, q, N * GD), f(b, q, G * GD), f(b, q, G * GD), f(b, G, p, GD), f(b, G, p, GD), i32(*ends), s(total, np.int32)] + list(more)
case("gqa_decode", "GroupQueryAttention", gqa(B, 1, 6, [6, 6], 7), outputs=3, num_heads=N, kv_num_heads=G)
case("gqa_prompt", "GroupQueryAttention", gqa(B, S, 0, [4, 4], 5), outputs=3, num_heads=N, kv_num_heads=G)
case("gqa_rotary", "GroupQueryAttention", gqa(B, 1, 6, [6, 6], 7, cos, sin), outputs=3, num_heads=N, kv_num_heads=G, do_rotary=1)
case("gqa_rotary_interleaved", "GroupQueryAttention", gqa(B, S, 0, [4, 4], 5, cos, sin), outputs=3, num_heads=N, kv_num_heads=G, do_rotary=1, rotary_interleaved=1)
case("gqa_uneven", "GroupQueryAttention", gqa(B, 1, 6, [6, 3], 7), outputs=3, num_heads=N, kv_num_heads=G)
case("gqa_buffer", "GroupQueryAttention", gqa(B, 1, 12, [6, 3], 7), outputs=3, num_heads=N, kv_num_heads=G)
case("gqa_window", "GroupQueryAttention", gqa(1, 1, 8, [8], 9), outputs=3, num_heads=N, kv_num_heads=G, local_window_size=4)
case("gqa_window_prompt", "GroupQueryAttention", gqa(1, S, 0, [4], 5), outputs=3, num_heads=N, kv_num_heads=G, local_window_size=2)
case("gqa_softcap", "GroupQueryAttention", gqa(1, 1, 8, [8], 9), outputs=3, num_heads=N, kv_num_heads=G, softcap=3.0, scale=0.7)
case("gqa_packed", "GroupQueryAttention", [f(1, S, (N + 2 * G) * GD), None, None, f(1, G, 0, GD), f(1, G, 0, GD), i32(4), s(5, np.int32)], outputs=3, num_heads=N, kv_num_heads=G)
case("gqa_bias", "GroupQueryAttention", gqa(1, 1, 6, [6], 7, None, None, None, f(1, N, 1, 7)), outputs=3, num_heads=N, kv_num_heads=G)

cos, sin = tables(D)
case("rotary", "RotaryEmbedding", [f(B, S, H), i64(3), cos, sin])
case("rotary_ids", "RotaryEmbedding", [f(B, S, H), rng.integers(0, 16, (B, S)), cos, sin], interleaved=1)
case("rotary_4d", "RotaryEmbedding", [f(B, N, S, D), i64(0), cos, sin])
case("rotary_part", "RotaryEmbedding", [f(B, S, H), i64(0), cos[:, :2].copy(), sin[:, :2].copy()], num_heads=N, rotary_embedding_dim=4)

case("fused_matmul", "FusedMatMul", [f(2, 5, 3), f(2, 5, 4)], transA=1, alpha=0.5)
case("fused_matmul_b", "FusedMatMul", [f(2, 3, 5), f(4, 5)], transB=1)
case("fused_matmul_batch", "FusedMatMul", [f(3, 2, 5), f(2, 5, 4)], transBatchA=1)
case("transpose_matmul", "TransposeMatMul", [f(2, 5, 3), f(2, 5, 4)], transA=1)
case("fused_gemm", "FusedGemm", [f(5, 3), f(5, 4), f(4)], transA=1, alpha=0.5, beta=2.0, activation="Relu")
case("fused_gemm_leaky", "FusedGemm", [f(3, 5), f(5, 4), f(3, 4)], activation="LeakyRelu", activation_alpha=0.2)
for act, p in {"Relu": [], "Sigmoid": [], "Tanh": [], "LeakyRelu": [0.2], "Clip": [-0.5, 0.5], "HardSigmoid": [0.3, 0.4]}.items():
    more = {"activation_params": p} if p else {}
    case("fused_conv_" + act, "FusedConv", [f(1, 3, 8, 8), f(4, 3, 3, 3), f(4)], activation=act, pads=[1, 1, 1, 1], **more)
case("fused_conv_sum", "FusedConv", [f(1, 3, 8, 8), f(4, 3, 3, 3), f(4), f(1, 4, 8, 8)], activation="Relu", pads=[1, 1, 1, 1])
case("nhwc_max_pool", "NhwcMaxPool", [u8(1, 9, 9, 5)], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

zp = lambda t, v: s(v, t)
case("to_float", "MatMulIntegerToFloat", [u8(3, 17), i8(17, 9), s(.02), s(.01), zp(np.uint8, 120), zp(np.int8, 3), f(9)], types=[1])
case("to_float_columns", "MatMulIntegerToFloat", [u8(3, 17), Const(u8(17, 9)), s(.02), Const(np.abs(f(9)) * .01), zp(np.uint8, 120), Const(u8(9))], types=[1])
case("to_float_s8", "MatMulIntegerToFloat", [i8(2, 3, 40), Const(i8(40, 33)), s(.02), Const(s(.01)), zp(np.int8, -7)], types=[1])
case("dynamic_matmul", "DynamicQuantizeMatMul", [f(3, 17), Const(i8(17, 9)), Const(s(.01)), Const(zp(np.int8, 2)), Const(f(9))])
case("dynamic_matmul_columns", "DynamicQuantizeMatMul", [f(2, 3, 40), Const(u8(40, 33)), Const(np.abs(f(33)) * .01), Const(u8(33))])
X, HID = 6, 8
for tag, shape in {"": (1,), "_columns": (1, 4 * HID)}.items():
    case("dynamic_lstm" + tag, "DynamicQuantizeLSTM", [f(S, B, X), Const(i8(1, X, 4 * HID)), Const(i8(1, HID, 4 * HID)), f(1, 8 * HID), None, None, None, None,
         Const(np.full(shape, .004, np.float32)), Const(np.zeros(shape, np.int8)), Const(np.full(shape, .005, np.float32)), Const(np.zeros(shape, np.int8))],
         outputs=3, hidden_size=HID, tol=2e-2)
case("qlinear_conv_nhwc", "QLinearConv", [u8(1, 7, 7, 6), s(.02), zp(np.uint8, 128), Const(i8(8, 6, 3, 3)), Const(s(.01)), Const(zp(np.int8, 0)), s(.1), zp(np.uint8, 120)], channels_last=1, pads=[1, 1, 1, 1], quantum=1)
case("qlinear_mean", "QLinearReduceMean", [u8(2, 3, 8, 8), s(.02), zp(np.uint8, 128), s(.01), zp(np.uint8, 120)], axes=[2, 3], quantum=1)
case("qlinear_where", "QLinearWhere", [rng.random((4, 5)) < .5, u8(4, 5), s(.02), zp(np.uint8, 128), u8(4, 5), s(.03), zp(np.uint8, 100), s(.02), zp(np.uint8, 120)], types=[2], quantum=1)
case("quantize", "QuantizeLinear", [f(3, 5), s(.0001), zp(np.uint16, 32768)], types=[4])
case("dequantize", "DequantizeLinear", [rng.integers(-30000, 30000, (3, 5)).astype(np.int16), s(.0001), zp(np.int16, 7)], types=[1])
case("cdist", "CDist", [f(4, 3), f(5, 3)], metric="euclidean")
case("expand_dims", "ExpandDims", [f(4, 3), s(-1, np.int32)])
case("range", "Range", [s(1.), s(5.5), s(.5)])
case("trilu", "Trilu", [f(2, 4, 5), s(1, np.int64)], upper=0)
case("gather_nd", "GatherND", [f(4, 5, 3), np.array([[1, 2], [3, 0]], np.int64)], domain="", tol=0)
case("unique", "Unique", [np.array([3, 1, 3, 2, 1], np.float32)], outputs=3, types=[1, 7, 7])
case("grid_sample", "GridSample", [f(1, 2, 5, 6), rng.uniform(-1.2, 1.2, (1, 3, 4, 2)).astype(np.float32)], mode="bilinear", padding_mode="border", align_corners=1)
case("pad", "Pad", [f(2, 3), i64(0, 1, 1, 0), np.array([2.5], np.float32)], mode="constant")
case("inverse", "Inverse", [f(2, 5, 5) + 3 * np.eye(5, dtype=np.float32)], tol=1e-3)
case("scaled_tanh", "ScaledTanh", [f(3, 4)], domain="", alpha=1.5, beta=0.7)
case("affine", "Affine", [f(3, 4)], domain="", alpha=1.5, beta=0.7)
case("parametric_softplus", "ParametricSoftplus", [f(3, 4)], domain="", alpha=1.5, beta=0.7)
case("image_scaler", "ImageScaler", [f(1, 3, 4, 4)], domain="", scale=0.5, bias=[1.0, 2.0, 3.0])
case("crop", "Crop", [f(1, 3, 8, 9)], domain="", border=[1, 2, 3, 1])
case("crop_scale", "Crop", [f(1, 3, 8, 9)], domain="", border=[1, 2, 3, 1], scale=[3, 4])


def nbits(bits, block, k, n, zero=None, float_zero=False, order=False, bias=False, m=(1,)):
    blocks = (k + block - 1) // block
    b = u8(n, blocks, max(1, block * bits // 8))
    inputs = [f(*m, k), Const(b), Const(np.abs(f(n * blocks)) * .1 + .01)]
    if float_zero:
        inputs.append(Const((rng.random(n * blocks) * (2 ** bits - 1)).astype(np.float32)))
    elif zero:
        inputs.append(Const(u8(n * ((blocks * bits + 7) // 8))))
    if order or bias:
        inputs += [None] * (4 - len(inputs))
        inputs.append(Const(np.sort(rng.integers(0, blocks, k)).astype(np.int32)) if order else None)
    if bias:
        inputs.append(Const(f(n)))
    return inputs


for bits in (4, 8, 2):
    for block, k, n, m in ((32, 128, 70, (1,)), (16, 100, 33, (5,)), (128, 256, 48, (2, 3))):
        for zero in (False, True):
            case(f"nbits_{bits}_{block}_{'zero' if zero else 'mid'}", "MatMulNBits", nbits(bits, block, k, n, zero=zero, m=m), K=k, N=n, bits=bits, block_size=block, tol=1e-3)
case("nbits_4_level4", "MatMulNBits", nbits(4, 32, 256, 70, zero=True, m=(3,)), K=256, N=70, bits=4, block_size=32, accuracy_level=4, tol=3e-2)
case("nbits_4_order", "MatMulNBits", nbits(4, 32, 128, 70, order=True, m=(3,)), K=128, N=70, bits=4, block_size=32, tol=1e-3)
case("nbits_4_float_zero", "MatMulNBits", nbits(4, 32, 128, 70, float_zero=True, m=(3,)), K=128, N=70, bits=4, block_size=32, tol=1e-3)
case("nbits_4_bias", "MatMulNBits", nbits(4, 32, 128, 70, bias=True, m=(3,)), K=128, N=70, bits=4, block_size=32, tol=1e-3)


class Packed4(Const):
    """uint8 pairs that an initializer holds as 4-bit elements."""

    def __init__(self, a, shape, signed=False):
        super().__init__(a)
        self.shape, self.signed = shape, signed


rows = rng.integers(0, 9, (3, 2))
case("gather_block_8", "GatherBlockQuantized", [Const(u8(9, 16)), rows, Const(np.abs(f(9, 2)) * .1)], bits=4, block_size=16, gather_axis=0, quantize_axis=1, types=[1])
case("gather_block_8_zero", "GatherBlockQuantized", [Const(u8(9, 16)), rows, Const(np.abs(f(9, 2)) * .1), Const(u8(9, 1))], bits=4, block_size=16, gather_axis=0, quantize_axis=1, types=[1])
case("gather_block_bits8", "GatherBlockQuantized", [Const(u8(9, 32)), rows, Const(np.abs(f(9, 2)) * .1), Const(u8(9, 2))], bits=8, block_size=16, gather_axis=0, quantize_axis=1, types=[1])
case("gather_block_u4", "GatherBlockQuantized", [Packed4(u8(9 * 16), (9, 32)), rows, Const(np.abs(f(9, 2)) * .1), Packed4(u8(9), (9, 2))], block_size=16, gather_axis=0, quantize_axis=1, types=[1])
case("gather_block_i4", "GatherBlockQuantized", [Packed4(u8(9 * 16), (9, 32), True), rows, Const(np.abs(f(9, 2)) * .1)], block_size=16, gather_axis=0, quantize_axis=1, types=[1])


for tag, more in {"": {}, "_sigmoid": {"activation": "sigmoid", "epsilon": 1e-3}}.items():
    case("gated_rms" + tag, "GatedRMSNorm", [f(2, 3, 24), f(24), f(2, 3, 24)], **more)
case("gated_rms_heads", "GatedRMSNorm", [f(2, 3, 24), f(8), f(2, 3, 24)])
for tag, ins, more in (("", [f(3, 4, 8)], {}), ("_width", [f(3, 4, 8), f(8)], {}), ("_matrix", [f(3, 4, 8), f(4, 8)], {}), ("_flat", [f(3, 32), f(32)], {"num_branches": 4}),
                       ("_flat_width", [f(3, 32), f(8)], {"num_branches": 4, "epsilon": 1e-2})):
    case("branchwise_rms" + tag, "BranchwiseRMSNorm", ins, **more)
case("gated_add", "GatedAdd", [f(2, 3, 8), f(2, 3, 8), f(2, 3, 1)])
case("scaled_silu", "ScaledSiLU", [f(3, 70)], alpha=1.5)
case("scaled_silu_input", "ScaledSiLU", [f(3, 70), s(0.3)])
for tag, quant_type, n, k, block in (("nf4", 1, 48, 32, 16), ("fp4", 0, 48, 32, 64), ("nf4_wide", 1, 5, 64, 128)):
    case("bnb_" + tag, "MatMulBnb4", [f(2, 3, k), Const(u8((n * k + 1) // 2)), Const(np.abs(f((n * k + block - 1) // block)))], N=n, K=k, block_size=block, quant_type=quant_type)
rois = np.array([[0, 0, 1, 1], [0.2, 0.1, 0.7, 1.2], [0.9, 0.8, 0.1, 0.2], [-0.1, 0.3, 0.5, 0.31]], np.float32)
for tag, size, more in (("", (4, 5), {"extrapolation_value": 0.5}), ("_nearest", (4, 5), {"mode": "nearest"}), ("_one", (1, 3), {})):
    case("crop_resize" + tag, "CropAndResize", [f(2, 3, 6, 7), rois, i32(0, 1, 1, 0), Const(i32(*size))], **more)
case("crop_resize_size", "CropAndResize", [f(2, 3, 6, 7), rois, i32(0, 1, 1, 0), i32(3, 2)])


def model_of(op, inputs, outputs, domain, types, attrs):
    names, feeds, infos, inits = [], {}, [], []
    for k, a in enumerate(inputs):
        if a is None:
            names.append("")
            continue
        name = f"in{k}"
        names.append(name)
        if isinstance(a, Packed4):
            inits.append(TensorProto(name=name, data_type=TensorProto.INT4 if a.signed else TensorProto.UINT4, dims=a.shape, raw_data=a.a.tobytes()))
        elif isinstance(a, Const):
            inits.append(numpy_helper.from_array(a.a, name))
        else:
            feeds[name] = np.asarray(a, order="C")
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape))
    while names and not names[-1]:
        names.pop()
    wanted = list(range(outputs)) if isinstance(outputs, int) else outputs
    outs = [f"out{o}" if o in wanted else "" for o in range(max(wanted) + 1)]
    first = next(a for a in inputs if a is not None)
    own = helper.np_dtype_to_tensor_dtype((first.a if isinstance(first, Const) else first).dtype)
    out_infos = [helper.make_tensor_value_info(f"out{o}", types[i] if types else own, None) for i, o in enumerate(wanted)]
    node = helper.make_node(op, names, outs, name="node", domain=domain, **attrs)
    graph = helper.make_graph([node], "one", infos, out_infos, inits)
    old = op in ("ScaledTanh", "Affine", "ParametricSoftplus", "ImageScaler", "Crop")
    return helper.make_model(graph, ir_version=10 if not old else 7, opset_imports=[helper.make_opsetid("", 9 if old else 21), helper.make_opsetid(MS, 1)]), feeds


def compare(got, want, tol, quantum):
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape} for {want.dtype}{want.shape}"
    if want.size == 0:
        return ""
    g, w = got.astype(np.float64), want.astype(np.float64)
    limit = quantum if np.issubdtype(want.dtype, np.integer) else tol * max(1.0, np.abs(w).max())
    worst = np.abs(g - w).max()
    return "" if worst <= limit else f"differs by {worst:.3g}, {limit:.3g} allowed"


RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "contrib_expected.npz")


def runtime(model, feeds):
    """ONNX Runtime's outputs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def fingerprint(model, feeds):
    """Of everything that goes in: NumPy may draw other numbers one day."""
    crc = 0
    for a in [*feeds.values(), *map(numpy_helper.to_array, model.graph.initializer)]:
        crc = zlib.crc32(np.ascontiguousarray(a).tobytes(), crc)
    return crc


def record():
    """All answers end to end in one array of bytes; where each lies, in JSON."""
    index, data = {"onnxruntime": ort.__version__}, b""
    for name, op, inputs, outputs, tol, domain, types, quantum, attrs in CASES:
        model, feeds = model_of(op, inputs, outputs, domain, types, attrs)
        try:
            want = runtime(model, feeds)
        except Exception as e:
            print(f"not recorded: {name}: {str(e).splitlines()[0][:150]}")
            continue
        index[name] = {"inputs": fingerprint(model, feeds), "outputs": [[a.dtype.str, list(a.shape)] for a in want]}
        data += b"".join(np.ascontiguousarray(a).tobytes() for a in want)
    np.savez_compressed(RECORD, data=np.frombuffer(data, np.uint8), index=np.frombuffer(json.dumps(index).encode(), np.uint8))


class Recorded:
    def __init__(self):
        file = np.load(RECORD)
        self.index, data, at = json.loads(file["index"].tobytes()), file["data"].tobytes(), 0
        self.values = {}
        for name, entry in self.index.items():
            for dtype, shape in entry["outputs"] if name != "onnxruntime" else []:
                count = int(np.prod(shape))
                self.values.setdefault(name, []).append(np.frombuffer(data, dtype, count, at).reshape(shape))
                at += count * np.dtype(dtype).itemsize

    def __call__(self, name, model, feeds):
        if name not in self.values:
            raise KeyError("no recorded answer")
        if self.index[name]["inputs"] != fingerprint(model, feeds):
            raise ValueError("this NumPy draws other inputs than were recorded")
        return self.values[name]


def main():
    if sys.argv[1] == "--record":
        return record()
    quern, only = sys.argv[1], sys.argv[2:]
    recorded = None if ort else Recorded()
    failed = skipped = passed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, op, inputs, outputs, tol, domain, types, quantum, attrs in CASES:
            if only and not any(name.startswith(o) for o in only):
                continue
            model, feeds = model_of(op, inputs, outputs, domain, types, attrs)
            path = os.path.join(folder, name + ".onnx")
            onnx.save(model, path)
            names = [o.name for o in model.graph.output]
            try:
                want = recorded(name, model, feeds) if recorded else runtime(model, feeds)
            except Exception as e:
                print(f"skip {name}: ONNX Runtime: {str(e).splitlines()[0][:150]}")
                skipped += 1
                continue
            args = []
            for n, a in feeds.items():
                np.save(os.path.join(folder, n + ".npy"), a)
                args += ["--input", f"{n}={folder}/{n}.npy"]
            out = os.path.join(folder, "out_" + name)
            run = subprocess.run([quern, "run", path, *args, "--output-dir", out], capture_output=True, text=True)
            if run.returncode:
                print(f"FAIL {name}: {(run.stderr or run.stdout).strip()[:300]}")
                failed += 1
                continue
            if name in FIRST_ONLY:
                names = names[:1]
            problems = [p for n, w in zip(names, want) if (p := compare(np.load(os.path.join(out, n + ".npy")), w, tol, quantum))]
            if problems:
                print(f"FAIL {name}: {problems}")
                failed += 1
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped; ONNX Runtime {'as recorded' if recorded else ort.__version__}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
