"""Writes the golden vectors of files, tests/vectors/files/*.json, with the reference written from FORMAT.md alone.

    python make_file_vectors.py           writes them, and removes those no longer made
    python make_file_vectors.py --check   writes nothing, and fails unless the directory holds just these

The form is that of FORMAT.md, section 8, with `file` instead of `envelope`. Where the plaintext is long,
`plaintext_len` and `plaintext_sha256` stand for `plaintext`. Those of files/far/ have single chunks of files that are too
long to be written. All is derived from names: each run makes the same bytes.
"""

import hashlib
import hmac
import json
import sys
from pathlib import Path

from strongroom_reference import Malformed, Unopenable, canonical_context, derive, message_key, seal_message
from strongroom_reference_file import (
    CHUNK,
    MAX_CHUNKS,
    SEALED_CHUNK,
    TAG_LEN,
    build_file,
    far_chunks,
    open_file,
    seal_file,
)

DIRECTORY = Path(__file__).resolve().parent.parent / "vectors" / "files"
LONG = 1024  # bytes of plaintext from which on its hash stands for it
MAX_TOTAL = 300_000


def derived(name, length):
    return hashlib.shake_256(b"strongroom file vectors: " + name.encode()).digest(length)


def caller(suite, **other):
    return {
        "data_key": derived(f"data key of suite {suite}", 32).hex(),
        "suite": suite,
        "region": "eu-central-1",
        "tenant": "acme",
        "scope": [["workspace", "W1"], ["channel", "C9"]],
        "context": [["file", "F77"]],
    } | other


