#!/usr/bin/env python3
"""Small ONNX models, one for each operator or pattern, that fuzzing starts from: writes fuzz/corpus/onnx/.

Run from the repository's root: python3 scripts/fuzz_onnx.py (needs numpy, onnx)
"""
import pathlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path("fuzz/corpus/onnx")
FLOAT = TensorProto.FLOAT


def floats(*shape):
    """Small numbers of both signs."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 7 % 11 - 5) / 8).astype(np.float32).reshape(shape)


def ints(*values):
    return np.array(values, dtype=np.int64)


def model(name, nodes, shape=(1, 2, 4, 4), constants=None, outputs=("y",), opset=13, dims=None):
    inputs = [helper.make_tensor_value_info("x", FLOAT, dims or list(shape))]
    results = [helper.make_tensor_value_info(o, FLOAT, None) for o in outputs]
    initializers = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, results, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="")
    OUT.joinpath(f"{name}.onnx").write_bytes(proto.SerializeToString())


def one(op, inputs=("x",), name=None, shape=(1, 2, 4, 4), constants=None, outputs=("y",), opset=13, **attributes):
    node = helper.make_node(op, list(inputs), list(outputs), **attributes)
    model(name or op, [node], shape, constants, outputs, opset)


OUT.mkdir(parents=True, exist_ok=True)
node = helper.make_node

for op in ["Abs", "Neg", "Relu", "Sign", "Sigmoid", "Identity", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu",
           "MeanVarianceNormalization", "Softmax", "LogSoftmax", "Flatten", "Transpose", "Dropout"]:
    one(op)
one("Relu", opset=7, name="Relu_7", shape=("n", 3))
for op in ["HardSigmoid", "HardSwish", "ThresholdedRelu"]:
    one(op, opset=14)
for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "PRelu"]:
    one(op, ["x", "c"], constants={"c": floats(2, 1, 1) + np.float32(2)})
for op in ["Mul", "Sub", "Max"]:
    one(op, ["x", "x"], name=f"{op}_twice")
one("Pow", ["x", "c"], constants={"c": np.array(3, dtype=np.float32)})
one("Clip", ["x", "a", "b"], constants={"a": np.array(-1, np.float32), "b": np.array(1, np.float32)})
one("Clip", opset=7, name="Clip_7", min=-0.5, max=2.0)
one("Conv", ["x", "w", "b"], constants={"w": floats(3, 2, 3, 3), "b": floats(3)}, pads=[1, 1, 1, 1], strides=[2, 1])
one("Conv", ["x", "w"], name="Conv_groups", constants={"w": floats(4, 1, 2, 2)}, group=2, dilations=[2, 2])
one("Conv", ["x", "w"], name="Conv_same", constants={"w": floats(1, 2, 3, 3)}, auto_pad="SAME_UPPER")
one("ConvTranspose", ["x", "w"], constants={"w": floats(2, 3, 2, 2)}, strides=[2, 2], output_padding=[1, 0])
one("BatchNormalization", ["x", "s", "b", "m", "v"],
    constants={"s": floats(2), "b": floats(2), "m": floats(2), "v": np.ones(2, np.float32)})
one("InstanceNormalization", ["x", "s", "b"], constants={"s": floats(2), "b": floats(2)})
one("LRN", size=3, alpha=0.1, bias=2.0)
one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 0, 0], ceil_mode=1, strides=[2, 2])
one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 0, 1])
one("Gemm", ["x", "w", "b"], shape=(2, 3), constants={"w": floats(4, 3), "b": floats(4)}, transB=1, alpha=0.5)
one("MatMul", ["x", "w"], shape=(2, 3), constants={"w": floats(3, 4)})
one("MatMul", ["x", "x"], name="MatMul_wires", shape=(3, 3))
one("Einsum", ["x", "w"], shape=(2, 3), constants={"w": floats(3, 4)}, equation="ij,jk->ik")
for op in ["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"]:
    compared = node(op, ["x", "c"], ["t"])
    model(op, [compared, node("Cast", ["t"], ["y"], to=FLOAT)], constants={"c": floats(1)})
logic = [node("Less", ["x", "c"], ["a"]), node("Not", ["a"], ["b"]), node("Or", ["a", "b"], ["d"]),
         node("Xor", ["d", "a"], ["e"]), node("And", ["e", "b"], ["f"]), node("Where", ["f", "x", "c"], ["y"])]
model("Where", logic, constants={"c": floats(1)})
one("ArgMax", axis=1, keepdims=0)
one("ArgMin", axis=-1)
for op in ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceSumSquare"]:
    one(op, axes=[2, 3], keepdims=1)
one("ReduceSum", ["x", "n"], constants={"n": ints(1)}, keepdims=0)
one("ReduceMean", ["x", "n"], name="ReduceMean_18", constants={"n": ints(-1)}, opset=18)
one("Reshape", ["x", "n"], constants={"n": ints(0, -1)})
one("Expand", ["x", "n"], shape=(1, 3), constants={"n": ints(2, 4, 3)})
one("Tile", ["x", "n"], shape=(2, 3), constants={"n": ints(2, 2)})
one("Gather", ["x", "n"], constants={"n": ints(1, -1, 0)}, axis=2)
one("Slice", ["x", "a", "b", "c", "d"],
    constants={"a": ints(3, 0), "b": ints(-9, 2), "c": ints(2, 1), "d": ints(-1, 1)})
one("Slice", name="Slice_7", opset=7, starts=[1], ends=[3], axes=[3])
one("Split", ["x", "n"], outputs=["y", "z"], constants={"n": ints(1, 3)}, axis=3)
one("Concat", ["x", "x"], axis=-1)
one("Squeeze", ["x", "n"], constants={"n": ints(0)})
one("Unsqueeze", ["x", "n"], constants={"n": ints(0, 5)})
one("Pad", ["x", "n"], constants={"n": ints(0, 0, 1, -1, 0, 0, 1, 2)})
one("Pad", ["x", "n"], name="Pad_reflect", constants={"n": ints(0, 0, 1, 1, 0, 0, 2, 0)}, mode="reflect")
one("CumSum", ["x", "n"], opset=14, constants={"n": np.array(1)}, reverse=1)
one("SpaceToDepth", blocksize=2)
one("DepthToSpace", shape=(1, 4, 2, 2), blocksize=2, mode="CRD")
one("Resize", ["x", "", "s"], constants={"s": np.array([1, 1, 2, 1.5], np.float32)}, mode="linear")
one("Resize", ["x", "", "", "n"], name="Resize_cubic", constants={"n": ints(1, 2, 3, 7)}, mode="cubic",
    coordinate_transformation_mode="align_corners")
one("Upsample", ["x", "s"], opset=9, constants={"s": np.array([1, 1, 2, 2], np.float32)})
shapes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i"], ["n"]), node("Unsqueeze", ["n", "z"], ["m"]),
          node("Concat", ["m", "r"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"])]
model("shapes", shapes, constants={"i": np.array(0), "z": ints(0), "r": ints(-1)}, dims=["batch", 2, 4, 4])
filled = [node("ConstantOfShape", ["n"], ["c"], value=helper.make_tensor("", FLOAT, [1], [0.5])),
          node("Add", ["x", "c"], ["y"])]
model("ConstantOfShape", filled, constants={"n": ints(4, 4)})
ranged = [node("Range", ["a", "b", "c"], ["r"]), node("Cast", ["r"], ["f"], to=FLOAT), node("Mul", ["x", "f"], ["y"])]
model("Range", ranged, constants={"a": np.array(0), "b": np.array(4), "c": np.array(1)})
constant = [node("Constant", [], ["c"], value=numpy_helper.from_array(floats(4))), node("Add", ["x", "c"], ["y"])]
model("Constant", constant)
indices = [node("NonZero", ["c"], ["n"]), node("Squeeze", ["n", "z"], ["i"]), node("Gather", ["x", "i"], ["y"], axis=1)]
model("NonZero", indices, constants={"c": floats(2), "z": ints(0)})


def branch(name, op):
    result = helper.make_tensor_value_info(name, FLOAT, None)
    return helper.make_graph([node(op, ["x"], [name])], name, [], [result])


model("If", [node("If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg"))],
      constants={"c": np.array(True)})
block = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
         node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]), node("Add", ["n", "x"], ["a"]),
         node("Relu", ["a"], ["r"]), node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
         node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "k"], ["g"]), node("Softmax", ["g"], ["y"])]
model("block", block, constants={"w": floats(2, 2, 3, 3), "s": floats(2), "b": floats(2), "v": np.ones(2, np.float32),
                                 "k": floats(8, 3)})
