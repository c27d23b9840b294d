"""Reference implementation of the strongroom format, version 1.

Written from FORMAT.md alone, without a look at the Rust code, so that each checks the other. It is slow and takes no
care of side channels: for checking, not for production.

    python strongroom_reference.py               one JSON request a line on stdin, one JSON answer a line on stdout
    python strongroom_reference.py --self-test   every vector of tests/vectors/ and the published ones
"""

import hashlib
import hmac
import json
import os
import re
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 0xF5
SUITE_NAMES = {1: "aes-256-gcm", 2: "chacha20-poly1305"}
KEY_ID_LEN, NONCE_LEN, TAG_LEN = 32, 24, 16

# Section 1.
MAX_PLAINTEXT = 2**24
REGION = re.compile(rb"[a-z0-9-]{1,32}")
TENANT = re.compile(rb"[A-Za-z0-9._:@-]{1,64}")
MAX_FIELDS, MAX_NAME, MAX_VALUE, MAX_CONTEXT = 16, 64, 512, 1024
SCOPE_NAME = re.compile(rb"[a-z0-9_-]{1,32}")
MAX_SCOPE_FIELDS, MAX_SCOPE = 8, 512


class Malformed(Exception):
    """The envelope does not parse."""


class Unopenable(Exception):
    """The envelope parses and must be refused. Carries no reason: "all refusals look the same"."""


class LimitExceeded(ValueError):
    """An argument that no envelope is to blame for breaks section 1. FORMAT.md has no name for this."""


def require(condition, what):
    if not condition:
        raise LimitExceeded(what)


# --- Ciphers ------------------------------------------------------------------

def aes_256_block(key, block):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def xaes_subkeys(key):
    """Steps 1 and 2 of c2sp.org/XAES-256-GCM: L and the CMAC subkey K1."""
    l = aes_256_block(key, bytes(16))
    doubled = int.from_bytes(l, "big") << 1
    if doubled >> 128:  # MSB of L was 1
        doubled ^= 0x87
    return l, (doubled & (2**128 - 1)).to_bytes(16, "big")


def xaes_derive(key, nonce):
    """Steps 3 to 6: the AES-256-GCM key and nonce."""
    assert len(key) == 32 and len(nonce) == NONCE_LEN
    _, k1 = xaes_subkeys(key)
    m1, m2 = (bytes([0, i]) + b"X\x00" + nonce[:12] for i in (1, 2))
    subkey = b"".join(aes_256_block(key, bytes(a ^ b for a, b in zip(m, k1))) for m in (m1, m2))
    return subkey, nonce[12:]


def hchacha20(key, nonce16):
    """draft-irtf-cfrg-xchacha-03, section 2.2: ChaCha20's rounds without the final addition, words 0-3 and 12-15."""
    assert len(key) == 32 and len(nonce16) == 16
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce16))

    def rotl(word, n):
        return ((word << n) | (word >> (32 - n))) & 0xFFFFFFFF

    def quarter_round(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] = rotl(state[z] ^ state[x], n)

    for _ in range(10):
        for column in range(4):
            quarter_round(column, column + 4, column + 8, column + 12)
        for i in range(4):
            quarter_round(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def message_cipher(suite, key, nonce):
    """The 96-bit-nonce AEAD that the suite's message cipher comes down to for this nonce, and its nonce."""
    if suite == 1:
        subkey, subnonce = xaes_derive(key, nonce)
        return AESGCM(subkey), subnonce
    # Section 2.3 of the draft: "the remaining 8 bytes of the nonce", behind four zero bytes.
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]


# --- Section 3: keys ----------------------------------------------------------

def hkdf_sha512(ikm, info):
    """RFC 5869 without a salt, L = 32: the one of the library at hand."""
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=info).derive(ikm)


def derive(data_key, suite, purpose):
    """`purpose` is "key-id" or "file"."""
    require(len(data_key) == 32, "data key")
    require(suite in SUITE_NAMES, "suite")
    return hkdf_sha512(data_key, f"strongroom/v1/{SUITE_NAMES[suite]}/{purpose}".encode())


