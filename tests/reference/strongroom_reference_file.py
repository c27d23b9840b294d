"""Reference implementation of the file part of the strongroom format, version 1 (FORMAT.md, section 9).

Written from FORMAT.md and c2sp.org/chunked-encryption alone, without a look at the Rust code, so that each checks the
other. It is slow, holds whole files in memory and takes no care of side channels: for checking, not for production.

    python strongroom_reference_file.py               one JSON request a line on stdin, one JSON answer a line on stdout
    python strongroom_reference_file.py --self-test   round trips, refusals, and every vector of tests/vectors/files/

Requests are {"op": "open_file", ..., "file": hex} and {"op": "seal_file", ..., "plaintext": hex, "salt": hex}, both
with data_key, suite, region, tenant, scope and context as in section 8. The answers are {"plaintext": hex},
{"refused": "malformed"} or {"refused": "unopenable"}, and {"file": hex}.
"""

import hashlib
import hmac
import json
import os
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from strongroom_reference import (
    TAG_LEN,
    Malformed,
    Unopenable,
    binding,
    build_header,
    caller_side,
    canonical_context,
    derive,
    message_key,
    parse_header,
    require,
    seal_message,
    split_context,
)

MAGIC = bytes.fromhex("8E 53 52 46 49 4C 45 0A")
AEADS = {1: (b"AEAD_AES_256_GCM", AESGCM), 2: (b"AEAD_CHACHA20_POLY1305", ChaCha20Poly1305)}
SALT_LEN, COMMITMENT_LEN = 24, 32
CHUNK = 16_384
SEALED_CHUNK = CHUNK + TAG_LEN

# Section 1.
MAX_FILE_PLAINTEXT, MAX_CHUNKS = 2**52 - 1, 2**38


# --- Lengths and positions ----------------------------------------------------

