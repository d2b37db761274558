#!/usr/bin/env python3
"""Writes the seeds of tests/fuzz/corpus: small models, each around a few operators. Needs the onnx package.

    python tests/fuzz/make_corpus.py tests/fuzz/corpus
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(0)


def const(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def floats(name, *shape):
    return const(name, rng.standard_normal(shape).astype(np.float32))


def save(name, nodes, inputs, outputs, inits=(), opset=20, functions=(), extra=(), ir=10):
    vi = lambda v: h.make_tensor_value_info(*v) if isinstance(v, tuple) else v
    graph = h.make_graph(nodes, name, [vi(i) for i in inputs], [vi(o) for o in outputs], list(inits))
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, v) for d, v in extra]
    model = h.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=ir, producer_name="q")
    with open(os.path.join(out, name + ".onnx"), "wb") as f:
        f.write(model.SerializeToString())


N = h.make_node
F, I = T.FLOAT, T.INT64

save("mlp", [N("MatMul", ["x", "w"], ["a"]), N("Add", ["a", "b"], ["c"]), N("Relu", ["c"], ["d"]), N("Softmax", ["d"], ["y"], axis=-1)],
     [("x", F, ["N", 4])], [("y", F, ["N", 3])], [floats("w", 4, 3), floats("b", 3)])
save("gemm", [N("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1)],
     [("x", F, [2, 4])], [("y", F, [2, 3])], [floats("w", 3, 4), floats("b", 3)], opset=13)
save("conv", [N("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
              N("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], epsilon=1e-3), N("Relu", ["c"], ["d"]),
              N("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], ceil_mode=1), N("GlobalAveragePool", ["e"], ["f"]), N("Flatten", ["f"], ["y"])],
     [("x", F, ["N", 2, 7, 7])], [("y", F, ["N", 3])],
     [floats("w", 3, 2, 3, 3), floats("b", 3), floats("s", 3), floats("m", 3), const("v", np.ones(3, np.float32))])
save("conv_old", [N("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER", group=2, dilations=[1, 2]),
                  N("AveragePool", ["a"], ["b"], kernel_shape=[2, 2], count_include_pad=1, pads=[1, 1, 0, 0]), N("LRN", ["b"], ["y"], size=3)],
     [("x", F, [1, 4, 5, 5])], [("y", F, None)], [floats("w", 4, 2, 3, 3)], opset=7)
save("conv1d_3d", [N("Conv", ["x", "w"], ["a"], pads=[1, 1]), N("Unsqueeze", ["a", "ax"], ["b"]), N("Conv", ["b", "w2"], ["y"])],
     [("x", F, [1, 2, "L"])], [("y", F, None)], [floats("w", 3, 2, 3), floats("w2", 2, 1, 1, 1, 1), const("ax", np.array([1, 3], np.int64))])
save("conv_transpose", [N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])],
     [("x", F, [1, 2, 3, 3])], [("y", F, None)], [floats("w", 2, 3, 3, 3)])
save("shapes", [N("Shape", ["x"], ["s"]), N("Gather", ["s", "zero"], ["n"]), N("Unsqueeze", ["n", "axis"], ["nn"]),
                N("Concat", ["nn", "minus"], ["t"], axis=0), N("Reshape", ["x", "t"], ["r"]), N("Transpose", ["r"], ["tr"], perm=[1, 0]),
                N("Slice", ["tr", "from", "to", "axis", "step"], ["sl"]), N("Expand", ["sl", "big"], ["ex"]), N("Squeeze", ["ex", "axis"], ["y"])],
     [("x", F, ["N", 3, 2])], [("y", F, None)],
     [const("zero", np.int64(0)), const("axis", np.array([0], np.int64)), const("minus", np.array([-1], np.int64)),
      const("from", np.array([5], np.int64)), const("to", np.array([-100], np.int64)), const("step", np.array([-2], np.int64)),
      const("big", np.array([1, 1, 1], np.int64))])
save("gather_scatter", [N("Gather", ["x", "i"], ["a"], axis=1), N("GatherElements", ["x", "e"], ["b"], axis=0),
                        N("ScatterElements", ["x", "e", "b"], ["c"], axis=0, reduction="add"), N("GatherND", ["c", "nd"], ["d"]),
                        N("ScatterND", ["c", "nd", "d"], ["y"])],
     [("x", F, [3, 4]), ("i", I, [2])], [("a", F, None), ("y", F, None)],
     [const("e", np.array([[0, 1, 2, -1], [1, 1, 0, 0]], np.int64)), const("nd", np.array([[0, 1], [2, -1]], np.int64))])
save("indices_in", [N("Gather", ["x", "i"], ["a"]), N("Slice", ["x", "b", "e"], ["s"]), N("Tile", ["x", "r"], ["t"]), N("Pad", ["x", "p"], ["q"]),
                    N("OneHot", ["i", "depth", "v"], ["o"]), N("Reshape", ["x", "r"], ["u"], allowzero=1)],
     [("x", F, ["A", "B"]), ("i", I, ["K"]), ("b", I, [2]), ("e", I, [2]), ("r", I, [2]), ("p", I, [4]), ("depth", I, [])],
     [("a", F, None), ("s", F, None), ("t", F, None), ("q", F, None), ("o", F, None), ("u", F, None)], [const("v", np.array([0, 1], np.float32))])
save("reduce", [N("ReduceMean", ["x", "ax"], ["a"], keepdims=0), N("ReduceMax", ["x"], ["b"]), N("ArgMax", ["x"], ["c"], axis=1),
                N("ReduceSum", ["x"], ["d"], noop_with_empty_axes=1), N("ReduceL2", ["x", "ax"], ["e"]), N("CumSum", ["x", "one"], ["f"]),
                N("TopK", ["x", "k"], ["g", "gi"])],
     [("x", F, ["N", 4])], [(n, F, None) for n in "abdefg"] + [("c", I, None), ("gi", I, None)],
     [const("ax", np.array([-1], np.int64)), const("one", np.int64(1)), const("k", np.array([2], np.int64))])
save("elementwise", [N("Add", ["x", "z"], ["a"]), N("Mul", ["a", "a"], ["b"]), N("Div", ["b", "z"], ["c"]), N("Pow", ["c", "z"], ["d"]),
                     N("Sqrt", ["d"], ["e"]), N("Erf", ["e"], ["f"]), N("Sigmoid", ["f"], ["g"]), N("Tanh", ["g"], ["i"]), N("Clip", ["i", "lo", "hi"], ["j"]),
                     N("Where", ["m", "j", "x"], ["k"]), N("Less", ["k", "x"], ["m2"]), N("Not", ["m2"], ["y"]), N("Gelu", ["k"], ["u"]),
                     N("LeakyRelu", ["u"], ["v"], alpha=0.1), N("Max", ["v", "u", "x"], ["w"])],
     [("x", F, ["N", 1, 3]), ("z", F, [2, 1]), ("m", T.BOOL, [1])], [("y", T.BOOL, None), ("w", F, None)], [const("lo", np.float32(-1)), const("hi", np.float32(1))])
save("integers", [N("Div", ["x", "z"], ["a"]), N("Mod", ["x", "z"], ["b"]), N("Mod", ["x", "z"], ["c"], fmod=1), N("Pow", ["x", "z"], ["d"]),
                  N("BitShift", ["u", "u"], ["e"], direction="LEFT"), N("BitwiseAnd", ["x", "z"], ["f"]), N("Neg", ["x"], ["g"]), N("Abs", ["x"], ["i"]),
                  N("Cast", ["x"], ["j"], to=F), N("Range", ["s", "l", "dd"], ["k"])],
     [("x", T.INT32, [3]), ("z", T.INT32, [3]), ("u", T.UINT8, [3]), ("s", I, []), ("l", I, []), ("dd", I, [])],
     [(n, T.INT32, None) for n in "abcdfgi"] + [("e", T.UINT8, None), ("j", F, None), ("k", I, None)])
save("old_broadcast", [N("Add", ["x", "b"], ["a"], broadcast=1, axis=1), N("Clip", ["a"], ["c"], min=-1.0, max=1.0), N("Softmax", ["c"], ["d"], axis=1),
                       N("Unsqueeze", ["d"], ["e"], axes=[0]), N("Dropout", ["e"], ["y"], is_test=1)],
     [("x", F, [2, 3, 2])], [("y", F, None)], [floats("b", 3)], opset=6)
then = h.make_graph([N("Add", ["x", "x"], ["t"])], "then", [], [h.make_tensor_value_info("t", F, None)])
other = h.make_graph([N("Neg", ["x"], ["o"])], "else", [], [h.make_tensor_value_info("o", F, None)])
save("if", [N("If", ["c"], ["y"], then_branch=then, else_branch=other)], [("x", F, ["N"]), ("c", T.BOOL, [])], [("y", F, None)])
body = h.make_graph([N("Add", ["acc", "x"], ["acc2"]), N("Identity", ["cin"], ["cout"]), N("Identity", ["acc2"], ["scan"])], "body",
                    [h.make_tensor_value_info("it", I, []), h.make_tensor_value_info("cin", T.BOOL, []), h.make_tensor_value_info("acc", F, [2])],
                    [h.make_tensor_value_info("cout", T.BOOL, []), h.make_tensor_value_info("acc2", F, [2]), h.make_tensor_value_info("scan", F, [2])])
save("loop", [N("Loop", ["n", "c", "x"], ["y", "ys"], body=body)], [("x", F, [2]), ("n", I, []), ("c", T.BOOL, [])], [("y", F, None), ("ys", F, None)])
sbody = h.make_graph([N("Add", ["st", "e"], ["st2"]), N("Identity", ["st2"], ["o"])], "sbody",
                     [h.make_tensor_value_info("st", F, [2]), h.make_tensor_value_info("e", F, [2])],
                     [h.make_tensor_value_info("st2", F, [2]), h.make_tensor_value_info("o", F, [2])])
save("scan", [N("Scan", ["s", "x"], ["y", "ys"], body=sbody, num_scan_inputs=1)], [("s", F, [2]), ("x", F, ["T", 2])], [("y", F, None), ("ys", F, None)])
f = h.make_function("local", "Twice", ["a"], ["b"], [N("Mul", ["a", "k"], ["b"]) if 0 else N("Add", ["a", "a"], ["b"])], [h.make_opsetid("", 20)])
g = h.make_function("local", "Four", ["a"], ["b"], [N("Twice", ["a"], ["t"], domain="local"), N("Twice", ["t"], ["b"], domain="local")],
                    [h.make_opsetid("", 20), h.make_opsetid("local", 1)])
save("functions", [N("Four", ["x"], ["y"], domain="local")], [("x", F, ["N"])], [("y", F, None)], functions=[f, g], extra=[("local", 1)])
save("qdq", [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["d"]), N("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
             N("MatMul", ["d", "wd"], ["m"]), N("QuantizeLinear", ["m", "s", "z"], ["q2"]), N("DequantizeLinear", ["q2", "s", "z"], ["y"])],
     [("x", F, ["N", 4])], [("y", F, None)],
     [const("s", np.float32(0.1)), const("z", np.uint8(128)), const("w", np.arange(12, dtype=np.int8).reshape(4, 3)),
      const("ws", np.array([.1, .2, .3], np.float32)), const("wz", np.zeros(3, np.int8))])
save("qlinear", [N("QLinearMatMul", ["x", "s", "z", "w", "s", "wz", "s", "z"], ["a"]), N("MatMulInteger", ["x", "w", "z", "wz"], ["b"]),
                 N("DynamicQuantizeLinear", ["f"], ["c", "d", "e"])],
     [("x", T.UINT8, [2, 4]), ("f", F, [3])], [("a", T.UINT8, None), ("b", T.INT32, None), ("c", T.UINT8, None)],
     [const("s", np.float32(0.1)), const("z", np.uint8(3)), const("w", np.arange(12, dtype=np.int8).reshape(4, 3)), const("wz", np.int8(1))])
save("lstm", [N("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], hidden_size=2, direction="bidirectional")],
     [("x", F, ["T", 1, 3])], [("y", F, None), ("h", F, None)], [floats("w", 2, 8, 3), floats("r", 2, 8, 2), floats("b", 2, 16)], opset=14)
save("gru", [N("GRU", ["x", "w", "r", "", "len"], ["y", "h"], hidden_size=2, linear_before_reset=1)],
     [("x", F, ["T", 2, 3]), ("len", T.INT32, [2])], [("y", F, None), ("h", F, None)], [floats("w", 1, 6, 3), floats("r", 1, 6, 2)], opset=14)
save("norms", [N("LayerNormalization", ["x", "g", "b"], ["a"], axis=-1), N("InstanceNormalization", ["x", "s", "s"], ["c"]),
               N("GroupNormalization", ["x", "s", "s"], ["d"], num_groups=2), N("LpNormalization", ["x"], ["e"], axis=1, p=1)],
     [("x", F, [1, 4, 3])], [(n, F, None) for n in "acde"], [floats("g", 3), floats("b", 3), floats("s", 4)], opset=21)
save("attention", [N("MatMul", ["q", "kt"], ["s"]), N("Div", ["s", "c"], ["d"]), N("Add", ["d", "mask"], ["m"]), N("Softmax", ["m"], ["p"]), N("MatMul", ["p", "v"], ["y"])],
     [("q", F, [1, 2, "T", 4]), ("kt", F, [1, 2, 4, "T"]), ("v", F, [1, 2, "T", 4]), ("mask", F, ["T", "T"])], [("y", F, None)], [const("c", np.float32(2))])
save("attention23", [N("Attention", ["q", "k", "v"], ["y"], is_causal=1, q_num_heads=2, kv_num_heads=1)],
     [("q", F, [1, "T", 8]), ("k", F, [1, "S", 4]), ("v", F, [1, "S", 4])], [("y", F, None)], opset=23)
save("resize", [N("Resize", ["x", "", "sc"], ["a"], mode="linear"), N("Resize", ["x", "", "", "sz"], ["b"], mode="nearest", nearest_mode="floor"),
                N("Resize", ["x", "", "sc"], ["c"], mode="cubic", coordinate_transformation_mode="align_corners"), N("DepthToSpace", ["x"], ["d"], blocksize=2),
                N("GridSample", ["x", "g"], ["e"])],
     [("x", F, [1, 4, 3, 3]), ("g", F, [1, 2, 2, 2])], [(n, F, None) for n in "abcde"], [const("sc", np.array([1, 1, 2, 1.5], np.float32)), const("sz", np.array([1, 4, 2, 5], np.int64))])
save("data_dependent", [N("NonZero", ["x"], ["a"]), N("Compress", ["x", "m"], ["b"], axis=0), N("Unique", ["x"], ["c", "i", "j", "k"], sorted=1), N("Shape", ["c"], ["s"])],
     [("x", F, [3, 2]), ("m", T.BOOL, [3])], [("a", I, None), ("b", F, None), ("c", F, None), ("s", I, None)])
save("nms", [N("NonMaxSuppression", ["b", "s", "n", "i", "t"], ["y"])], [("b", F, [1, 4, 4]), ("s", F, [1, 1, 4])], [("y", I, None)],
     [const("n", np.int64(2)), const("i", np.float32(.5)), const("t", np.float32(-1))])
save("roi", [N("RoiAlign", ["x", "r", "b"], ["y"], output_height=2, output_width=2), N("MaxRoiPool", ["x", "r5"], ["z"], pooled_shape=[2, 2])],
     [("x", F, [1, 2, 6, 6]), ("r", F, [2, 4]), ("b", I, [2]), ("r5", F, [1, 5])], [("y", F, None), ("z", F, None)])
save("einsum", [N("Einsum", ["a", "b"], ["y"], equation="bij,bjk->bik"), N("Einsum", ["y"], ["z"], equation="...ii->...i")], [("a", F, [2, 3, 4]), ("b", F, [2, 4, 3])], [("z", F, None)])
save("strings", [N("Equal", ["x", "x"], ["a"]), N("StringConcat", ["x", "x"], ["b"]), N("StringSplit", ["x"], ["c", "n"], delimiter=" "), N("Gather", ["x", "z"], ["d"]), N("Cast", ["w"], ["e"], to=T.STRING)],
     [("x", T.STRING, [2]), ("w", F, [2])], [("a", T.BOOL, None), ("b", T.STRING, None), ("c", T.STRING, None), ("d", T.STRING, None), ("e", T.STRING, None)], [const("z", np.int64(1))])
save("types", [N("Cast", ["x"], ["a"], to=T.FLOAT16), N("Cast", ["a"], ["b"], to=T.BFLOAT16), N("Cast", ["b"], ["c"], to=T.FLOAT8E4M3FN), N("Cast", ["c"], ["d"], to=T.DOUBLE),
               N("Cast", ["d"], ["e"], to=T.INT8), N("Cast", ["e"], ["f"], to=T.INT4), N("Cast", ["f"], ["g"], to=F), N("Add", ["a", "a"], ["i"]), N("CastLike", ["i", "d"], ["y"])],
     [("x", F, [3])], [("g", F, None), ("y", T.DOUBLE, None)], opset=21)
typed = [h.make_tensor("f16", T.FLOAT16, [2], [1.0, 2.0]), h.make_tensor("i4", T.INT4, [3], [1, -2, 3]), h.make_tensor("b", T.BOOL, [2], [True, False]),
         h.make_tensor("c64", T.COMPLEX64, [1], [1 + 2j]), h.make_tensor("u64", T.UINT64, [2], [1, 2]), h.make_tensor("d", T.DOUBLE, [2], [1, 2]), h.make_tensor("s", T.STRING, [1], [b"a"])]
save("typed_data", [N("Cast", ["f16"], ["y"], to=F), N("Cast", ["i4"], ["z"], to=F), N("Constant", [], ["k"], value=typed[5]), N("Constant", [], ["l"], value_ints=[1, 2]),
                    N("ConstantOfShape", ["l"], ["m"], value=h.make_tensor("v", F, [1], [3.0]))], [], [("y", F, None), ("z", F, None), ("k", T.DOUBLE, None), ("m", F, None)], typed, opset=21)
seq = h.make_tensor_sequence_value_info("sq", F, None)
save("sequences", [N("SequenceConstruct", ["x", "x"], ["sq"]), N("SequenceAt", ["sq", "z"], ["a"]), N("ConcatFromSequence", ["sq"], ["b"], axis=0), N("SplitToSequence", ["x"], ["s2"]), N("SequenceLength", ["s2"], ["n"])],
     [("x", F, [2, 2])], [("a", F, None), ("b", F, None), ("n", I, None)], [const("z", np.int64(0))])
body = lambda name, nodes, ins, outs, inits=(): h.make_graph(nodes, name, [vi if not isinstance(vi, tuple) else h.make_tensor_value_info(*vi) for vi in ins],
                                                             [vi if not isinstance(vi, tuple) else h.make_tensor_value_info(*vi) for vi in outs], list(inits))
counted = [("i", I, []), ("go", T.BOOL, [])]
opt = h.make_optional_type_proto(h.make_tensor_type_proto(F, None))
save("loop_sequence", [N("SequenceEmpty", [], ["e"]), N("Loop", ["n", "", "e"], ["l"], body=body("b", [
        N("Cast", ["i"], ["f"], to=F), N("Mul", ["x", "f"], ["xf"]), N("SequenceInsert", ["sq", "xf"], ["more"]), N("Identity", ["go"], ["on"])],
        counted + [h.make_tensor_sequence_value_info("sq", F, None)], [("on", T.BOOL, []), h.make_tensor_sequence_value_info("more", F, None)])),
      N("ConcatFromSequence", ["l"], ["y"], axis=0, new_axis=1), N("SequenceErase", ["l", "z"], ["k"]), N("SequenceLength", ["k"], ["c"])],
     [("n", I, []), ("x", F, ["N"])], [("y", F, None), ("c", I, None), h.make_tensor_sequence_value_info("l", F, None)], [const("z", np.int64(0))])
save("loop_nested", [N("Loop", ["n", "c", "x"], ["y", "s"], body=body("outer", [
        N("Loop", ["i", "", "v"], ["w", "t"], body=body("inner", [N("Add", ["u", "x"], ["u2"]), N("Less", ["j", "n"], ["on"])],
          [("j", I, []), ("jgo", T.BOOL, []), ("u", F, None)], [("on", T.BOOL, []), ("u2", F, None), ("j", I, [])])),
        N("Concat", ["w", "w"], ["v2"], axis=0), N("Shape", ["t"], ["r"]), N("Identity", ["go"], ["on2"])],
        counted + [("v", F, None)], [("on2", T.BOOL, []), ("v2", F, None), ("r", I, None)]))],
     [("x", F, ["N"])], [("y", F, None), ("s", I, None)], [const("n", np.int64(3)), const("c", np.array(True))])
scan_body = body("b", [N("Add", ["s", "v"], ["t"]), N("Mul", ["t", "k"], ["u"])], [("s", F, ["K"]), ("v", F, ["K"])], [("t", F, ["K"]), ("u", F, ["K"])])
save("scan_axes", [N("Scan", ["s0", "x"], ["l", "y"], num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[-1], scan_input_directions=[1], body=scan_body)],
     [("s0", F, [2]), ("x", F, [2, 3])], [("l", F, None), ("y", F, None)], [floats("k", 2)], opset=11)
save("scan8", [N("Scan", ["n", "s0", "x"], ["l", "y"], num_scan_inputs=1, directions=[1], body=scan_body)],
     [("n", I, [2]), ("s0", F, [2, 2]), ("x", F, [2, 3, 2])], [("l", F, None), ("y", F, None)], [floats("k", 2)], opset=8)
save("sequence_map", [N("SequenceMap", ["q", "x"], ["r"], body=body("b", [N("Add", ["e", "d"], ["y"])], [("e", F, None), ("d", F, None)], [("y", F, None)])), N("SequenceAt", ["r", "z"], ["a"])],
     [h.make_tensor_sequence_value_info("q", F, None), ("x", F, ["N"])], [h.make_tensor_sequence_value_info("r", F, None), ("a", F, None)], [const("z", np.int64(-1))])
save("optional", [N("OptionalHasElement", ["o"], ["h"]), N("If", ["h"], ["y"], then_branch=body("t", [N("OptionalGetElement", ["o"], ["g"])], [], [("g", F, None)]), else_branch=body("e", [], [], [("x", F, None)])),
                  N("Optional", [], ["p"], type=h.make_tensor_type_proto(F, None)), N("OptionalHasElement", ["p"], ["k"]), N("Optional", ["y"], ["w"])],
     [h.make_value_info("o", opt), ("x", F, ["N"])], [("y", F, None), ("k", T.BOOL, []), h.make_value_info("w", opt)], opset=18)
save("map_input", [N("Identity", ["m"], ["k"]), N("SequenceConstruct", ["x"], ["q"])],
     [h.make_value_info("m", h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(F, []))), ("x", F, [2])],
     [h.make_value_info("k", h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(F, []))), h.make_tensor_sequence_value_info("q", F, None)])
save("split", [N("Split", ["x", "sp"], ["a", "b"], axis=1), N("Split", ["x"], ["c", "d", "e"], axis=1, num_outputs=3), N("Concat", ["a", "e"], ["y"], axis=0), N("Trilu", ["x", ""], ["t"], upper=0), N("ReverseSequence", ["x", "l"], ["r"], batch_axis=0, time_axis=1)],
     [("x", F, [2, 5]), ("l", I, [2])], [("b", F, None), ("c", F, None), ("t", F, None), ("r", F, None)], [const("sp", np.array([2, 3], np.int64))])
save("signal", [N("DFT", ["x", "", "ax"], ["a"]), N("HannWindow", ["n"], ["w"]), N("STFT", ["s", "st", "w"], ["b"])], [("x", F, [1, 4, 1]), ("s", F, [1, 8])], [("a", F, None), ("b", F, None)],
     [const("ax", np.int64(1)), const("n", np.int64(4)), const("st", np.int64(2))])
save("random", [N("RandomNormal", [], ["a"], shape=[2, 2], seed=1.0), N("RandomUniformLike", ["x"], ["b"]), N("Bernoulli", ["b"], ["c"]), N("Multinomial", ["x"], ["d"], sample_size=2), N("EyeLike", ["x"], ["e"], k=1)],
     [("x", F, [2, 3])], [("a", F, None), ("b", F, None), ("c", F, None), ("d", T.INT32, None), ("e", F, None)])
save("losses", [N("SoftmaxCrossEntropyLoss", ["x", "t"], ["a", "p"], reduction="mean", ignore_index=-1), N("NegativeLogLikelihoodLoss", ["p", "t"], ["b"]), N("LogSoftmax", ["x"], ["c"]), N("Hardmax", ["x"], ["d"])],
     [("x", F, [2, 3]), ("t", I, [2])], [("a", F, None), ("b", F, None), ("c", F, None), ("d", F, None)])
save("contrib", [N("FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft", transB=1), N("Gelu", ["a"], ["b"], domain="com.microsoft"), N("SkipLayerNormalization", ["b", "b", "g"], ["c"], domain="com.microsoft"),
                 N("FastGelu", ["c"], ["d"], domain="com.microsoft")],
     [("x", F, ["N", "T", 4])], [("d", F, None)], [floats("w", 3, 4), floats("g", 3)], extra=[("com.microsoft", 1)])
save("ml", [N("LinearClassifier", ["x"], ["l", "p"], domain="ai.onnx.ml", coefficients=[.1, .2, .3, .4], intercepts=[0., 1.], classlabels_ints=[0, 1], post_transform="SOFTMAX"),
            N("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0., 1.], scale=[1., 2.]),
            N("TreeEnsembleRegressor", ["x"], ["t"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
              nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[.5, 0., 0.], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
              target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1., 2.])],
     [("x", F, ["N", 2])], [("l", I, None), ("p", F, None), ("s", F, None), ("t", F, None)], extra=[("ai.onnx.ml", 3)])
sparse = h.make_sparse_tensor(floats("sv", 2), const("si", np.array([0, 5], np.int64)), [2, 3])
m = h.make_model(h.make_graph([N("Constant", [], ["s"], sparse_value=sparse), N("Add", ["x", "s"], ["y"]), N("Add", ["y", "sv"], ["z"])], "sparse",
                              [h.make_tensor_value_info("x", F, [2, 3])], [h.make_tensor_value_info("z", F, None)], sparse_initializer=[sparse]), opset_imports=[h.make_opsetid("", 20)])
open(os.path.join(out, "sparse.onnx"), "wb").write(m.SerializeToString())
ext = floats("w", 4, 3)
raw = ext.raw_data
ext.ClearField("raw_data")
ext.data_location = T.EXTERNAL
for k, v in (("location", "w.bin"), ("offset", "0"), ("length", "48")):
    e = ext.external_data.add()
    e.key, e.value = k, v
save("external", [N("MatMul", ["x", "w"], ["y"])], [("x", F, ["N", 4])], [("y", F, None)], [ext])

ML = "ai.onnx.ml"
tree = dict(nodes_treeids=[0] * 5 + [1] * 3, nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2], nodes_featureids=[0, 2, 0, 0, 0, 1, 0, 0], nodes_values=[0.5, -1.0, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "BRANCH_EQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0], nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
            nodes_missing_value_tracks_true=[0, 1, 0, 0, 0, 1, 0, 0])
leaf = lambda stem: {stem + "_treeids": [0, 0, 0, 1, 1], stem + "_nodeids": [2, 3, 4, 1, 2], stem + "_ids": [0, 1, 2, 1, 0], stem + "_weights": [0.5, 1.0, -2.0, 0.25, 3.0]}
save("trees", [N("Scaler", ["x"], ["s"], domain=ML, offset=[1.0, 0.0, 2.0], scale=[0.5]),
               N("TreeEnsembleClassifier", ["s"], ["label", "p"], domain=ML, classlabels_strings=["a", "b", "c"], post_transform="SOFTMAX", **tree, **leaf("class")),
               N("Normalizer", ["p"], ["y"], domain=ML, norm="L1")], [("x", F, ["N", 3])], [("label", T.STRING, ["N"]), ("y", F, ["N", 3])], extra=[(ML, 3)])
save("trees_regressor", [N("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, n_targets=3, aggregate_function="MAX", base_values=[1.0, 2.0, 3.0], **tree, **leaf("target"))],
     [("x", T.DOUBLE, [2, 3])], [("y", F, [2, 3])], extra=[(ML, 1)])
save("trees_5", [N("TreeEnsemble", ["x"], ["y"], domain=ML, n_targets=2, nodes_featureids=[0, 1, 0], nodes_modes=const("m", np.array([6, 0, 4], np.uint8)),
                   nodes_splits=const("s", np.array([0, 2, 1], np.float32)), nodes_truenodeids=[0, 1, 3], nodes_falsenodeids=[1, 2, 3], nodes_trueleafs=[1, 1, 1], nodes_falseleafs=[0, 1, 1],
                   leaf_targetids=[0, 0, 0, 1], leaf_weights=const("w", np.array([5, 10, 20, -1], np.float32)), tree_roots=[0, 2], membership_values=const("v", np.array([4, 1, np.nan], np.float32)))],
     [("x", F, ["N", 2])], [("y", F, ["N", 2])], extra=[(ML, 5)])
save("svm", [N("SVMClassifier", ["x"], ["label", "y"], domain=ML, kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], support_vectors=rng.random(12).tolist(), coefficients=rng.random(12).tolist(),
               vectors_per_class=[2, 3, 1], rho=[0.1, 0.2, 0.3], prob_a=[1.0, -1.0, 0.5], prob_b=[0.0, 0.1, 0.2], classlabels_ints=[3, 1, 2]),
             N("SVMRegressor", ["x"], ["z"], domain=ML, n_supports=3, support_vectors=rng.random(6).tolist(), coefficients=[1.0, 2.0, -1.0], rho=[0.5], one_class=1),
             N("LinearClassifier", ["x"], ["l2", "p2"], domain=ML, coefficients=[1.0, -1.0], intercepts=[0.5], classlabels_ints=[0, 1], post_transform="LOGISTIC")],
     [("x", F, ["N", 2])], [("label", I, None), ("y", F, None), ("z", F, None), ("l2", I, None), ("p2", F, None)], extra=[(ML, 1)])
save("labels", [N("LabelEncoder", ["w"], ["a"], domain=ML, keys_strings=["x", "y"], values_floats=[0.5, 1.5], default_float=9.0), N("OneHotEncoder", ["w"], ["b"], domain=ML, cats_strings=["x", "z"]),
                N("CategoryMapper", ["w"], ["c"], domain=ML, cats_strings=["x", "y"], cats_int64s=[4, 5]), N("Imputer", ["c"], ["d"], domain=ML, imputed_value_int64s=[7], replaced_value_int64=-1),
                N("FeatureVectorizer", ["d", "a"], ["e"], domain=ML, inputdimensions=[2, 3]), N("ArrayFeatureExtractor", ["e", "i"], ["f"], domain=ML), N("Binarizer", ["f"], ["y"], domain=ML, threshold=1.0)],
     [("w", T.STRING, ["N", 2])], [("b", F, None), ("y", F, None)], [const("i", np.array([0, 2], np.int64))], extra=[(ML, 2)])
save("optimizers", [N("Adam", ["r", "t", "x", "g", "v", "h"], ["a", "b", "c"], domain="ai.onnx.preview.training", norm_coefficient=0.1),
                    N("Momentum", ["r", "t", "a", "g", "b"], ["y", "z"], domain="ai.onnx.preview.training", alpha=0.9, beta=0.5, norm_coefficient=0.0, mode="nesterov")],
     [("r", F, []), ("t", I, []), ("x", F, ["N", 2]), ("g", F, ["N", 2]), ("v", F, ["N", 2]), ("h", F, ["N", 2])], [("y", F, None), ("z", F, None), ("c", F, None)], extra=[("ai.onnx.preview.training", 1)])
save("image", [N("ImageDecoder", ["bytes"], ["p"], pixel_format="BGR"), N("Cast", ["p"], ["y"], to=F)], [], [("y", F, None)],
     [const("bytes", np.frombuffer(b"P6 2 1 255\n" + bytes(range(6)), np.uint8))])
print(len(os.listdir(out)), "files,", sum(os.path.getsize(os.path.join(out, f)) for f in os.listdir(out)), "bytes")