def binding(header, tenant, scope):
    """`scope` in canonical form."""
    return header + bytes([len(tenant)]) + tenant + scope


def message_key(data_key, header, tenant, scope):
    require(len(data_key) == 32, "data key")
    return hkdf_sha512(data_key, b"strongroom/v1/message" + binding(header, tenant, scope))


# --- Section 4: context -------------------------------------------------------

def encode_pairs(pairs):
    encoded = sorted((name.encode(), value.encode()) for name, value in pairs)
    require(len({name for name, _ in encoded}) == len(encoded), "context name occurs twice")
    out = bytes([len(encoded)])
    for name, value in encoded:
        require(1 <= len(name) <= MAX_NAME, "context name length")
        require(len(value) <= MAX_VALUE, "context value length")
        out += bytes([len(name)]) + name + struct.pack(">H", len(value)) + value
    return out


def canonical_context(pairs):
    """All of an envelope's context together. (Not for section 7, whose pairs are a scope's and four or five more.)"""
    require(len(pairs) <= MAX_FIELDS, "context fields")
    canonical = encode_pairs(pairs)
    require(len(canonical) <= MAX_CONTEXT, "canonical context")
    return canonical


def canonical_scope(pairs):
    require(len(pairs) <= MAX_SCOPE_FIELDS, "scope fields")
    for name, value in pairs:
        require(SCOPE_NAME.fullmatch(name.encode()), "scope field name")
        require(value, "scope field without a value")
    canonical = encode_pairs(pairs)
    require(len(canonical) <= MAX_SCOPE, "canonical scope")
    return canonical


def split_context(scope, own):
    """The canonical forms of the scope's and of the own fields, which together are a context."""
    forms = canonical_scope(scope), encode_pairs(own)
    together = canonical_context(scope + own)
    assert len(together) == len(forms[0]) + len(forms[1]) - 1
    return forms


# --- Sections 5 and 6: envelopes ----------------------------------------------

def build_header(suite, region, key_id):
    return bytes([VERSION, suite, len(region)]) + region + key_id


def parse_header(envelope):
    """(suite, region, key id, header length), or Malformed."""
    if len(envelope) < 3:
        raise Malformed("header cut short")
    version, suite, region_len = envelope[:3]
    if version != VERSION:
        raise Malformed("version")
    if suite not in SUITE_NAMES:
        raise Malformed("suite")
    header_len = 3 + region_len + KEY_ID_LEN
    region = envelope[3 : 3 + region_len]
    if len(envelope) < header_len:
        raise Malformed("header cut short")
    if not REGION.fullmatch(region):
        raise Malformed("region")
    return suite, region, envelope[3 + region_len : header_len], header_len


def parse_message(envelope):
    """(suite, region, key id, header, nonce, ciphertext || tag), or Malformed."""
    suite, region, key_id, header_len = parse_header(envelope)
    body = envelope[header_len:]
    # "The ciphertext is as long as the plaintext", so its length tells that the plaintext is outside its limits.
    if not 0 <= len(body) - NONCE_LEN - TAG_LEN <= MAX_PLAINTEXT:
        raise Malformed("length")
    return suite, region, key_id, envelope[:header_len], body[:NONCE_LEN], body[NONCE_LEN:]


def caller_side(v):
    """What the caller brings, checked: (data key, suite, region, tenant). The context is checked where it is encoded."""
    region, tenant = v["region"].encode(), v["tenant"].encode()
    require(REGION.fullmatch(region), "region")
    require(TENANT.fullmatch(tenant), "tenant")
    require(v["suite"] in SUITE_NAMES, "suite")
    data_key = bytes.fromhex(v["data_key"])
    require(len(data_key) == 32, "data key")
    return data_key, v["suite"], region, tenant


def open_message(v):
    """The plaintext of a vector-like dict (section 8), or Malformed or Unopenable."""
    data_key, suite, region, tenant = caller_side(v)
    scope, own = split_context(v["scope"], v["context"])
    e_suite, e_region, e_key_id, header, nonce, sealed = parse_message(bytes.fromhex(v["envelope"]))
    if (e_suite, e_region, e_key_id) != (suite, region, derive(data_key, suite, "key-id")):
        raise Unopenable
    aead, subnonce = message_cipher(suite, message_key(data_key, header, tenant, scope), nonce)
    try:
        return aead.decrypt(subnonce, sealed, own)
    except InvalidTag:
        raise Unopenable from None


