"""Reference implementation of strongroom's file envelopes, after FORMAT.md (sections 2 to 5 and 9).

By the author of the Rust code for files, so it checks the bytes but is no independent reading of the page.

Slow, and takes no care of side channels: for checking, not for production. Imports what files share with messages.

    python strongroom_reference_file.py     one JSON request a line on stdin, one JSON answer a line on stdout

    {"op": "open_file", "data_key": hex, "suite": 1 or 2, "region", "tenant", "context": [[name, value], ...], "file": hex}
        -> {"plaintext": hex} or {"refused": "malformed" or "unopenable"}
    {"op": "seal_file", ... as above with "plaintext" and "salt" (24 bytes) instead of "file"}
        -> {"file": hex}
"""

import hmac
import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from strongroom_reference import Malformed, Unopenable, build_header, caller_side, derive, parse_header, require

MAGIC = bytes.fromhex("8E535246494C450A")
SALT_LEN, COMMITMENT_LEN, TAG_LEN = 24, 32, 16
CHUNK = 16_384
AEADS = {1: (b"AEAD_AES_256_GCM", AESGCM), 2: (b"AEAD_CHACHA20_POLY1305", ChaCha20Poly1305)}


def hkdf_expand_sha512(prk, info, length):
    """RFC 5869, section 2.3."""
    okm, block, i = b"", b"", 1
    while len(okm) < length:
        block = hmac.digest(prk, block + info + bytes([i]), "sha512")
        okm += block
        i += 1
    return okm[:length]


def file_context(header, tenant, canonical):
    return b"strongroom/v1/file" + header + bytes([len(tenant)]) + tenant + canonical


def schedule(suite, file_key, salt, context):
    """(AEAD object, base nonce, commitment) of one file."""
    name, aead = AEADS[suite]
    okm = hkdf_expand_sha512(file_key, b"c2sp.org/chunked-encryption@v1+" + name + b"\x00" + salt + context, 76)
    return aead(okm[:32]), okm[32:44], okm[44:]


def nonce(base, k):
    return bytes(a ^ b for a, b in zip(base, k.to_bytes(12, "big")))


def parse_head(file):
    """(suite, region, key id, header, salt, commitment, chunks), or Malformed."""
    if file[:8] != MAGIC:
        raise Malformed("magic")
    suite, region, key_id, header_len = parse_header(file[8:])
    header, rest = file[8 : 8 + header_len], file[8 + header_len :]
    if len(rest) < SALT_LEN + COMMITMENT_LEN:
        raise Malformed("head cut short")
    return suite, region, key_id, header, rest[:24], rest[24:56], rest[56:]


def open_file(v):
    data_key, suite, region, tenant, canonical = caller_side(v)
    f_suite, f_region, f_key_id, header, salt, commitment, chunks = parse_head(bytes.fromhex(v["file"]))
    if (f_suite, f_region, f_key_id) != (suite, region, derive(data_key, suite, "key-id")):
        raise Unopenable
    aead, base, expected = schedule(suite, derive(data_key, suite, "file"), salt, file_context(header, tenant, canonical))
    if not hmac.compare_digest(expected, commitment):
        raise Unopenable
    full, last = divmod(len(chunks), CHUNK + TAG_LEN)
    if last < TAG_LEN:
        raise Unopenable
    plaintext = b""
    try:
        for k in range(full + 1):
            sealed = chunks[k * (CHUNK + TAG_LEN) : (k + 1) * (CHUNK + TAG_LEN)]
            plaintext += aead.decrypt(nonce(base, k), sealed, b"")
    except InvalidTag:
        raise Unopenable from None
    return plaintext


def seal_file(v):
    data_key, suite, region, tenant, canonical = caller_side(v)
    plaintext, salt = bytes.fromhex(v["plaintext"]), bytes.fromhex(v["salt"])
    require(len(salt) == SALT_LEN, "salt")
    header = build_header(suite, region, derive(data_key, suite, "key-id"))
    aead, base, commitment = schedule(
        suite, derive(data_key, suite, "file"), salt, file_context(header, tenant, canonical)
    )
    file = MAGIC + header + salt + commitment
    for k in range(len(plaintext) // CHUNK + 1):
        file += aead.encrypt(nonce(base, k), plaintext[k * CHUNK : (k + 1) * CHUNK], b"")
    return file


def answer(request):
    try:
        if request["op"] == "open_file":
            return {"plaintext": open_file(request).hex()}
        if request["op"] == "seal_file":
            return {"file": seal_file(request).hex()}
    except Malformed:
        return {"refused": "malformed"}
    except Unopenable:
        return {"refused": "unopenable"}
    raise ValueError(f"no such op: {request['op']}")


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
