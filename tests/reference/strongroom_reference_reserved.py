"""Reference implementation of what FORMAT.md, section 10, reserves: written from that page alone, as the rest.

    python strongroom_reference_reserved.py --self-test   every vector of tests/vectors/reserved/
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag

from strongroom_reference import (
    MAX_NAME,
    NONCE_LEN,
    TAG_LEN,
    Malformed,
    Unopenable,
    attempted,
    binding,
    build_header,
    caller_side,
    derive,
    encode_pairs,
    hkdf_sha512,
    message_cipher,
    message_key,
    parse_message,
    require,
    split_context,
)
from strongroom_reference_file import (
    COMMITMENT_LEN,
    MAGIC,
    SALT_LEN,
    chunk_nonce,
    chunked_keys,
    cut,
    open_file,
    parse_head,
)

PADDED, OWN_KEY = 0x80, 0x40


def flagged_header(key, suite, region, flags):
    return build_header(suite | flags, region, derive(key, suite, "key-id"))


# --- More keys from a data key ------------------------------------------------

def scope_key(v, label, flags=0):
    """`label` is "index", "derived" or "file-wrap"."""
    data_key, suite, region, tenant = caller_side(v)
    scope, _ = split_context(v["scope"], v["context"])
    header = flagged_header(data_key, suite, region, flags)
    return hkdf_sha512(data_key, b"strongroom/v1/" + label.encode() + binding(header, tenant, scope))


# --- Envelopes with a flag ----------------------------------------------------

def seal_flagged(v, flags, key, nonce, plaintext):
    data_key, suite, region, _ = caller_side(v)
    _, own = split_context(v["scope"], v["context"])
    require(len(nonce) == NONCE_LEN, "nonce")
    aead, subnonce = message_cipher(suite, key, nonce)
    return flagged_header(data_key, suite, region, flags) + nonce + aead.encrypt(subnonce, plaintext, own)


def open_flagged(v, flags, key, envelope):
    data_key, suite, region, _ = caller_side(v)
    _, own = split_context(v["scope"], v["context"])
    header = flagged_header(data_key, suite, region, flags)
    body = envelope[len(header) :]
    if envelope[: len(header)] != header or len(body) < NONCE_LEN + TAG_LEN:
        raise Unopenable
    aead, subnonce = message_cipher(suite, key, body[:NONCE_LEN])
    try:
        return aead.decrypt(subnonce, body[NONCE_LEN:], own)
    except InvalidTag:
        raise Unopenable from None


# --- A file with a key of its own ---------------------------------------------

def wrap_file_key(v, file_key, nonce):
    require(len(file_key) == 32, "file data key")
    return seal_flagged(v, OWN_KEY, scope_key(v, "file-wrap", OWN_KEY), nonce, file_key)


def unwrap_file_key(v, wrap):
    file_key = open_flagged(v, OWN_KEY, scope_key(v, "file-wrap", OWN_KEY), wrap)
    if len(file_key) != 32:
        raise Unopenable
    return file_key


def own_key_context(header, own):
    return b"strongroom/v1/file" + header + b"\x00" + own


def seal_own_key_file(file_key, suite, region, own, salt, plaintext):
    require(len(salt) == SALT_LEN, "salt")
    header = flagged_header(file_key, suite, region, OWN_KEY)
    context = own_key_context(header, encode_pairs(own))
    aead, base_nonce, commitment = chunked_keys(suite, derive(file_key, suite, "file"), salt, context)
    chunks = [aead.encrypt(chunk_nonce(base_nonce, k), chunk, b"") for k, chunk in enumerate(cut(plaintext))]
    return MAGIC + header + salt + commitment + b"".join(chunks)


def open_own_key_file(file_key, suite, region, own, file):
    """Of one chunk."""
    head = MAGIC + flagged_header(file_key, suite, region, OWN_KEY)
    if file[: len(head)] != head:
        raise Unopenable
    salt, commitment = file[len(head) :][:SALT_LEN], file[len(head) + SALT_LEN :][:COMMITMENT_LEN]
    context = own_key_context(head[len(MAGIC) :], encode_pairs(own))
    aead, base_nonce, derived = chunked_keys(suite, derive(file_key, suite, "file"), salt, context)
    if commitment != derived:
        raise Unopenable
    try:
        return aead.decrypt(chunk_nonce(base_nonce, 0), file[len(head) + SALT_LEN + COMMITMENT_LEN :], b"")
    except InvalidTag:
        raise Unopenable from None


# --- Padding ------------------------------------------------------------------

def padme(length):
    """Nikitin et al., PETS 2019, section 4."""
    if length < 2:
        return length
    e = length.bit_length() - 1
    s = e.bit_length()  # floor(log2 e) + 1
    step = 1 << (e - s)
    return (length + step - 1) // step * step


def pad(plaintext, least=0):
    length = padme(max(len(plaintext) + 1, least))
    return (plaintext + b"\x80").ljust(length, b"\0")


def unpad(padded):
    stripped = padded.rstrip(b"\0")
    if padme(len(padded)) != len(padded) or stripped[-1:] != b"\x80":
        raise Unopenable
    return stripped[:-1]


def padded_message_key(v):
    data_key, suite, region, tenant = caller_side(v)
    scope, _ = split_context(v["scope"], v["context"])
    return message_key(data_key, flagged_header(data_key, suite, region, PADDED), tenant, scope)


def seal_padded(v, plaintext, nonce, least=0):
    return seal_flagged(v, PADDED, padded_message_key(v), nonce, pad(plaintext, least))


def open_padded(v, envelope):
    return unpad(open_flagged(v, PADDED, padded_message_key(v), envelope))


# --- Audit entries ------------------------------------------------------------

def audit_key(secret, tenant):
    require(len(secret) == 32, "audit secret")
    return hkdf_sha512(secret, b"strongroom/v1/audit" + bytes([len(tenant)]) + tenant)


def audit_body(pairs):
    """The encoding of section 4 with other limits."""
    encoded = sorted((name.encode(), value.encode()) for name, value in pairs)
    require(len({name for name, _ in encoded}) == len(encoded) <= 255, "audit fields")
    out = bytes([len(encoded)])
    for name, value in encoded:
        require(1 <= len(name) <= MAX_NAME and len(value) <= 65_535, "audit field")
        out += bytes([len(name)]) + name + struct.pack(">H", len(value)) + value
    return out


def audit_entry(salt, body):
    require(len(salt) == 32, "salt")
    return hashlib.sha256(b"strongroom/v1/audit-entry" + salt + body).digest()


def leaf_hash(entry):
    """RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def seal_audit(key, salt, body, nonce):
    require(len(nonce) == NONCE_LEN, "nonce")
    aead, subnonce = message_cipher(1, key, nonce)
    return nonce + aead.encrypt(subnonce, salt + body, audit_entry(salt, body))


