#!/usr/bin/env python3
"""Times numpy's int64 matrix product (and torch's, where it is installed) next to ours, 1024^3 modulo 2^64, on one core.

    python3 scripts/numpy_matmul.py [target/release/privet]

Prints GMAC/s and ratios, the best of several runs of each. Without numpy nothing is compared, and the script says so.
"""

import json
import os
import subprocess
import sys
import time

N = 1024
SHAPE = f"{N} x {N} x {N}"
RUNS = 3

# One core each, before the libraries look.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"


def best(product):
    """GMAC/s of the fastest of several runs, by the CPU time of this thread."""
    seconds = []
    for _ in range(RUNS):
        start = time.thread_time()
        product()
        seconds.append(time.thread_time() - start)
    return N**3 / min(seconds) / 1e9


def numpy_rate():
    try:
        import numpy
    except ImportError:
        return None
    random = numpy.random.default_rng(1)
    a, b = (random.integers(-(2**63), 2**63, (N, N), dtype=numpy.int64) for _ in range(2))
    return best(lambda: a @ b)


def torch_rate():
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    a, b = (torch.randint(-(2**62), 2**62, (N, N), dtype=torch.int64) for _ in range(2))
    return best(lambda: a @ b)


def ours(program):
    """The fastest kernel's rate on one thread, and its name."""
    command = [program, "bench", "--exp", "kernels", "--kernels", "gemm", "--iterations", "3", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [r for r in rows if r["kernel"] == "gemm" and r["shape"] == SHAPE and r["threads"] == 1]
    rows = [r for r in rows if r["ring"] == 64 and r["skipped"] is None]
    row = max(rows, key=lambda r: r["achieved"])
    return row["achieved"], row["isa"]


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/privet"
    others = {"numpy": numpy_rate(), "torch": torch_rate()}
    if others["numpy"] is None:
        print("SKIPPED: numpy is not installed, nothing was compared", file=sys.stderr)
        return
    rate, isa = ours(program)
    print(f"privet ({isa}): {rate:.2f} GMAC/s, {SHAPE}, l = 64, one core")
    for name, other in others.items():
        if other is None:
            print(f"{name}: SKIPPED, not installed")
        else:
            print(f"{name} int64: {other:.2f} GMAC/s; privet is {rate / other:.1f} times as fast")


if __name__ == "__main__":
    main()