def seal_message(v, plaintext, nonce=None):
    """An envelope. The nonce is random unless given. Nothing here counts messages, as a writer has to."""
    data_key, suite, region, tenant = caller_side(v)
    scope, own = split_context(v["scope"], v["context"])
    require(len(plaintext) <= MAX_PLAINTEXT, "plaintext")
    nonce = os.urandom(NONCE_LEN) if nonce is None else nonce
    require(len(nonce) == NONCE_LEN, "nonce")
    header = build_header(suite, region, derive(data_key, suite, "key-id"))
    aead, subnonce = message_cipher(suite, message_key(data_key, header, tenant, scope), nonce)
    return header + nonce + aead.encrypt(subnonce, plaintext, own)


# --- Section 7: the local KMS -------------------------------------------------

def local_kms_aad(kek_name, kek_version, pairs):
    name = kek_name.encode()
    require(len(name) <= 255, "KEK name")  # all that its length byte says
    return b"strongroom/v1/local-kms" + bytes([len(name)]) + name + struct.pack(">I", kek_version) + encode_pairs(pairs)


def local_wrap(kek, kek_name, kek_version, pairs, data_key, nonce=None):
    require(len(kek) == 32 and len(data_key) == 32, "key length")
    nonce = os.urandom(NONCE_LEN) if nonce is None else nonce
    require(len(nonce) == NONCE_LEN, "nonce")
    aead, subnonce = message_cipher(1, kek, nonce)  # XAES-256-GCM, whatever the data key's suite is
    sealed = aead.encrypt(subnonce, data_key, local_kms_aad(kek_name, kek_version, pairs))
    return b"\x02" + struct.pack(">I", kek_version) + nonce + sealed


def local_unwrap(kek, kek_name, pairs, wrapped):
    """The data key. The caller has picked `kek` by the version in `wrapped`, and checks the key id (section 3)."""
    require(len(kek) == 32, "key length")
    if len(wrapped) != 77 or wrapped[0] != 2:
        raise Unopenable
    (kek_version,) = struct.unpack(">I", wrapped[1:5])
    aad = local_kms_aad(kek_name, kek_version, pairs)
    aead, subnonce = message_cipher(1, kek, wrapped[5:29])
    try:
        return aead.decrypt(subnonce, wrapped[29:], aad)
    except InvalidTag:
        raise Unopenable from None


# --- Command line -------------------------------------------------------------

def answer(r):
    """One request. Exceptions other than section 8's two end the process: a broken caller is no refusal."""
    try:
        match r["op"]:
            case "open":
                return {"ok": "opens", "plaintext": open_message(r).hex()}
            case "seal":
                nonce = bytes.fromhex(r["nonce"]) if "nonce" in r else None
                return {"envelope": seal_message(r, bytes.fromhex(r["plaintext"]), nonce).hex()}
            case "context":
                scope, own = split_context(r["scope"], r["context"])
                together = canonical_context(r["scope"] + r["context"])
                return {"scope": scope.hex(), "own": own.hex(), "together": together.hex()}
            case "key_id":
                return {"key_id": derive(bytes.fromhex(r["data_key"]), r["suite"], "key-id").hex()}
            case "local_unwrap":
                kek, wrapped = bytes.fromhex(r["kek"]), bytes.fromhex(r["wrapped"])
                return {"data_key": local_unwrap(kek, r["kek_name"], r["context"], wrapped).hex()}
            case op:
                raise ValueError(f"unknown op {op!r}")
    except Malformed:
        return {"ok": "malformed"}
    except Unopenable:
        return {"ok": "unopenable"}


# --- Self-test ----------------------------------------------------------------

def attempted(work):
    """What came of it: the kind of refusal, `caller's mistake`, or `done`."""
    try:
        work()
    except (Malformed, Unopenable) as refusal:
        return type(refusal).__name__.lower()
    except ValueError:
        return "caller's mistake"
    return "done"


