# /// script
# requires-python = ">=3.11"
# dependencies = ["jax==0.10.2", "scikit-learn==1.9.1", "onnx==1.23.2", "onnxruntime==1.31.1", "pillow==13.0.0"]
# ///
"""Trains the small digit classifier of assets/digits on scikit-learn's digits and draws ten test digits as PNG.

    python3 -m venv /tmp/digits && /tmp/digits/bin/pip install jax==0.10.2 scikit-learn==1.9.1 onnx==1.23.2 \
        onnxruntime==1.31.1 pillow==13.0.0
    /tmp/digits/bin/python scripts/train_digits.py

Takes less than a minute on one CPU core; the data come with scikit-learn. Writes digits.onnx and 0.png to 9.png,
checks them with ONNX Runtime, and prints the accuracies that assets/digits/README.md quotes.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "digits"
SEED = 20
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
ENLARGE = 8  # each of the 8 x 8 cells is drawn as 8 x 8 pixels


def draw(digit):
    """Ink on paper: a 64 x 64 grey picture of an 8 x 8 digit with values 0 (paper) to 16 (ink)."""
    ink = np.rint(digit * (255 / 16)).astype(np.uint8)
    return Image.fromarray(np.kron(255 - ink, np.ones((ENLARGE, ENLARGE), np.uint8)))


def preprocess(picture):
    """What assets/digits/preprocess.toml declares."""
    small = picture.convert("L").resize((8, 8), Image.BILINEAR)
    return ((255 - np.asarray(small)) / 255).astype(np.float32)[None]


def initial(key):
    def layer(key, *shape):
        fan_in = int(np.prod(shape[1:]))
        return {"w": jax.random.normal(key, shape) * (2 / fan_in) ** 0.5, "b": jnp.zeros(shape[0])}

    keys = jax.random.split(key, 4)
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "conv3": (32, 32, 3, 3), "fc": (10, 128)}
    return {name: layer(k, *shape) for k, (name, shape) in zip(keys, shapes.items())}


def logits(params, x):
    def conv(x, p):
        y = jax.lax.conv_general_dilated(x, p["w"], (1, 1), [(1, 1), (1, 1)])
        return jax.nn.relu(y + p["b"][:, None, None])

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    x = conv(x, params["conv1"])
    x = pool(conv(x, params["conv2"]))
    x = pool(conv(x, params["conv3"]))
    return x.reshape(len(x), -1) @ params["fc"]["w"].T + params["fc"]["b"]


def loss(params, x, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], 1).mean()


@jax.jit
def step(params, m, v, t, rate, x, y):
    """AdamW."""
    grads = jax.grad(loss)(params, x, y)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)

    def update(p, m, v):
        direction = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return p - rate * (direction + WEIGHT_DECAY * p)

    return jax.tree.map(update, params, m, v), m, v


def shifted(rng, images):
    """Each image moved by up to one cell in each direction, padded with paper."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moves = rng.integers(0, 3, (len(images), 2))
    return np.stack([p[:, dy : dy + 8, dx : dx + 8] for p, (dy, dx) in zip(padded, moves)])


def train(raw, drawn, y):
    """Learns from the digits as they are and as they come back from a resized picture, which is softer."""
    rng = np.random.default_rng(SEED)
    params = initial(jax.random.key(SEED))
    m = v = jax.tree.map(jnp.zeros_like, params)
    images, labels = np.concatenate([raw, drawn]), np.concatenate([y, y])
    steps, t = EPOCHS * (len(images) // BATCH), 0
    for epoch in range(EPOCHS):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch, t = order[start : start + BATCH], t + 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * t / steps))
            params, m, v = step(params, m, v, t, rate, shifted(rng, images[batch]), labels[batch])
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss(params, images, labels):.5f}", flush=True)
    return jax.tree.map(np.asarray, params)


def export(params, path):
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(params[layer][kind], np.float32), f"{layer}.{name}")
        for layer in params
        for kind, name in (("w", "weight"), ("b", "bias"))
    ]

    def conv(name, x, y):
        return helper.make_node(
            "Conv", [x, f"{name}.weight", f"{name}.bias"], [y], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )

    def pool(name, x, y):
        return helper.make_node("MaxPool", [x], [y], name, kernel_shape=[2, 2], strides=[2, 2])

    nodes = [
        conv("conv1", "image", "conv1.out"),
        helper.make_node("Relu", ["conv1.out"], ["relu1.out"], "relu1"),
        conv("conv2", "relu1.out", "conv2.out"),
        helper.make_node("Relu", ["conv2.out"], ["relu2.out"], "relu2"),
        pool("pool2", "relu2.out", "pool2.out"),
        conv("conv3", "pool2.out", "conv3.out"),
        helper.make_node("Relu", ["conv3.out"], ["relu3.out"], "relu3"),
        pool("pool3", "relu3.out", "pool3.out"),
        helper.make_node("Flatten", ["pool3.out"], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="scripts/train_digits.py"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main():
    digits = load_digits()
    raw = (digits.images[:, None] / 16).astype(np.float32)
    drawn = np.stack([preprocess(draw(digit)) for digit in digits.images])
    labels = digits.target.astype(np.int32)
    training, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=SEED, stratify=labels)

    params = train(raw[training], drawn[training], labels[training])
    model = ASSETS / "digits.onnx"
    export(params, model)

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def probabilities(x):
        (y,) = session.run(["logits"], {"image": x})
        assert np.abs(y - np.asarray(logits(params, x))).max() < 1e-3, "the export computes something else"
        y = np.exp(y.astype(np.float64) - y.max(1, keepdims=True))
        return y / y.sum(1, keepdims=True)

    for name, images in (("8 x 8 values", raw), ("64 x 64 pictures", drawn)):
        right = probabilities(images[test]).argmax(1) == labels[test]
        print(f"{name}: {right.sum()} of {len(test)} test digits right, {100 * right.mean():.2f} %")
    p = probabilities(drawn[test])
    for digit in range(10):
        # The first test digit of its class that is beyond doubt.
        chosen = next(i for i, q in zip(test, p) if labels[i] == digit and q[digit] > 0.999)
        path = ASSETS / f"{digit}.png"
        draw(digits.images[chosen]).save(path, optimize=True)
        reread = probabilities(preprocess(Image.open(path))[None])[0]
        print(f"{path.name}: sample {chosen}, top {reread.argmax()} with {reread.max():.5f}")
        assert reread.argmax() == digit
    print(f"{model.name}: {model.stat().st_size} bytes")


if __name__ == "__main__":
    main()
