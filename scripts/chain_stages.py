"""Runs the stages of `privet split --onnx` one after another in ONNX Runtime, and compares with the whole model.

    python3 scripts/chain_stages.py model.onnx stages-directory ..

Needs numpy and onnxruntime. Prints the largest difference in relation to the largest output; fails above 1e-4, and where a file's digest
is not the index's.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

TOLERANCE = 1e-4


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def chain(directory, index, inputs):
    tensors = dict(inputs)
    for stage in index["stages"]:
        path = directory / stage["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stage["digest"], path
        names = [t["name"] for t in stage["outputs"]]
        feed = {t["name"]: tensors[t["name"]] for t in stage["inputs"]}
        tensors.update(zip(names, session(path).run(names, feed)))
    return [tensors[t["name"]] for t in index["outputs"]]


def main():
    model, *directories = map(Path, sys.argv[1:])
    whole = None
    for directory in directories:
        index = json.loads((directory / "stages.json").read_text())
        assert index["version"] == 1, index["version"]
        files = sorted(p.name for p in directory.glob("*.onnx"))
        assert files == sorted(s["file"] for s in index["stages"]), files
        if whole is None:
            rng = np.random.default_rng(1)
            inputs = {t["name"]: rng.standard_normal(t["shape"]).astype(np.float32) for t in index["inputs"]}
            whole = session(model).run([t["name"] for t in index["outputs"]], inputs)
        found = chain(directory, index, inputs)
        error = max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(found, whole))
        print(f"{model.stem}: {len(index['stages'])} stages, relative difference {error:.1e}")
        if not error <= TOLERANCE:
            sys.exit(f"{directory}: expected at most {TOLERANCE}")


if __name__ == "__main__":
    main()