def check_limits(check):
    """Section 1, up to the limit and one beyond."""
    caller = {"data_key": bytes(range(32)).hex(), "suite": 1, "region": "eu-1", "tenant": "acme"}
    caller |= {"scope": [["channel", "C9"]], "context": [["message", "M77"]]}
    mistakes = (
        {"data_key": bytes(31).hex()},
        {"data_key": bytes(33).hex()},
        {"suite": 0},
        {"suite": 3},
        {"region": ""},
        {"region": "r" * 33},
        {"region": "EU"},
        {"tenant": ""},
        {"tenant": "t" * 65},
        {"tenant": "a b"},
        {"context": [["a", "1"], ["a", "2"]]},
        {"context": [["channel", "C9"]]},
        {"context": [["", "1"]]},
        {"context": [["n" * 65, "1"]]},
        {"context": [["a", "v" * 513]]},
        {"context": [[f"a{i}", ""] for i in range(16)]},
        {"scope": [["channel", ""]]},
        {"scope": [["Channel", "C9"]]},
        {"scope": [["n" * 33, "1"]]},
        {"scope": [[f"a{i}", "1"] for i in range(9)]},
        {"scope": [["a", "v" * 508]]},
        # 1025 bytes together: 13 of the scope's, 1012 of the own fields less one.
        {"context": [["a", "v" * 512], ["b", "v" * 492]]},
    )
    for mistake in mistakes:
        got = attempted(lambda m=mistake: seal_message(caller | m, b"x"))
        check(f"caller's mistake {mistake}", got, "caller's mistake")
    within = {"context": [["a", "v" * 512], ["b", "v" * 491]]}
    check("1024 bytes of context", attempted(lambda: seal_message(caller | within, b"x")), "done")
    longest = [["a", "v" * 507]]
    check("a scope of 512 bytes", attempted(lambda: seal_message(caller | {"scope": longest}, b"x")), "done")
    for key in (bytes(31), bytes(33)):
        check("key id of no data key", attempted(lambda k=key: derive(k, 1, "key-id")), "caller's mistake")
        check("message key of none", attempted(lambda k=key: message_key(k, b"", b"", b"")), "caller's mistake")
        check("KEK of another length", attempted(lambda k=key: local_wrap(k, "k", 1, [], bytes(32))), "caller's mistake")
        check("no data key to wrap", attempted(lambda k=key: local_wrap(bytes(32), "k", 1, [], k)), "caller's mistake")
        check("KEK of another length", attempted(lambda k=key: local_unwrap(k, "k", [], bytes(77))), "caller's mistake")
    check("key id of no suite", attempted(lambda: derive(bytes(32), 3, "key-id")), "caller's mistake")
    for nonce in (bytes(23), bytes(25)):
        check("nonce", attempted(lambda n=nonce: seal_message(caller, b"x", n)), "caller's mistake")
        wrap = lambda n=nonce: local_wrap(bytes(32), "k", 1, [], bytes(32), n)  # noqa: E731
        check("nonce of a wrap", attempted(wrap), "caller's mistake")
    for length, want in ((255, "done"), (256, "caller's mistake")):
        check(f"KEK name of {length} bytes", attempted(lambda n=length: local_kms_aad("k" * n, 1, [])), want)
    for length, want in ((2**24, "done"), (2**24 + 1, "caller's mistake")):
        check(f"message of {length} bytes", attempted(lambda n=length: seal_message(caller, bytes(n))), want)
    header = build_header(1, b"eu-1", bytes(32))
    for length, want in ((39, "malformed"), (40, "done"), (2**24 + 40, "done"), (2**24 + 41, "malformed")):
        check(f"{length} bytes behind the header", attempted(lambda n=length: parse_message(header + bytes(n))), want)