def open_audit(key, entry, sealed):
    aead, subnonce = message_cipher(1, key, sealed[:NONCE_LEN])
    try:
        opened = aead.decrypt(subnonce, sealed[NONCE_LEN:], entry)
    except InvalidTag:
        raise Unopenable from None
    if audit_entry(opened[:32], opened[32:]) != entry:
        raise Unopenable
    return opened[:32], opened[32:]


# --- Self-test ----------------------------------------------------------------

def outcome(work):
    try:
        return work()
    except (Malformed, Unopenable) as refusal:
        return type(refusal).__name__.lower()


def check_vector(check, name, v):
    def unhex(field):
        return bytes.fromhex(v[field])

    match v["kind"]:
        case "keys":
            check(f"{name}, index key", scope_key(v, "index"), unhex("index_key"))
            check(f"{name}, derived key", scope_key(v, "derived"), unhex("derived_key"))
        case "padding":
            check(f"{name}, lengths", [[n, padme(n)] for n, _ in v["padme"]], v["padme"])
            for plaintext, least, padded in v["padded"]:
                check(f"{name}, {plaintext}", pad(bytes.fromhex(plaintext), least).hex(), padded)
                check(f"{name}, {padded}", unpad(bytes.fromhex(padded)).hex(), plaintext)
            for padded in v["refused"]:
                check(f"{name}, {padded}", outcome(lambda: unpad(bytes.fromhex(padded))), "unopenable")
        case "padded message":
            want = unhex("plaintext") if v["expect"] == "opens" else v["expect"]
            check(name, outcome(lambda: open_padded(v, unhex("envelope"))), want)
            check(f"{name}, without the flag known", outcome(lambda: parse_message(unhex("envelope"))), "malformed")
        case "file":
            suite, region = v["suite"], v["region"].encode()
            got = [outcome(lambda w=w: unwrap_file_key(v | w, bytes.fromhex(w["wrap"]))) for w in v["wraps"]]
            want = [w["expect"] if w["expect"] != "opens" else unhex("file_data_key") for w in v["wraps"]]
            check(f"{name}, wraps", got, want)
            got = open_own_key_file(unhex("file_data_key"), suite, region, v["context"], unhex("file"))
            check(f"{name}, file", got, unhex("plaintext"))
            check(f"{name}, without the flag known", outcome(lambda: parse_head(unhex("file"))), "malformed")
            got = outcome(lambda: open_file(v | v["wraps"][0] | {"data_key": v["file_data_key"]}))
            check(f"{name}, as an ordinary file", got, "malformed")
            for w in v["wraps"]:
                got = outcome(lambda w=w: parse_message(bytes.fromhex(w["wrap"])))
                check(f"{name}, a wrap without the flag known", got, "malformed")
        case "audit entry":
            key = audit_key(unhex("audit_secret"), v["tenant"].encode())
            check(f"{name}, key", key.hex(), v["audit_key"])
            check(f"{name}, body", audit_body(v["pairs"]).hex(), v["body"])
            entry = audit_entry(unhex("salt"), unhex("body"))
            check(f"{name}, entry", [entry.hex(), leaf_hash(entry).hex()], [v["entry"], v["leaf_hash"]])
            sealed = unhex("sealed")
            check(f"{name}, sealed", seal_audit(key, unhex("salt"), unhex("body"), sealed[:NONCE_LEN]), sealed)
            check(f"{name}, opened", open_audit(key, entry, sealed), (unhex("salt"), unhex("body")))
            for at in (0, NONCE_LEN - 1, NONCE_LEN, NONCE_LEN + 32, len(sealed) - 1):
                bent = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
                check(f"{name}, byte {at} bent", outcome(lambda b=bent: open_audit(key, entry, b)), "unopenable")
            other = audit_entry(bytes(32), unhex("body"))
            check(f"{name}, another entry", outcome(lambda: open_audit(key, other, sealed)), "unopenable")
        case kind:
            raise ValueError(f"unknown kind {kind!r}")


