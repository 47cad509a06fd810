#!/usr/bin/env python3
"""Golden results of operators whose attributes combine in more ways than the ONNX backend tests try.

Draws small models with Resize, Upsample, ConvTranspose, Pad, Einsum, Split and friends, runs them in ONNX Runtime and writes
models, inputs and outputs to crates/onnx/tests/golden/operators.json. What the runtime refuses is drawn again.
Run from the repository's root: python3 scripts/golden_operators.py (needs numpy, onnx, onnxruntime)
"""
import itertools
import json
import random

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
rng = random.Random(20261120)
values = np.random.default_rng(20261120)
cases = []


def floats(*shape):
    """Multiples of 1/16, so that text and fixed point hold them exactly."""
    return (values.integers(-40, 41, shape) / 16).astype(np.float32)


def case(name, op, opset, inputs, outputs=1, **attributes):
    """One node; arrays are initializers, but for those of `inputs` that are in a tuple, which the caller gives."""
    names, given, constants = [], {}, []
    for i, value in enumerate(inputs):
        names.append("" if value is None else f"i{i}")
        if isinstance(value, tuple):
            given[f"i{i}"] = value[0]
        elif value is not None:
            constants.append(numpy_helper.from_array(value, f"i{i}"))
    results = [f"o{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name=op, **attributes)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, 3 + opset // 2))
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, given)
    except Exception:
        return False
    if any(v.size == 0 or v.size > 400 or not np.isfinite(v).all() for v in found):
        return False
    pack = lambda v: dict(shape=list(v.shape), data=[float(f"{x:.7g}") for x in v.ravel()])
    cases.append(dict(
        name=f"{name}_{len(cases)}", model=model.SerializeToString().hex(),
        inputs=[pack(v) for v in given.values()], outputs=[pack(v) for v in found]))
    return True


def draw(count, make):
    done = 0
    for _ in range(50 * count):
        done += make()
        if done == count:
            return
    raise SystemExit(f"only {done} cases of {make.__name__}")


def resize():
    opset = rng.choice([11, 13, 18, 19])
    rank = rng.choice([1, 2, 2, 4])
    shape = [rng.randint(1, 3) if rank == 4 and a < 2 else rng.randint(1, 6) for a in range(rank)]
    mode = rng.choice(["nearest", "linear", "cubic"]) if rank > 1 else rng.choice(["nearest", "linear"])
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"]
    if opset >= 19:
        modes.append("half_pixel_symmetric")
    if opset == 11:
        modes.append("tf_half_pixel_for_nn")
    coordinates = rng.choice(modes)
    attributes = dict(mode=mode, coordinate_transformation_mode=coordinates)
    axes = list(range(rank))
    if mode == "nearest":
        attributes["nearest_mode"] = rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attributes.update(cubic_coeff_a=rng.choice([-0.75, -0.5]), exclude_outside=rng.randint(0, 1))
    if opset >= 18:
        if rng.random() < 0.5:
            axes = [-1, -2][:rank] if rank > 1 else [0]
            attributes["axes"] = axes
        if mode != "nearest" and rank > 1 and coordinates != "tf_crop_and_resize" and rng.random() < 0.4:
            attributes["antialias"] = 1
    sizes = scales = None
    scaled = [a % rank for a in axes]
    factor = lambda a: 1 if rank == 4 and a < 2 else rng.choice([0.5, 0.6, 0.75, 1, 1.5, 2, 2.3, 3])
    if rng.random() < 0.5 or coordinates == "half_pixel_symmetric":
        scales = np.array([factor(a) for a in scaled], np.float32)
    else:
        sizes = np.array([max(1, int(shape[a] * factor(a))) for a in scaled], np.int64)
        if opset >= 18 and rng.random() < 0.5:
            attributes["keep_aspect_ratio_policy"] = rng.choice(["not_larger", "not_smaller"])
            if "axes" in attributes:
                attributes["axes"] = scaled  # The runtime ignores a policy on negative axes.
    roi = None
    if coordinates == "tf_crop_and_resize":
        ends = [(0.0, 1.0) if rank == 4 and a < 2 else (rng.choice([-0.2, 0, 0.25]), rng.choice([0.6, 1, 1.3])) for a in scaled]
        roi = np.array([s for s, _ in ends] + [e for _, e in ends], np.float32)
        attributes["extrapolation_value"] = rng.choice([0.0, 2.5])
    if opset == 11:
        empty = np.zeros(0, np.float32)
        roi, scales = (empty if roi is None else roi), (empty if scales is None else scales)
    return case(f"resize_{mode}_{coordinates}", "Resize", opset, [(floats(*shape),), roi, scales, sizes], **attributes)


