#!/usr/bin/env python3
"""Golden vectors for the comparison gates, independent of the Rust code.

Computes floor(x / 2^s) and floor(max(x, 0) / 2^s) with Python integers, checks that the masked formulas of
crates/protocols/src/masked/compare.rs give the same from (x + r mod 2^l, r), and writes
crates/protocols/tests/golden/gates.json. Run from the repository's root: python3 scripts/golden_gates.py
"""
import json
import random

rng = random.Random(20261120)


def masked_trunc(m, r, l, s):
    c = (m + 2 ** (l - 2)) % 2**l
    borrow = int(c % 2**s < r % 2**s)
    c_top, r_top = c >> (l - 1), r >> (l - 1)
    y = (c >> s) - (r >> s) - borrow + r_top * (1 - c_top) * 2 ** (l - s) - 2 ** (l - 2 - s)
    y %= 2**l
    return y - 2**l if y >> (l - 1) else y


def masked_msb(m, r, w):
    borrow = int(m % 2 ** (w - 1) < r % 2 ** (w - 1))
    return ((m >> (w - 1)) & 1) ^ ((r >> (w - 1)) & 1) ^ borrow


cases = []
for l in (16, 17, 20, 24, 31, 32, 33, 40, 47, 48, 52, 63, 64):
    for s in sorted({0, 1, 3, 4, 5, 8, 13, 15, 16, l // 2, l - 3}):
        for w in sorted({l - 1, max(s + 1, l - 7), max(s + 1, 9)}):
            if s > l - 3 or s >= w or w > l - 1:
                continue
            half = 2 ** (w - 1)
            edge = [-half, -half + 1, -1, 0, 1, half - 1, half - 2, 2**s - 1, 2**s, -(2**s), -(2**s) - 1]
            xs = [x for x in edge if -half <= x < half] + [rng.randrange(-half, half) for _ in range(13)]
            rs = [0, 1, 2**l - 1, 2 ** (l - 1), 2 ** (l - 1) - 1, 2 ** (l - 2)]
            rs = [rs[i % len(rs)] if i % 2 else rng.randrange(2**l) for i in range(len(xs))]
            trunc, relu = [x >> s for x in xs], [max(x, 0) >> s for x in xs]
            for x, r, t in zip(xs, rs, trunc):
                m = (x + r) % 2**l
                assert masked_trunc(m, r, l, s) == t, (l, s, x, r)
                assert masked_msb(m, r, w) == int(x < 0), (l, w, x, r)
            cases.append(dict(ring=l, shift=s, width=w, x=xs, **{"lambda": rs}, trunc=trunc, relu=relu))

with open("crates/protocols/tests/golden/gates.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
print(len(cases), "cases")
