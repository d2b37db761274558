#!/usr/bin/env python3
"""digits_strip.onnx: digits.onnx behind an operator that ONNX does not have (examples/custom_op.cpp), and ArgMax after it.

  make_strip.py        (in this folder; needs onnx)
"""
import onnx
from onnx import TensorProto, helper

m = onnx.load("digits.onnx")
g = m.graph
cells = helper.make_node("Cells", ["strip"], ["image"], name="cells", domain="com.example", size=8)
digit = helper.make_node("ArgMax", ["prob"], ["digits"], name="digits", axis=1, keepdims=0)
nodes = [cells, *g.node, digit]
del g.node[:], g.input[:], g.output[:]
g.node.extend(nodes)
g.input.append(helper.make_tensor_value_info("strip", TensorProto.FLOAT, ["height", "width"]))
g.output.append(helper.make_tensor_value_info("digits", TensorProto.INT64, ["n"]))
m.opset_import.append(helper.make_opsetid("com.example", 1))
onnx.save(m, "digits_strip.onnx")
