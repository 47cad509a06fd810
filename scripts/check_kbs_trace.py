#!/usr/bin/env python3
"""Checks the committed exchange of a KBS client (crates/keys/tests/golden/rcar.json) with other implementations.

Report data by hashlib, the JWEs and the token by jwcrypto (pip install jwcrypto). Nothing is shared with the Rust code.
"""

import base64
import hashlib
import json
import pathlib

from jwcrypto import jwe, jwk, jws

TRACE = pathlib.Path(__file__).parent.parent / "crates/keys/tests/golden/rcar.json"


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_attestation(request: dict, token: str) -> None:
    runtime = request["runtime-data"]
    bound = {"additional-evidence": "", "nonce": runtime["nonce"], "tee-pubkey": runtime["tee-pubkey"]}
    canonical = json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
    evidence = decode(request["tee-evidence"]["primary_evidence"]["privet"])
    assert hashlib.sha384(canonical).digest() in evidence, "report data"
    claims = json.loads(decode(token.split(".")[1]))
    assert claims["tee-pubkey"] == runtime["tee-pubkey"] and claims["exp"] > claims["iat"]
    signed = jws.JWS()
    signed.allowed_algs = ["EdDSA"]
    signed.deserialize(token)
    signed.verify(jwk.JWK(**claims["jwk"]))


def main() -> None:
    trace = json.loads(TRACE.read_text())
    client = trace["client-key"]
    key = jwk.JWK(kty="EC", crv="P-256", d=client["d"], x=client["jwk"]["x"], y=client["jwk"]["y"])
    checked = 0
    for step in trace["steps"]:
        request, response = step["request"], step["response"]
        if response["status"] != 200:
            assert response["body"]["type"].startswith("https://github.com/confidential-containers/kbs/errors/")
        elif request["path"].endswith("/attest"):
            check_attestation(request["body"], response["body"]["token"])
        elif request["path"].startswith("/kbs/v0/resource/"):
            message = jwe.JWE(algs=["ECDH-ES+A256KW", "A256GCM"])
            message.deserialize(json.dumps(response["body"]), key)
            expected = trace["resource"].get(request["path"].removeprefix("/kbs/v0/resource/"))
            assert expected is None or message.payload.hex() == expected, request["path"]
            checked += 1
    assert checked == 2
    print(f"{TRACE.name}: report data, token and {checked} JWEs are right")


if __name__ == "__main__":
    main()
