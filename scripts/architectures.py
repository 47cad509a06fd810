"""Nine image classifiers of the ONNX model zoo with seeded weights, for `cargo xtask architectures`.

The models of the ONNX backend suite's `light` set have the architectures and constant weights: with those, values grow from
layer to layer, and say nothing. This gives every convolution and matrix product normal weights, scaled so that its output has
unit variance on a normal input (layer-sequential unit variance: Mishkin and Matas, "All you need is a good init", 2016), and
every batch normalisation the mean and variance that it meets. Nodes run one by one in ONNX Runtime; so does the whole
model in the end, whose answer is what Privet's has to be close to.

    python3 scripts/architectures.py --light ../shared/data/conformance/onnx_light --out target/architectures/reduced
    python3 scripts/architectures.py --light .. --out .. --full --only vgg19

The reduced size has pictures of 96 x 96 and a quarter of the channels (ShuffleNet: half); the graph is the same. Writes NAME.onnx and NAME.npz
(input, logits, output). Needs numpy, onnx and onnxruntime.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

REDUCED_SIDE = 96
REDUCED_CHANNELS = 4


class Maker:
    """Walks over a model's nodes, makes their parameters and runs them."""

    def __init__(self, model, rng, full):
        self.model, self.rng, self.full = model, rng, full
        groups = [a.i for n in model.graph.node for a in n.attribute if a.name == "group"]
        # ShuffleNet's 24 channels in 4 groups can be halved, and no more.
        self.divisor = 1 if full else 2 if 4 in groups else REDUCED_CHANNELS
        self.dims = {}  # of every parameter, as the model has it
        self.indices = {}  # integer parameters: shapes
        for tensor in model.graph.initializer:
            self.dims[tensor.name] = list(tensor.dims)
            if tensor.data_type == TensorProto.INT64:
                self.indices[tensor.name] = numpy_helper.to_array(tensor)
        for node in model.graph.node:
            if node.op_type == "ConstantOfShape":
                self.dims[node.output[0]] = [int(d) for d in self.indices[node.input[0]]]
        self.values, self.parameters, self.deferred, self.nodes = {}, {}, {}, []

    def width(self, channels):
        return channels // self.divisor

    def normal(self, shape, deviation):
        return (self.rng.standard_normal(shape) * deviation).astype(np.float32)

    def run(self):
        for node in self.model.graph.node:
            if node.op_type == "ConstantOfShape":
                continue
            if node.op_type in ("Unsqueeze", "Reshape") and node.input[0] in self.dims:
                self.deferred[node.output[0]] = node  # its reader knows how large the parameter is
            else:
                self.node(node)

    def node(self, node):
        kind = node.op_type
        if kind in ("Conv", "Gemm"):
            self.product(node)
        elif kind == "BatchNormalization":
            self.normalisation(node)
        elif kind in ("Mul", "Add") and any(i in self.deferred for i in node.input):
            self.channelwise(node)
        elif kind == "Reshape":
            self.parameters[node.input[1]] = self.shape(node)
        elif kind in ("AveragePool", "MaxPool"):
            self.pool(node)
        self.execute(node)

    def product(self, node):
        x = self.values[node.input[0]]
        weight, before = node.input[1], self.deferred.get(node.input[1])
        dims = [int(d) for d in self.indices[before.input[1]]] if before else self.dims[weight]
        if node.op_type == "Conv":
            group = attribute(node, "group")
            groups = group.i if group else 1
            if groups > 1 and dims[1] == 1:  # one group per channel
                group.i = groups = x.shape[1]
            outputs = self.width(dims[0])
            assert outputs % groups == 0 and x.shape[1] % groups == 0, (node.name, outputs, groups)
            shape = [outputs, x.shape[1] // groups] + dims[2:]
            fan_in = int(np.prod(shape[1:]))
        else:
            transposed = attribute(node, "transB")
            transposed = bool(transposed and transposed.i)
            outputs, fan_in = self.width(dims[0] if transposed else dims[1]), x.shape[1]
            shape = [outputs, fan_in] if transposed else [fan_in, outputs]
        if before:
            weight = before.input[0]
            self.parameters[before.input[1]] = np.array(shape)
        own = shape if not before else [1] * (len(self.dims[weight]) - len(shape)) + shape
        self.parameters[weight] = self.normal(own, fan_in**-0.5)
        if len(node.input) > 2:
            self.parameters[node.input[2]] = np.zeros(outputs, np.float32)
        if before:
            self.execute(before, keep=False)
        self.execute(node, keep=False)
        self.parameters[weight] /= self.values[node.output[0]].std()
        if before:
            self.execute(before)
        if len(node.input) > 2:
            self.parameters[node.input[2]] = self.normal(outputs, 0.1)

    def normalisation(self, node):
        x = self.values[node.input[0]]
        axes = tuple(a for a in range(x.ndim) if a != 1)
        variance = x.var(axis=axes)
        # A channel that hardly varies over a small picture is not blown up.
        variance = np.maximum(variance, 0.1 * variance.mean())
        made = [np.ones_like(variance), self.normal(variance.shape, 0.1), x.mean(axis=axes), variance]
        self.parameters.update(zip(node.input[1:], (m.astype(np.float32) for m in made)))

    def channelwise(self, node):
        (name,) = [i for i in node.input if i in self.deferred]
        (other,) = [i for i in node.input if i not in self.deferred]
        channels = self.values[other].shape[1]
        around = 1.0 if node.op_type == "Mul" else 0.0
        unsqueeze = self.deferred[name]
        self.parameters[unsqueeze.input[0]] = np.float32(around) + self.normal(channels, 0.1)
        self.execute(unsqueeze)

    def shape(self, node):
        """Where a reshape goes: flat, or into groups of channels and back."""
        old, x = self.indices[node.input[1]], self.values[node.input[0]].shape
        if self.full:
            return old
        if len(old) == 2:
            return np.array([x[0], -1])
        if len(old) == 5:
            return np.array([x[0], old[1], x[1] // old[1], *x[2:]])
        assert len(old) == 4 and len(x) == 5, (node.name, old, x)
        return np.array([x[0], x[1] * x[2], *x[3:]])

    def pool(self, node):
        """A window that was made for the whole of a larger picture covers the whole of this one."""
        kernel, pads = attribute(node, "kernel_shape"), attribute(node, "pads")
        spatial = self.values[node.input[0]].shape[2:]
        ends = pads.ints if pads else [0] * 4
        if not self.full and any(k > s + sum(ends[a::2]) for a, (k, s) in enumerate(zip(kernel.ints, spatial))):
            kernel.ints[:] = spatial
            if pads:
                pads.ints[:] = [0] * len(pads.ints)

    def execute(self, node, keep=True):
        feed = {}
        for name in node.input:
            feed[name] = self.parameters[name] if name in self.dims else self.values[name]
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in feed.items()
        ]
        outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
        graph = helper.make_graph([node], "node", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=8)
        (self.values[node.output[0]],) = session(model).run(None, feed)
        if keep:
            self.nodes.append(node)

    def finished(self, picture, output):
        initializers = [numpy_helper.from_array(v, n) for n, v in self.parameters.items()]
        graph = helper.make_graph(
            self.nodes,
            self.model.graph.name,
            [helper.make_tensor_value_info(picture, TensorProto.FLOAT, self.values[picture].shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, self.values[output].shape)],
            initializers,
        )
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=8)


def attribute(node, name):
    return next((a for a in node.attribute if a.name == name), None)


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def make(path, out, full):
    name = path.stem.removeprefix("light_")
    model = onnx.load(path)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    maker = Maker(model, rng, full)
    (picture,) = [
        i for i in model.graph.input if i.name not in maker.dims and len(i.type.tensor_type.shape.dim) == 4
    ]
    (output,) = [o.name for o in model.graph.output]
    side = picture.type.tensor_type.shape.dim[2].dim_value if full else REDUCED_SIDE
    maker.values[picture.name] = maker.normal([1, 3, side, side], 1.0)
    maker.run()
    made = maker.finished(picture.name, output)
    found = session(made).run(None, {picture.name: maker.values[picture.name]})[0]
    last = made.graph.node[-1]
    logits = maker.values[last.input[0] if last.op_type == "Softmax" else output]
    assert np.isfinite(found).all() and 0.3 < logits.std() < 30, (name, logits.std())
    onnx.save(made, out / f"{name}.onnx")
    np.savez(out / f"{name}.npz", input=maker.values[picture.name], logits=logits, output=found)
    parameters = sum(v.size for n, v in maker.parameters.items() if v.dtype == np.float32)
    print(f"{name}: {len(maker.nodes)} nodes, {parameters} parameters, logits of deviation {logits.std():.3f}")


def main():
    parser = argparse.ArgumentParser(description="Architectures with seeded weights of unit-variance outputs")
    parser.add_argument("--light", type=Path, required=True, help="directory with light_*.onnx")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="the published size")
    parser.add_argument("--only", help="one architecture, for instance vgg19")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(arguments.light.glob(f"light_{arguments.only or '*'}.onnx"))
    if not paths:
        parser.error(f"no light_{arguments.only or '*'}.onnx in {arguments.light}")
    for path in paths:
        make(path, arguments.out, arguments.full)


if __name__ == "__main__":
    main()