def self_test():
    vectors = Path(__file__).resolve().parent.parent / "vectors" / "reserved"
    results = []

    def check(name, got, want):
        results.append(got == want)
        if got != want:
            print(f"FAILED {name}: got {got!r:.200}, want {want!r:.200}")

    scenarios = sorted(vectors.glob("*.json"))
    check("there are scenarios", bool(scenarios), True)
    for path in scenarios:
        check_vector(check, path.name, json.loads(path.read_text("utf-8")))
    # Computed by hand.
    for length, want in ((0, 0), (1, 1), (8, 8), (9, 10), (15, 16), (17, 18), (100, 104), (1000, 1024), (2**20, 2**20)):
        check(f"Padmé of {length}", padme(length), want)

    key, mistake = bytes(range(32)), "caller's mistake"
    caller = {"data_key": key.hex(), "suite": 1, "region": "eu-1", "tenant": "acme", "scope": [], "context": []}
    for length in (31, 33):
        wrong = bytes(length)
        check("file data key", attempted(lambda w=wrong: wrap_file_key(caller, w, bytes(24))), mistake)
        check("audit secret", attempted(lambda w=wrong: audit_key(w, b"t")), mistake)
        check("salt of an entry", attempted(lambda w=wrong: audit_entry(w, b"")), mistake)
        short = bytes(length - 8)
        check("nonce of a wrap", attempted(lambda n=short: wrap_file_key(caller, key, n)), mistake)
        check("nonce of an entry", attempted(lambda n=short: seal_audit(key, key, b"", n)), mistake)
        check("salt of a file", attempted(lambda n=short: seal_own_key_file(key, 1, b"eu", [], n, b"")), mistake)
    for pairs, want in (
        ([[f"{n}", ""] for n in range(255)], "done"),
        ([[f"{n}", ""] for n in range(256)], mistake),
        ([["a", "1"], ["a", "2"]], mistake),
        ([["n" * 64, "v" * 65_535]], "done"),
        ([["n" * 65, ""]], mistake),
        ([["", ""]], mistake),
        ([["a", "v" * 65_536]], mistake),
    ):
        check(f"body of {len(pairs)} pairs", attempted(lambda p=pairs: audit_body(p)), want)
    header = flagged_header(key, 1, b"eu-1", OWN_KEY)
    for length in (0, NONCE_LEN, NONCE_LEN + TAG_LEN - 1):
        cut_short = header + bytes(length)
        check(f"a wrap of {length} bytes", attempted(lambda c=cut_short: unwrap_file_key(caller, c)), "unopenable")

    failed = results.count(False)
    print(f"{results.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    sys.exit(__doc__)