def file_length(head_len, plaintext_len):
    """The length of the file for a plaintext of this length."""
    return head_len + plaintext_len + TAG_LEN * (plaintext_len // CHUNK + 1)


def claimed_length(head_len, file_len):
    """The length of the plaintext that a file of this length claims, or Unopenable: no file has this length."""
    full_chunks, last = divmod(file_len - head_len, SEALED_CHUNK)
    if file_len < head_len or last < TAG_LEN or full_chunks + 1 > MAX_CHUNKS:
        raise Unopenable
    return CHUNK * full_chunks + last - TAG_LEN


# --- Key derivation -----------------------------------------------------------

def hkdf_expand_sha512_long(prk, info, length):
    """RFC 5869, section 2.3: as many blocks as `length` needs, cut."""
    out, block, counter = b"", b"", 0
    while len(out) < length:
        counter += 1
        block = hmac.digest(prk, block + info + bytes([counter]), "sha512")
        out += block
    return out[:length]


def file_context(header, tenant, canonical, label=b"strongroom/v1/file"):
    """`canonical`: of the scope's and the own fields together."""
    return label + binding(header, tenant, canonical)


def whole_context(v):
    split_context(v["scope"], v["context"])  # the limits of the scope
    return canonical_context(v["scope"] + v["context"])


def chunked_keys(suite, input_key, salt, context):
    """c2sp.org/chunked-encryption: (AEAD, base nonce, commitment)."""
    name, aead = AEADS[suite]
    info = b"c2sp.org/chunked-encryption@v1+" + name + b"\x00" + salt + context
    expanded = hkdf_expand_sha512_long(input_key, info, 32 + 12 + COMMITMENT_LEN)
    return aead(expanded[:32]), expanded[32:44], expanded[44:]


def chunk_nonce(base_nonce, k):
    assert 0 <= k < MAX_CHUNKS
    return (int.from_bytes(base_nonce, "big") ^ k).to_bytes(12, "big")


# --- The file envelope --------------------------------------------------------

def parse_head(file):
    """(suite, region, key id, header, salt, commitment, head length), or Malformed."""
    if file[: len(MAGIC)] != MAGIC:
        raise Malformed("magic")
    suite, region, key_id, header_len = parse_header(file[len(MAGIC) :])
    salt_at = len(MAGIC) + header_len
    commitment_at = salt_at + SALT_LEN
    head_len = commitment_at + COMMITMENT_LEN
    if len(file) < head_len:
        raise Malformed("head cut short")
    header, salt, commitment = file[len(MAGIC) : salt_at], file[salt_at:commitment_at], file[commitment_at:head_len]
    return suite, region, key_id, header, salt, commitment, head_len


def open_file(v):
    """The plaintext of a vector-like dict, or Malformed or Unopenable. Nothing is released before all is verified."""
    data_key, suite, region, tenant = caller_side(v)
    canonical = whole_context(v)
    file = bytes.fromhex(v["file"])
    f_suite, f_region, f_key_id, header, salt, commitment, head_len = parse_head(file)
    if (f_suite, f_region, f_key_id) != (suite, region, derive(data_key, suite, "key-id")):
        raise Unopenable
    context = file_context(header, tenant, canonical)
    aead, base_nonce, derived = chunked_keys(suite, derive(data_key, suite, "file"), salt, context)
    if not hmac.compare_digest(commitment, derived):
        raise Unopenable
    want_len = claimed_length(head_len, len(file))
    # Every chunk but the last is full. The last is what is left: short, and never less than its tag, by its length.
    plaintext = b""
    for k, at in enumerate(range(head_len, len(file), SEALED_CHUNK)):
        try:
            plaintext += aead.decrypt(chunk_nonce(base_nonce, k), file[at : at + SEALED_CHUNK], b"")
        except InvalidTag:
            raise Unopenable from None
    assert len(plaintext) == want_len
    return plaintext


def build_file(v, chunks, salt, key=None, canonical=None, **context_options):
    """A file of just these chunks, whatever their lengths; for vectors that break the rules too. `key` makes another
    key for it out of (data key, suite, header, tenant, scope)."""
    data_key, suite, region, tenant = caller_side(v)
    canonical = whole_context(v) if canonical is None else canonical
    require(len(salt) == SALT_LEN, "salt")
    header = build_header(suite, region, derive(data_key, suite, "key-id"))
    context = file_context(header, tenant, canonical, **context_options)
    scope, _ = split_context(v["scope"], v["context"])
    input_key = derive(data_key, suite, "file") if key is None else key(data_key, suite, header, tenant, scope)
    aead, base_nonce, commitment = chunked_keys(suite, input_key, salt, context)
    sealed = [aead.encrypt(chunk_nonce(base_nonce, k), chunk, b"") for k, chunk in enumerate(chunks)]
    return MAGIC + header + salt + commitment + b"".join(sealed)


def chunk_text(chunk):
    """The plaintext of a chunk of a vector in files/far/: a full one of one byte, or the last one as it is."""
    return bytes([chunk["fill"]]) * CHUNK if "fill" in chunk else bytes.fromhex(chunk["last"])


def far_chunks(v):
    """The chunks of a vector in files/far/, sealed; each at its number, wherever in the file that is. The head is checked as an
    opener does."""
    data_key, suite, _, tenant = caller_side(v)
    head = bytes.fromhex(v["head"])
    _, _, _, header, salt, commitment, head_len = parse_head(head)
    require(head_len == len(head), "head")
    context = file_context(header, tenant, whole_context(v))
    aead, base_nonce, derived = chunked_keys(suite, derive(data_key, suite, "file"), salt, context)
    require(hmac.compare_digest(commitment, derived), "commitment")
    sealed = []
    for chunk in v["chunks"]:
        nonce = chunk_nonce(base_nonce, chunk["number"])
        sealed.append(aead.encrypt(nonce, chunk_text(chunk), b""))
        require(aead.decrypt(nonce, sealed[-1], b"") == chunk_text(chunk), "chunk")
    return sealed


def cut(plaintext):
    """The one chunking: full chunks, then a shorter one, which is empty behind a plaintext of full chunks only."""
    return [plaintext[k * CHUNK : (k + 1) * CHUNK] for k in range(len(plaintext) // CHUNK + 1)]


def seal_file(v, plaintext, salt=None):
    """A file. The salt is random unless given."""
    require(len(plaintext) <= MAX_FILE_PLAINTEXT, "plaintext")
    return build_file(v, cut(plaintext), os.urandom(SALT_LEN) if salt is None else salt)


# --- Command line -------------------------------------------------------------

def answer(r):
    """One request. Exceptions other than the two refusals end the process: a broken caller is no refusal."""
    try:
        match r["op"]:
            case "open_file":
                return {"plaintext": open_file(r).hex()}
            case "seal_file":
                return {"file": seal_file(r, bytes.fromhex(r["plaintext"]), bytes.fromhex(r["salt"])).hex()}
            case op:
                raise ValueError(f"unknown op {op!r}")
    except Malformed:
        return {"refused": "malformed"}
    except Unopenable:
        return {"refused": "unopenable"}


# --- Self-test ----------------------------------------------------------------

MALFORMED, UNOPENABLE = {"refused": "malformed"}, {"refused": "unopenable"}


def sample(length):
    """A plaintext that shows where each of its bytes belongs."""
    return b"".join(b"%07d\n" % i for i in range(length // 8 + 1))[:length]


def check_vector(check, path):
    v = json.loads(path.read_text("utf-8"))
    got = answer(v | {"op": "open_file"})
    if v["expect"] != "opens":
        check(path.name, got, {"refused": v["expect"]})
    elif "plaintext" in v:
        check(path.name, got, {"plaintext": v["plaintext"]})
    else:
        plaintext = bytes.fromhex(got.get("plaintext", ""))
        want = (["plaintext"], v["plaintext_len"], v["plaintext_sha256"])
        check(path.name, (list(got), len(plaintext), hashlib.sha256(plaintext).hexdigest()), want)


def check_far_vector(check, path):
    v = json.loads(path.read_text("utf-8"))
    got = [hashlib.sha256(sealed).hexdigest() for sealed in far_chunks(v)]
    check(path.name, got, [chunk["sealed_sha256"] for chunk in v["chunks"]])
    check(f"{path.name}, no two alike", len(set(got)), len(got))


def check_refusals(check, caller):
    """Everything that is not the file as it was sealed: here one of three chunks, the last of 5 bytes."""
    suite, other_suite = caller["suite"], 3 - caller["suite"]
    file = seal_file(caller, sample(2 * CHUNK + 5), bytes(range(24)))
    h = 99 + len(caller["region"])

    def opened(file, **other):
        return answer(caller | other | {"op": "open_file", "file": file.hex()})

    def bent(at, bits=1):
        return file[:at] + bytes([file[at] ^ bits]) + file[at + 1 :]

    check(f"suite {suite}, as sealed", opened(file), {"plaintext": sample(2 * CHUNK + 5).hex()})

    for length in range(h):
        check(f"suite {suite}, cut to {length} bytes of the head", opened(file[:length]), MALFORMED)
    ends = {0, 1, 15, 16, 17, 32, CHUNK - 1, CHUNK, CHUNK + 1, SEALED_CHUNK - 1}
    for length in sorted({h + k * SEALED_CHUNK + end for k in range(3) for end in ends}):
        if length < len(file):
            check(f"suite {suite}, cut to {length} of {len(file)} bytes", opened(file[:length]), UNOPENABLE)
    check(f"suite {suite}, cut by a byte", opened(file[:-1]), UNOPENABLE)

    # Where a bit is flipped, and what becomes of it. The region is "eu-1": its neighbours by a bit are regions too.
    region_at, salt_at, commitment_at = 11, h - 56, h - 32
    key_id_at = region_at + len(caller["region"])
    for at in range(8):
        check(f"suite {suite}, magic byte {at} bent", opened(bent(at)), MALFORMED)
    check(f"suite {suite}, version bent", opened(bent(8)), MALFORMED)
    check(f"suite {suite}, unknown suite", opened(bent(9, 0x80)), MALFORMED)
    check(f"suite {suite}, the other suite's byte", opened(bent(9, suite ^ other_suite)), UNOPENABLE)
    check(f"suite {suite}, region length 0", opened(bent(10, file[10])), MALFORMED)
    check(f"suite {suite}, region length 33", opened(bent(10, file[10] ^ 33)), MALFORMED)
    check(f"suite {suite}, region length off by one", "refused" in opened(bent(10)), True)
    check(f"suite {suite}, region bent", opened(bent(region_at)), UNOPENABLE)
    check(f"suite {suite}, region in upper case", opened(bent(region_at, 0x20)), MALFORMED)
    for name, start, length in (("key id", key_id_at, 32), ("salt", salt_at, 24), ("commitment", commitment_at, 32)):
        for at in range(start, start + length):
            check(f"suite {suite}, {name} byte {at - start} bent", opened(bent(at, 1 << at % 8)), UNOPENABLE)
    for k, length in enumerate((CHUNK, CHUNK, 5)):
        start = h + k * SEALED_CHUNK
        for at in (0, 1, length // 2, length - 1, *range(length, length + TAG_LEN)):
            check(f"suite {suite}, chunk {k} byte {at} bent", opened(bent(start + at, 1 << at % 8)), UNOPENABLE)

    head = file[:h]
    a, b, last = (file[h + k * SEALED_CHUNK : h + (k + 1) * SEALED_CHUNK] for k in range(3))
    assert head + a + b + last == file
    rearranged = {
        "swapped": b + a + last,
        "the first twice": a + a + b + last,
        "the second twice": a + b + b + last,
        "the last twice": a + b + last + last,
        "the second instead of the first": b + b + last,
        "without the first": b + last,
        "without the second": a + last,
        "the last alone": last,
        "the last in front": last + a + b,
    }
    for name, chunks in rearranged.items():
        check(f"suite {suite}, chunks {name}", opened(head + chunks), UNOPENABLE)
    for n in (1, 15, 16, 17, SEALED_CHUNK - len(last), SEALED_CHUNK):
        check(f"suite {suite}, {n} bytes appended", opened(file + bytes(n)), UNOPENABLE)
    check(f"suite {suite}, a byte in front", opened(b"\x00" + file), MALFORMED)
    check(f"suite {suite}, without the magic", opened(file[8:]), MALFORMED)
    check(f"suite {suite}, a message", opened(seal_message(caller, b"text", bytes(24))), MALFORMED)
    other_head = seal_file(caller, b"", bytes(24))[:h]
    check(f"suite {suite}, chunks behind the head of another file", opened(other_head + file[h:]), UNOPENABLE)

    salt, text = bytes(24), sample(CHUNK)
    for name, chunks in (
        ("no chunk at all", []),
        ("a full last chunk", [text]),
        ("a last chunk longer than any", [text + b"x"]),
        ("two short chunks", [b"ab", b"c"]),
        ("a full chunk and two empty ones", [text, b"", b""]),
    ):
        check(f"suite {suite}, sealed with {name}", opened(build_file(caller, chunks, salt)), UNOPENABLE)
    for name, file_with in (
        ("the label of messages", {"label": b"strongroom/v1/message"}),
        ("the message key", {"key": lambda k, _, *bound: message_key(k, *bound)}),
        ("the key id for a key", {"key": lambda k, s, *_: derive(k, s, "key-id")}),
        ("the data key itself", {"key": lambda k, *_: k}),
        ("a context without the scope", {"canonical": canonical_context(caller["context"])}),
        ("a context without the own fields", {"canonical": canonical_context(caller["scope"])}),
    ):
        check(f"suite {suite}, sealed with {name}", opened(build_file(caller, [b"x"], salt, **file_with)), UNOPENABLE)

    for other in (
        {"tenant": "acme2"},
        {"tenant": "acm"},
        {"tenant": "Acme"},
        {"region": "eu-2"},
        {"region": "eu"},
        {"suite": other_suite},
        {"data_key": "00" * 32},
        {"context": []},
        {"context": caller["context"] + [["z", ""]]},
        {"context": [[name, value.lower()] for name, value in caller["context"]]},
        {"context": [[value, name] for name, value in caller["context"]]},
        {"scope": []},
        {"scope": caller["scope"][:1]},
        {"scope": caller["scope"] + [["z", "1"]]},
        {"scope": [[name, value.lower()] for name, value in caller["scope"]]},
    ):
        check(f"suite {suite}, {other}", opened(file, **other), UNOPENABLE)
    check(f"suite {suite}, scope in another order", opened(file, scope=caller["scope"][::-1]), opened(file))

    for broken in (
        {"data_key": "00" * 31},
        {"suite": 3},
        {"region": ""},
        {"region": "r" * 33},
        {"region": "EU"},
        {"tenant": ""},
        {"tenant": "t" * 65},
        {"tenant": "a b"},
        {"context": [["a", "1"], ["a", "2"]]},
        {"context": [["", "1"]]},
        {"context": [["a", "1" * 513]]},
        {"context": [[f"a{i}", ""] for i in range(15)]},
        {"context": caller["scope"][:1]},
        {"scope": [["a", ""]]},
        {"scope": [["A", "1"]]},
        {"scope": [["a" * 33, "1"]]},
        {"scope": [[f"a{i}", "1"] for i in range(9)]},
        {"scope": [["a", "1" * 508]], "context": []},
    ):
        try:
            got = opened(file, **broken)
        except ValueError:
            got = "no answer"
        check(f"suite {suite}, caller's mistake {broken}", got, "no answer")
    for salt in ("00" * 23, "00" * 25):
        try:
            got = answer(caller | {"op": "seal_file", "plaintext": "", "salt": salt})
        except ValueError:
            got = "no answer"
        check(f"suite {suite}, salt of {len(salt) // 2} bytes", got, "no answer")


def self_test():
    vectors = Path(__file__).resolve().parent.parent / "vectors" / "files"
    results = []

    def check(name, got, want):
        results.append(got == want)
        if got != want:
            print(f"FAILED {name}: got {got!r:.200}, want {want!r:.200}")

    scenarios = sorted(vectors.glob("*.json"))
    check("there are scenarios", bool(scenarios), True)
    for path in scenarios:
        check_vector(check, path)
    far = sorted(vectors.glob("far/*.json"))
    check("there are far chunks", len(far), 2)
    for path in far:
        check_far_vector(check, path)

    for length in (32, 64, 65, 76, 128, 200):
        got = hkdf_expand_sha512_long(b"k" * 32, b"info", length)
        check(f"HKDF-Expand of {length}", got, HKDFExpand(hashes.SHA512(), length, b"info").derive(b"k" * 32))
    check("nonce of chunk 0", chunk_nonce(bytes(range(12)), 0), bytes(range(12)))
    check("nonce of the last chunk", chunk_nonce(b"\xff" * 12, 2**38 - 1).hex(), "ffffffffffffffc000000000")
    check("longest file", claimed_length(100, file_length(100, MAX_FILE_PLAINTEXT)), MAX_FILE_PLAINTEXT)
    try:
        got = claimed_length(100, file_length(100, MAX_FILE_PLAINTEXT + 1))
    except Unopenable:
        got = "refused"
    check("a byte too long", got, "refused")

    for suite in AEADS:
        caller = {
            "data_key": bytes(range(suite, 32 + suite)).hex(),
            "suite": suite,
            "region": "eu-1",
            "tenant": "acme",
            "scope": [["workspace", "W1"], ["channel", "C9"]],
            "context": [["file", "F77"]],
        }
        for length in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5):
            plaintext, salt = sample(length), hashlib.sha256(b"%d" % length).digest()[:24]
            file = answer(caller | {"op": "seal_file", "plaintext": plaintext.hex(), "salt": salt.hex()})["file"]
            name = f"suite {suite}, {length} bytes"
            check(f"{name}, length of the file", len(file) // 2, file_length(103, length))
            check(f"{name}, length claimed", claimed_length(103, len(file) // 2), length)
            got = answer(caller | {"op": "open_file", "file": file})
            check(f"{name}, opened", got, {"plaintext": plaintext.hex()})
        for region, head_len in (("r", 100), ("r" * 32, 131)):
            file = seal_file(caller | {"region": region}, b"x")
            check(f"suite {suite}, head of {head_len} bytes", len(file), head_len + 1 + TAG_LEN)
            check(f"suite {suite}, opened", open_file(caller | {"region": region, "file": file.hex()}), b"x")
        check_refusals(check, caller)

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