def upsample():
    mode, opset = rng.choice(["nearest", "linear"]), rng.choice([7, 9])
    scales = [1.0, 1.0, rng.choice([1.0, 1.5, 2.0, 3.0]), rng.choice([1.0, 2.0, 2.5])]
    x = (floats(1, 2, 3, 2),)
    if opset == 7:
        return case("upsample", "Upsample", 7, [x], mode=mode, scales=scales)
    return case("upsample", "Upsample", 9, [x, np.array(scales, np.float32)], mode=mode)


def resize_10():
    scales = [1.0, 1.0, rng.choice([0.5, 0.6, 1.5, 2.0]), rng.choice([0.4, 1.0, 2.5])]
    x = (floats(1, 2, 5, 4),)
    return case("resize_10", "Resize", 10, [x, np.array(scales, np.float32)], mode=rng.choice(["nearest", "linear"]))


def conv_transpose():
    axes = rng.choice([1, 1, 2, 2, 3])
    groups, channels, filters = rng.choice([(1, 2, 3), (1, 1, 2), (2, 4, 1), (2, 2, 2), (3, 3, 1)])
    pick = lambda *options: [rng.choice(options) for _ in range(axes)]
    spatial, kernel, strides, dilations = pick(1, 2, 3, 4), pick(1, 2, 3, 4), pick(1, 2, 3), pick(1, 1, 2, 3)
    attributes = dict(group=groups, strides=strides, dilations=dilations)
    attributes["output_padding"] = [rng.randint(0, max(s, d) - 1) for s, d in zip(strides, dilations)]
    kind = rng.choice(["pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "shape"])
    if kind == "pads":
        attributes["pads"] = [rng.choice([0, 0, 1, 2]) for _ in range(2 * axes)]
    elif kind == "shape":
        attributes["output_shape"] = [
            max(1, s * (n - 1) + (k - 1) * d + 1 - rng.randint(0, 2))
            for n, k, s, d in zip(spatial, kernel, strides, dilations)]
        attributes["auto_pad"] = rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER"])
    else:
        attributes["auto_pad"] = kind
        # The specification fills up to input times stride with zeros where the runtime gives fewer elements.
        if kind != "VALID" and any((k - 1) * d + 1 < s for k, d, s in zip(kernel, dilations, strides)):
            return False
    inputs = [(floats(rng.choice([1, 2]), channels, *spatial),), floats(channels, filters, *kernel)]
    if rng.random() < 0.5:
        inputs.append(floats(groups * filters))
    return case(f"conv_transpose_{kind}", "ConvTranspose", rng.choice([7, 11, 22]), inputs, **attributes)


def pad():
    rank = rng.choice([1, 2, 3])
    shape = [rng.randint(2, 5) for _ in range(rank)]
    mode = rng.choice(["constant", "reflect", "edge", "wrap"])
    opset = 19 if mode == "wrap" else rng.choice([13, 18, 19])
    pads = np.array([rng.randint(-1, 2) for _ in range(2 * rank)], np.int64)
    if any(b + e + s < 1 for b, e, s in zip(pads, pads[rank:], shape)):
        return False
    value = np.float32(1.5) if mode == "constant" else None
    return case(f"pad_{mode}", "Pad", opset, [(floats(*shape),), pads, value and np.array(value)], mode=mode)


def einsum():
    sizes = dict(zip("abcdefB", [2, 3, 4, 2, 3, 1, 2]))
    equation, secret = rng.choice(list(itertools.product([
        "ab,bc->ac", "bab,bcb->ac", "abc,cd", "aab->b", "ab,ab->ab", "a,b->ba", "abc->", "abcd,abed->abce",
        "...ab,...bc->...ac", "...a,a->...", "ab,cd->", "bhqd,bkhd->bhqk", "ii,i->i", "ba", "abc,b->ca", "aB,Bc"],
        [1, 2])))
    sizes.update(zip("hqkid", [2, 3, 2, 3, 2]))
    terms = equation.split("->")[0].split(",")
    batch = [rng.choice([(), (2,), (2, 3)])] * 2
    if rng.random() < 0.3:
        batch[1] = tuple(1 for _ in batch[0])
    shape = lambda i, t: (batch[i] if "..." in t else ()) + tuple(sizes[c] for c in t.replace("...", ""))
    inputs = [floats(*shape(i, t)) for i, t in enumerate(terms)]
    constant = rng.randrange(2) if secret == 1 and len(inputs) == 2 else None
    inputs = [x if i == constant else (x,) for i, x in enumerate(inputs)]
    return case("einsum", "Einsum", 12, inputs, equation=equation)


def matmul():
    a, b = rng.choice([
        ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((2, 2, 3), (3, 4)), ((3,), (2, 3, 4)),
        ((2, 2, 3), (3,)), ((2, 3), (2, 3, 2)), ((2, 1, 2, 3), (2, 3, 2)), ((1, 2, 3), (2, 2, 3, 1)), ((2, 2, 3), (2, 3, 2))])
    constant = rng.randrange(3)
    inputs = [x if i == constant else (x,) for i, x in enumerate([floats(*a), floats(*b)])]
    return case("matmul", "MatMul", 13, inputs)


def gemm():
    trans_a, trans_b, constant = rng.randint(0, 1), rng.randint(0, 1), rng.randrange(8)
    a, b = floats(*((3, 2) if trans_a else (2, 3))), floats(*((4, 3) if trans_b else (3, 4)))
    c = floats(*rng.choice([(2, 4), (4,), (2, 1), (1,)]))
    inputs = [x if constant >> i & 1 else (x,) for i, x in enumerate([a, b, c][: rng.choice([2, 3])])]
    if not any(isinstance(x, tuple) for x in inputs):
        return False
    return case("gemm", "Gemm", 13, inputs, transA=trans_a, transB=trans_b, alpha=rng.choice([1.0, 0.5]), beta=rng.choice([1.0, 0.25]))


def reduce():
    shape, opset = (2, 3, 4), rng.choice([11, 13, 18])
    op = rng.choice(["ReduceSum", "ReduceMean"])
    axes = rng.choice([None, [0], [-1], [0, 2], [2, 1], [1]])
    by_input = opset >= (13 if op == "ReduceSum" else 18)
    attributes, inputs = dict(keepdims=rng.randint(0, 1)), [(floats(*shape),)]
    if by_input:
        attributes["noop_with_empty_axes"] = rng.randint(0, 1)
        inputs.append(None if axes is None else np.array(axes, np.int64))
    elif axes:
        attributes["axes"] = axes
    return case(op.lower(), op, opset, inputs, **attributes)


def split():
    opset, axis = rng.choice([11, 13, 18]), rng.choice([0, 1, -1])
    x, lengths = (floats(5, 4, 7),), rng.choice([None, [2, 3], [1, 1, 3]])
    if lengths is None:
        parts = rng.choice([2, 3])
        attributes = dict(num_outputs=parts) if opset >= 18 else {}
        return case("split", "Split", opset, [x], outputs=parts, axis=axis, **attributes)
    if opset < 13:
        return case("split", "Split", opset, [x], outputs=len(lengths), axis=0, split=lengths)
    return case("split", "Split", opset, [x, np.array(lengths, np.int64)], outputs=len(lengths), axis=0)


for count, make in [(70, resize), (5, upsample), (6, resize_10), (45, conv_transpose), (16, pad), (40, einsum),
                    (24, matmul), (16, gemm), (10, reduce), (6, split)]:
    draw(count, make)

with open("crates/onnx/tests/golden/operators.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
print(len(cases), "cases")