def text(length):
    """A plaintext that shows where each of its bytes belongs."""
    return b"".join(b"line %9d\n" % i for i in range(length // 15 + 1))[:length]


def vectors():
    """(name, scenario, expect, who opens, file, plaintext or None)"""

    def opens(name, scenario, who, plaintext):
        return name, scenario, "opens", who, seal_file(who, plaintext, derived(f"salt of {name}", 24)), plaintext

    def malformed(name, scenario, file, who=None):
        return name, scenario, "malformed", who or one, file, None

    def unopenable(name, scenario, file, who=None):
        return name, scenario, "unopenable", who or one, file, None

    def bent(file, at, bits=1):
        at %= len(file)
        return file[:at] + bytes([file[at] ^ bits]) + file[at + 1 :]

    one, two = caller(1), caller(2)
    region_len = len(one["region"])
    region_at = 8 + 3
    key_id_at = region_at + region_len
    salt_at = key_id_at + 32
    commitment_at = salt_at + 24
    h = commitment_at + 32
    salt = derived("salt", 24)
    plaintext = b"Files, in rooms that are locked.\n"
    file = seal_file(one, plaintext, salt)
    file_two = seal_file(two, plaintext, salt)

    # Opens.
    for suite, who in ((1, one), (2, two)):
        yield opens(f"opens-empty-suite-{suite}", f"An empty file, suite {suite}: one empty chunk.", who, b"")
        yield opens(f"opens-one-byte-suite-{suite}", f"A file of one byte, suite {suite}.", who, b"\n")
    who = caller(1, region="r", tenant="t", scope=[], context=[])
    yield opens("opens-shortest-head", "The shortest head, 100 bytes, and an empty context.", who, plaintext)
    who = caller(1, context=[["zone", "1"], ["author", "U5"], ["descr", ""]])
    yield opens("opens-fields-among-the-scopes", "Own fields sort among the scope's.", who, plaintext)
    yield opens("opens-without-own-fields", "No fields but the scope's.", caller(1, context=[]), plaintext)
    yield opens("opens-without-a-scope", "The empty scope.", caller(1, scope=[]), plaintext)
    context = [["\u00e9", "x" * 512], ["d", "\u00e9\u0000="], ["b", ""]]
    who = caller(2, region="r" * 32, tenant="t" * 64, context=context)
    yield opens("opens-longest-head", "The longest head, 131 bytes, and a context to be sorted.", who, plaintext)
    yield opens(
        "opens-16383-bytes-suite-2", "The longest file of one chunk, 16383 bytes, suite 2.", two, text(CHUNK - 1)
    )
    yield opens(
        "opens-16384-bytes-suite-1", "16384 bytes, suite 1: a full chunk and an empty last one.", one, text(CHUNK)
    )
    yield opens("opens-two-chunks-suite-2", "Two chunks, the last of 5 bytes, suite 2.", two, text(CHUNK + 5))

    # Malformed.
    yield malformed("malformed-nothing", "No byte at all.", b"")
    yield malformed("malformed-cut-in-the-magic", "Cut short inside the magic.", file[:7])
    yield malformed("malformed-cut-after-the-magic", "Cut short behind the magic.", file[:8])
    yield malformed("malformed-magic", "The last byte of the magic is a carriage return.", bent(file, 7, 0x0A ^ 0x0D))
    yield malformed("malformed-without-the-magic", "The file from its header on, without the magic.", file[8:])
    message = seal_message(one, plaintext, salt)
    yield malformed("malformed-message", "A message envelope, where a file was expected.", message)
    yield malformed("malformed-version", "Version 0xF6.", bent(file, 8, 0xF5 ^ 0xF6))
    yield malformed("malformed-suite", "Suite 3.", bent(file, 9, 1 ^ 3))
    yield malformed("malformed-region-length-0", "A region of no bytes.", file[:10] + b"\x00" + file[key_id_at:])
    yield malformed("malformed-region", "A region in upper case.", bent(file, region_at, 0x20))
    yield malformed("malformed-cut-in-the-region", "Cut short inside the region.", file[: region_at + 3])
    yield malformed("malformed-cut-in-the-key-id", "Cut short inside the key id.", file[: salt_at - 1])
    yield malformed("malformed-cut-in-the-salt", "Cut short inside the salt.", file[: salt_at + 12])
    yield malformed("malformed-cut-in-the-commitment", "Cut short inside the commitment.", file[: h - 1])

    # Unopenable: lengths.
    yield unopenable("unopenable-no-chunk", "The head alone, without any chunk.", file[:h])
    yield unopenable("unopenable-last-chunk-of-15-bytes", "15 bytes behind the head, less than a tag.", file[: h + 15])
    yield unopenable("unopenable-cut-by-a-byte", "The last byte is missing.", file[:-1])
    yield unopenable("unopenable-trailing-byte", "A byte behind the last chunk.", file + b"\x00")
    full = seal_file(one, text(CHUNK), salt)
    yield unopenable(
        "unopenable-cut-after-the-full-chunk",
        "16384 bytes without their empty last chunk: ends with a full chunk.",
        full[:-TAG_LEN],
    )
    yield unopenable(
        "unopenable-two-short-chunks",
        "Two chunks of 5 and 4 bytes, sealed with the right key, where only the last may be short.",
        build_file(one, [b"first", b"last"], salt),
    )

    # Unopenable: bits and chunks.
    for name, what, at in (
        ("key-id", "key id", salt_at - 1),
        ("salt", "salt", salt_at),
        ("commitment", "commitment", h - 1),
        ("ciphertext", "ciphertext", h),
        ("tag", "tag", -1),
    ):
        yield unopenable(f"unopenable-{name}-bit", f"A bit of the {what} is flipped.", bent(file, at))
    yield unopenable("unopenable-tag-bit-suite-2", "A bit of the tag is flipped, suite 2.", bent(file_two, -1), two)
    three = seal_file(one, text(2 * CHUNK + 5), salt)
    a, b, last = (three[h + k * SEALED_CHUNK : h + (k + 1) * SEALED_CHUNK] for k in range(3))
    yield unopenable("unopenable-swapped-chunks", "Chunks 0 and 1 of three are swapped.", three[:h] + b + a + last)
    yield unopenable("unopenable-last-chunk-first", "Chunk 2, the last, where chunk 0 should be.", three[:h] + last)
    other_head = seal_file(one, plaintext, derived("other salt", 24))[:h]
    yield unopenable("unopenable-head-of-another-file", "The head of another file of the scope.", other_head + file[h:])

    # Unopenable: another opener, another key, another derivation.
    for name, what, other in (
        ("tenant", "tenant", {"tenant": "acme2"}),
        ("context", "value in the context", {"context": [["file", "F78"]]}),
        ("context-field-missing", "context: a field less", {"context": []}),
        ("scope", "value in the scope", {"scope": [["workspace", "W1"], ["channel", "C8"]]}),
        ("scope-field-missing", "scope: a field less", {"scope": [["workspace", "W1"]]}),
        ("region", "region", {"region": "us-east-1"}),
        ("data-key", "data key", {"data_key": derived("another data key", 32).hex()}),
    ):
        yield unopenable(f"unopenable-other-{name}", f"The opener has another {what}.", file, caller(1, **other))
    yield unopenable(
        "unopenable-other-suite", "The opener's data key is the same, but of suite 2.", file, one | {"suite": 2}
    )
    yield unopenable("unopenable-suite-byte", "The suite byte is changed from 1 to 2.", bent(file, 9, 1 ^ 2))
    yield unopenable("unopenable-region-changed", "The header names another region.", bent(file, key_id_at - 1))
    yield unopenable(
        "unopenable-label-of-messages",
        "Sealed with the label of messages instead of that of files in the file context.",
        build_file(one, [plaintext], salt, label=b"strongroom/v1/message"),
    )
    for name, what, key in (
        ("message-key", "the message key", lambda k, _, *bound: message_key(k, *bound)),
        ("key-id-as-key", "the key id", lambda k, s, *_: derive(k, s, "key-id")),
        ("data-key-itself", "the data key itself", lambda k, *_: k),
        (
            "file-key-by-expand-alone",
            "a file key by HKDF-Expand without extract",
            lambda k, *_: hmac.digest(k, b"strongroom/v1/aes-256-gcm/file\x01", "sha512")[:32],
        ),
    ):
        file_under = build_file(one, [plaintext], salt, key=key)
        yield unopenable(f"unopenable-{name}", f"Sealed with {what} instead of the file key.", file_under)
    for name, what, fields in (
        ("context-without-scope", "own fields alone", one["context"]),
        ("context-without-own-fields", "scope alone", one["scope"]),
    ):
        file_bound = build_file(one, [plaintext], salt, canonical=canonical_context(fields))
        yield unopenable(f"unopenable-{name}", f"Sealed with a file context of the {what}.", file_bound)


# Where a counter of 8, 16, 24 or 32 bits, signed or not, begins anew, and the last full chunk that there can be.
FAR = sorted({2**bits + off for bits in (8, 15, 16, 24, 31, 32) for off in (-1, 0, 1)} | {0, 1, MAX_CHUNKS - 2})


def far_vectors():
    """(name, vector)"""
    for suite in (1, 2):
        who = caller(suite)
        head = seal_file(who, b"", derived(f"salt of far chunks, suite {suite}", 24))[:-TAG_LEN]
        chunks = [{"number": k, "fill": i + 1} for i, k in enumerate(FAR)]
        chunks.append({"number": MAX_CHUNKS - 1, "last": b"the end".hex()})
        scenario = f"Chunks of the longest file, suite {suite}: numbers beyond 8, 16, 24 and 32 bits."
        v = {"scenario": scenario} | who | {"head": head.hex(), "chunks": chunks}
        for chunk, sealed in zip(chunks, far_chunks(v), strict=True):
            chunk["sealed_sha256"] = hashlib.sha256(sealed).hexdigest()
        yield f"far/chunks-suite-{suite}.json", v


def outcome(v):
    try:
        return "opens", open_file(v)
    except Malformed:
        return "malformed", None
    except Unopenable:
        return "unopenable", None


def make():
    """{file name: its content}"""
    made = {}
    for name, scenario, expect, who, file, plaintext in vectors():
        v = {"scenario": scenario, "expect": expect} | who | {"file": file.hex()}
        if plaintext is not None and len(plaintext) < LONG:
            v["plaintext"] = plaintext.hex()
        elif plaintext is not None:
            v |= {"plaintext_len": len(plaintext), "plaintext_sha256": hashlib.sha256(plaintext).hexdigest()}
        assert outcome(v) == (expect, plaintext), name
        assert f"{name}.json" not in made, name
        made[f"{name}.json"] = json.dumps(v, indent=2) + "\n"
    for name, v in far_vectors():
        made[name] = json.dumps(v, indent=2) + "\n"
    assert sum(map(len, made.values())) < MAX_TOTAL
    return made


def main(check):
    made = make()
    there = {path.relative_to(DIRECTORY).as_posix(): path.read_text("utf-8") for path in DIRECTORY.rglob("*.json")}
    if check:
        wrong = sorted(name for name in made | there if made.get(name) != there.get(name))
        for name in wrong:
            what = "is missing" if name not in there else "is not made" if name not in made else "differs"
            print(f"{name} {what}")
        print(f"{len(made)} vectors, {len(wrong)} wrong")
        return 1 if wrong else 0
    (DIRECTORY / "far").mkdir(parents=True, exist_ok=True)
    for name in there.keys() - made.keys():
        (DIRECTORY / name).unlink()
    for name, content in made.items():
        (DIRECTORY / name).write_bytes(content.encode())
    print(f"{len(made)} vectors, {sum(map(len, made.values()))} bytes")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    sys.exit(main(check=bool(sys.argv[1:])))