def self_test():
    vectors = Path(__file__).resolve().parent.parent / "vectors"
    results = []

    def check(name, got, want):
        results.append(got == want)
        if got != want:
            print(f"FAILED {name}: got {got!r}, want {want!r}")

    scenarios = sorted(vectors.glob("*.json"))
    check("there are scenarios", bool(scenarios), True)
    for path in scenarios:
        v = json.loads(path.read_text("utf-8"))
        want = {"ok": v["expect"]} | ({"plaintext": v["plaintext"]} if v["expect"] == "opens" else {})
        check(path.name, answer(v | {"op": "open"}), want)

    for path in sorted((vectors / "local-kms").glob("*.json")):
        v = json.loads(path.read_text("utf-8"))
        want = {"data_key": v["data_key"]} if v["expect"] == "opens" else {"ok": v["expect"]}
        check(path.name, answer(v | {"op": "local_unwrap"}), want)

    xaes = json.loads((vectors / "third_party" / "xaes-256-gcm.json").read_text("utf-8"))
    for i, t in enumerate(xaes["tests"]):
        key, nonce = bytes.fromhex(t["key"]), t["nonce_ascii"].encode()
        got = [b.hex() for b in (*xaes_subkeys(key), *xaes_derive(key, nonce))]
        check(f"XAES derivation {i}", got, [t["l"], t["k1"], t["derived_key"], t["derived_nonce"]])
        aead, subnonce = message_cipher(1, key, nonce)
        got = aead.encrypt(subnonce, t["plaintext_ascii"].encode(), t["aad_ascii"].encode()).hex()
        check(f"XAES {i}", got, t["ciphertext"])

    accumulated, ciphertexts, at = xaes["accumulated"], hashlib.shake_128(), 0
    iterations = accumulated["iterations"]
    stream = hashlib.shake_128().digest(iterations * (32 + 24 + 256 + 256))  # hashlib cannot squeeze bit by bit

    def read(n):
        nonlocal at
        at += n
        return stream[at - n : at]

    for _ in range(iterations):
        key, nonce, plaintext, aad = read(32), read(24), read(read(1)[0]), read(read(1)[0])
        aead, subnonce = message_cipher(1, key, nonce)
        ciphertexts.update(aead.encrypt(subnonce, plaintext, aad))
    check(f"XAES, {iterations} iterations", ciphertexts.hexdigest(32), accumulated["expected"])

    got = hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927")).hex()
    want = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    check("HChaCha20, draft-irtf-cfrg-xchacha-03 section 2.2.1", got, want)
    aead, subnonce = message_cipher(2, bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58)))
    sunscreen = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    sunscreen += b"sunscreen would be it."
    got = aead.encrypt(subnonce, sunscreen, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))[-TAG_LEN:].hex()
    check("XChaCha20-Poly1305 tag, section A.3.1", got, "c0875924c1c7987947deafd8780acf49")

    check_limits(check)
    want = b"\x02\x07channel\x00\x02C9\x09workspace\x00\x02W1"
    check("example of section 4", canonical_context([["workspace", "W1"], ["channel", "C9"]]), want)
    check("empty context", canonical_context([]), b"\x00")

    kms_context = [["tenant", "t"], ["region", "eu"], ["purpose", "data-key"], ["suite", "aes-256-gcm"]]
    wrapped = local_wrap(bytes(32), "k", 7, kms_context, b"D" * 32)
    check("local KMS length", len(wrapped), 77)
    ask = {"op": "local_unwrap", "kek": "00" * 32, "kek_name": "k", "context": kms_context, "wrapped": wrapped.hex()}
    check("local KMS", answer(ask), {"data_key": (b"D" * 32).hex()})
    for i in range(len(wrapped)):
        bent = wrapped[:i] + bytes([wrapped[i] ^ 1]) + wrapped[i + 1 :]
        check(f"local KMS, byte {i} bent", answer(ask | {"wrapped": bent.hex()}), {"ok": "unopenable"})
    for other in ({"kek_name": "j"}, {"context": kms_context[1:]}, {"kek": "01" * 32}, {"wrapped": wrapped[:-1].hex()}):
        check(f"local KMS, {other}", answer(ask | other), {"ok": "unopenable"})

    failed = results.count(False)
    print(f"{results.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if sys.argv[1:]:
        sys.exit(__doc__)
    for line in sys.stdin.buffer:
        print(json.dumps(answer(json.loads(line))), flush=True)
