#!/usr/bin/env python3
"""Sealed models by a program that shares nothing with the Rust code: it follows docs/formats.md.

Needs the packages cryptography and blake3. From the repository's root:

    python3 scripts/golden_seal.py                              # writes crates/seal/tests/golden
    python3 scripts/golden_seal.py open M.sealed OWNER M.onnx   # opens what privet seal has made
"""
import hashlib
import pathlib
import struct
import sys
import tomllib
import uuid

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(key, salt, info):
    return HKDF(SHA256(), 32, salt or None, info).derive(key)


def sha256(data):
    return hashlib.sha256(data).digest()


def text(name, width):
    return len(name).to_bytes(width, "little") + name


def place(entry, chunk):
    return struct.pack("<IQ", entry, chunk)


def seal(graph, tensors, content, signing, model_id, key_id, version, chunk_bits, salt):
    """tensors: (name, type, shape, offset in the graph, data)."""
    size = 1 << chunk_bits
    count = lambda data: -(-len(data) // size)
    entries = [(b"", 0, [], 0, graph), *tensors]
    header = b"\0" + model_id + struct.pack("<QII", version, 1, 1) + text(key_id, 1) + struct.pack("<I", 1)
    header += sha256(graph) + bytes([chunk_bits]) + salt
    header += derive(content, salt, b"privet sealed model v1: commitment") + struct.pack("<I", len(entries))
    begin = 0
    for name, dtype, shape, at, data in entries:
        header += text(name, 2) + bytes([dtype, len(shape)]) + b"".join(struct.pack("<Q", d) for d in shape)
        header += struct.pack("<QQQ", at, begin, len(data))
        begin += len(data) + 16 * count(data)
    chunks = sum(count(data) for *_, data in entries)
    head = b"PRIVSEAL" + struct.pack("<HII", 1, len(header), chunks) + header
    cipher = AESGCM(derive(content, salt, b"privet sealed model v1: chunks"))
    sealed = []
    for i, (*_, data) in enumerate(entries):
        for j in range(count(data)):
            aad = sha256(head) + place(i, j) + bytes([j + 1 == count(data)])
            sealed.append(cipher.encrypt(place(i, j), data[j * size : (j + 1) * size], aad))
    front = head + b"".join(blake3(chunk).digest() for chunk in sealed)
    signature = Ed25519PrivateKey.from_private_bytes(signing).sign(b"privet sealed model v1" + sha256(front))
    return front + signature + b"".join(sealed)


def open_sealed(data, content, verifying):
    """The ONNX file."""
    magic, version, length, chunks = struct.unpack("<8sHII", data[:18])
    assert (magic, version) == (b"PRIVSEAL", 1)
    head, front = data[: 18 + length], data[: 18 + length + 32 * chunks]
    chunks_at = len(front) + 64
    Ed25519PublicKey.from_public_bytes(verifying).verify(
        data[len(front) : chunks_at], b"privet sealed model v1" + sha256(front)
    )
    at = 18 + 1 + 16 + 8 + 8
    at += 1 + head[at] + 4 + 32
    size, salt, commitment = 1 << head[at], head[at + 1 : at + 33], head[at + 33 : at + 65]
    assert commitment == derive(content, salt, b"privet sealed model v1: commitment"), "another key"
    cipher = AESGCM(derive(content, salt, b"privet sealed model v1: chunks"))
    (count,) = struct.unpack_from("<I", head, at + 65)
    at, number, entries = at + 69, 0, []
    for i in range(count):
        at += 2 + struct.unpack_from("<H", head, at)[0]
        at += 2 + 8 * head[at + 1]
        splice, begin, length = struct.unpack_from("<QQQ", head, at)
        at, plain, here = at + 24, [], chunks_at + begin
        total = -(-length // size)
        for j in range(total):
            chunk = data[here : here + min(size, length - j * size) + 16]
            assert blake3(chunk).digest() == front[len(head) + 32 * number :][:32]
            plain.append(cipher.decrypt(place(i, j), chunk, sha256(head) + place(i, j) + bytes([j + 1 == total])))
            here, number = here + len(chunk), number + 1
        entries.append((splice, b"".join(plain)))
    assert at == len(head) and here == len(data)
    graph, last, whole = entries[0][1], 0, []
    for splice, tensor in entries[1:]:
        whole += [graph[last:splice], tensor]
        last = splice
    return b"".join(whole) + graph[last:]


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def key_file(magic, key):
    body = magic + struct.pack("<H", 1) + key
    return body + sha256(body)[:8]


def main():
    content, signing, kek, salt = (bytes(range(i, i + 32)) for i in (0, 32, 64, 96))
    model_id, key_id = uuid.UUID("67e55044-10b1-426f-9247-bb680e5fe0c8"), b"golden"
    # Two tensors: one of two chunks, and one in float_data.
    weights = bytes((i * i >> 3) & 255 for i in range(65_540))
    biases = struct.pack("<3f", 0.5, -1.5, 2.25)
    first = b"\x08" + varint(65_540) + b"\x10\x02" + field(8, b"w") + field(9, weights)
    second = b"\x08\x03\x10\x01" + field(8, b"b") + field(4, biases)
    onnx = b"\x08\x08" + field(7, field(5, first) + field(5, second) + field(2, b"graph"))
    w, b = onnx.index(weights), onnx.index(biases)
    graph = onnx[:w] + onnx[w + len(weights) : b] + onnx[b + len(biases) :]
    tensors = [(b"w", 2, [65_540], w, weights), (b"b", 1, [3], b - len(weights), biases)]
    sealed = seal(graph, tensors, content, signing, model_id.bytes, key_id, 7, 16, salt)
    public = Ed25519PrivateKey.from_private_bytes(signing).public_key()
    verifying = public.public_bytes_raw()
    assert open_sealed(sealed, content, verifying) == onnx
    head = b"PRIVWRAP" + struct.pack("<H", 1) + text(key_id, 1) + struct.pack("<I", 1) + salt
    wrapped = head + AESGCM(derive(kek, salt, b"privet wrapped key v1")).encrypt(bytes(12), content, head)
    fingerprint = derive(content, b"", b"privet content key fingerprint v1")
    release = f'version = 1\nmodel_id = "{model_id}"\nkey_id = "{key_id.decode()}"\nkey_version = 1\n'
    release += f'verifying_key = "{verifying.hex()}"\ncontent_key_fingerprint = "{fingerprint.hex()}"\n'
    out = pathlib.Path("crates/seal/tests/golden")
    out.mkdir(exist_ok=True)
    files = {
        "model.sealed": sealed,
        "model.sha256": hashlib.sha256(onnx).hexdigest().encode(),
        "content.key": key_file(b"PRIVCKEY", content),
        "signing.key": key_file(b"PRIVSKEY", signing),
        "release.toml": release.encode(),
        "wrapped": wrapped,
        "kek": kek,
    }
    for name, data in files.items():
        (out / name).write_bytes(data)


if len(sys.argv) == 1:
    main()
else:
    _, sealed, owner, onnx = sys.argv[1:]
    owner = pathlib.Path(owner)
    release = tomllib.loads((owner / "release.toml").read_text())
    content = (owner / "content.key").read_bytes()[10:42]
    verifying = bytes.fromhex(release["verifying_key"])
    pathlib.Path(onnx).write_bytes(open_sealed(pathlib.Path(sealed).read_bytes(), content, verifying))
