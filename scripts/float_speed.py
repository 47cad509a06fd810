#!/usr/bin/env python3
"""Compares the float kernels that run sealed models with ONNX Runtime, in turn on the same files, on one thread.

    cargo build --release -p privet-cli
    for model in resnet50 vgg16; do target/release/privet export $model -o $model.onnx; done
    python3 scripts/float_speed.py resnet50.onnx vgg16.onnx     # needs numpy and onnxruntime

Prints CPU seconds of an inference: wall time says little on a busy machine, and CPU time is longer there as well, so that the least of all
inferences counts; medians stand behind. Exits with 1 beyond --limit, or if outputs differ. Builds for tests (profiles dev and ci) check
every addition for overflow, and are several times slower.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import onnxruntime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--privet", default="target/release/privet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=9)
    parser.add_argument("--limit", type=float, default=3.0)
    args = parser.parse_args()
    failed = False
    print(f"{'model':<24}{'Privet':>10}{'ORT':>10}{'ratio':>8}{'medians':>20}   CPU s of an inference, one thread")
    for path in args.models:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        shape = [d if isinstance(d, int) else 1 for d in given.shape]
        x = numpy.random.default_rng(1).standard_normal(shape).astype(numpy.float32)
        ours, theirs = [], []
        for _ in range(args.rounds):
            own, output = privet(args, path, x)
            ours += own
            session.run(None, {given.name: x})
            for _ in range(args.iterations):
                began = time.process_time()
                (expected,) = session.run(None, {given.name: x})
                theirs.append(time.process_time() - began)
        apart = numpy.abs(numpy.array(output) - expected.ravel()).max() / numpy.abs(expected).max()
        own, other = min(ours), min(theirs)
        medians = f"{statistics.median(ours):.4f} {statistics.median(theirs):.4f}"
        print(f"{path.stem:<24}{own:>10.4f}{other:>10.4f}{own / other:>8.2f}{medians:>20}   {apart:.1e} apart", flush=True)
        failed |= own / other > args.limit or not apart < 1e-4
    sys.exit(failed)


def privet(args, path, x):
    """CPU seconds of each inference but the first, and the output."""
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        tensor = {"shape": list(x.shape), "data": x.ravel().tolist()}
        (home / "inputs.json").write_text(json.dumps([[tensor]]))
        words = [args.privet, "plain", "resident", "--model", str(path), "--inputs", str(home / "inputs.json")]
        words += ["--raw", str(home / "raw.json"), "--iterations", str(args.iterations + 1)]
        subprocess.run(words, check=True, env={"RAYON_NUM_THREADS": "1"})
        said = json.loads((home / "raw.json").read_text())
        return said["cpu_seconds"][1:], said["outputs"][0]["data"]


if __name__ == "__main__":
    main()
