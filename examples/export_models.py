#!/usr/bin/env python3
"""Exports the eight ImageNet models of `privet bench --exp enclave` with torchvision's trained weights as ONNX files.

    python3 -m venv venv && venv/bin/pip install torch==2.8.0 torchvision==0.23.0 onnx==1.18.0
    venv/bin/python examples/export_models.py --out models
    privet bench --exp enclave --models models/resnet50.onnx,models/vgg16.onnx

Downloads about 1.5 GB of weights from download.pytorch.org (none with --random-weights). A file has one input, `input` of
shape 1 x 3 x 224 x 224, normalised as `--preprocess imagenet` does it, and one output, `logits` of shape 1 x 1000. With the versions above
the same weights give the same bytes; a SHA-256 of each is printed, and written to SHA256SUMS.
"""

import argparse
import hashlib
import io
import pathlib
import sys
import warnings

VERSIONS = {"torch": "2.8.0", "torchvision": "0.23.0", "onnx": "1.18.0"}
OPSET = 17
# torchvision's names, and its counts of parameters.
MODELS = {
    "alexnet": 61_100_840,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "squeezenet1_1": 1_235_496,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
}
# The first weights that torchvision published for each, trained as in the papers.
WEIGHTS = "IMAGENET1K_V1"


def vary(torch, model):
    """Makes vectors of fresh weights differ: of equal ones, such as biases of zero, the exporter writes one, and a file with
    trained weights, where none are equal, would have another graph."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand_like(tensor))


def export(torch, torchvision, onnx, name, weights):
    """The bytes of a model's ONNX file."""
    model = torchvision.models.get_model(name, weights=weights).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != MODELS[name]:
        sys.exit(f"{name}: expected {MODELS[name]} parameters, found {count}: is this another version of torchvision?")
    if weights is None:
        vary(torch, model)
    to = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # That later versions export differently: these ones are pinned.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            torch.zeros(1, 3, 224, 224),
            to,
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    decoded = onnx.load_model_from_string(to.getvalue())
    onnx.checker.check_model(decoded, full_check=True)
    shape = [dim.dim_value for dim in decoded.graph.output[0].type.tensor_type.shape.dim]
    if shape != [1, 1000]:
        sys.exit(f"{name}: expected an output of shape [1, 1000], found {shape}")
    return to.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="models", help="directory for the files [default: models]")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS), metavar="NAME")
    parser.add_argument("--random-weights", action="store_true", help="random weights of a fixed seed, without a download")
    parser.add_argument("--any-version", action="store_true", help="do not insist on the versions that were pinned")
    args = parser.parse_args()
    try:
        import onnx
        import torch
        import torchvision
    except ImportError as error:
        sys.exit(f"{error}; install {' '.join(f'{name}=={version}' for name, version in VERSIONS.items())}")
    for module in (torch, torchvision, onnx):
        found, pinned = module.__version__.split("+")[0], VERSIONS[module.__name__]
        if found != pinned and not args.any_version:
            sys.exit(f"{module.__name__}: expected version {pinned}, found {found}; --any-version takes it, and gives other bytes")
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    sums = args.out / "SHA256SUMS"
    # Those of an earlier call with other models stay.
    lines = dict(reversed(line.split("  ")) for line in sums.read_text().splitlines()) if sums.exists() else {}
    for name in args.models:
        torch.manual_seed(1)
        data = export(torch, torchvision, onnx, name, None if args.random_weights else WEIGHTS)
        path = args.out / f"{name}.onnx"
        path.write_bytes(data)
        lines[path.name] = hashlib.sha256(data).hexdigest()
        sums.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(lines.items())))
        print(f"{lines[path.name]}  {path.name}", flush=True)


if __name__ == "__main__":
    main()
