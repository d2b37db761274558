"""The convolutions of ONNX models, a line each distinct one: model, N C H W, M kh kw, stride, pads (begins, ends), dilation, group.

  zoo_convs.py [--batch N] MODEL.onnx... >bench/shapes/conv_zoo.txt

Two spatial dimensions, explicit pads, sizes that ONNX's shape inference finds; symbolic batches become --batch.
"""
import argparse, os
import onnx
from onnx import shape_inference


def main():
    p = argparse.ArgumentParser()
    p.add_argument("models", nargs="+"), p.add_argument("--batch", type=int, default=1)
    args = p.parse_args()
    print("# model, N C H W, M kh kw, sh sw, pads t l b r, dh dw, group; by bench/zoo_convs.py")
    for path in args.models:
        model = onnx.load(path, load_external_data=False)
        for i in model.graph.input:
            for axis, d in enumerate(i.type.tensor_type.shape.dim):
                if d.dim_param and axis == 0:
                    d.dim_value = args.batch
        model = shape_inference.infer_shapes(model, data_prop=True)
        dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*model.graph.input, *model.graph.value_info]}
        dims |= {t.name: list(t.dims) for t in model.graph.initializer}
        seen = set()
        for n in model.graph.node:
            x, w = (dims.get(n.input[i], []) for i in (0, 1)) if n.op_type == "Conv" else ([], [])
            if len(x) != 4 or len(w) != 4 or 0 in x or 0 in w:
                continue
            a = {k.name: onnx.helper.get_attribute_value(k) for k in n.attribute}
            if a.get("auto_pad", b"NOTSET") != b"NOTSET":
                continue
            seen.add((*x, w[0], *w[2:], *a.get("strides", [1, 1]), *a.get("pads", [0, 0, 0, 0]), *a.get("dilations", [1, 1]), a.get("group", 1)))
        for s in sorted(seen):
            print(os.path.basename(path).removesuffix(".onnx"), *s)


if __name__ == "__main__":
    main()
