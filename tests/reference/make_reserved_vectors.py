"""Writes the vectors of what is reserved, tests/vectors/reserved/*.json (FORMAT.md, section 10).

    python make_reserved_vectors.py           writes them, and removes those no longer made
    python make_reserved_vectors.py --check   writes nothing, and fails unless the directory holds just these

All is derived from names: each run makes the same bytes.
"""

import hashlib
import json
import sys
from pathlib import Path

import strongroom_reference_reserved as ref
from strongroom_reference import seal_message

DIRECTORY = Path(__file__).resolve().parent.parent / "vectors" / "reserved"
TEXT = b"Lunch at noon?"


def derived(name, length=32):
    return hashlib.shake_256(b"strongroom reserved vectors: " + name.encode()).digest(length)


def caller(suite, **other):
    return {
        "data_key": derived(f"data key of suite {suite}").hex(),
        "suite": suite,
        "region": "eu-central-1",
        "tenant": "acme",
        "scope": [["workspace", "W1"], ["channel", "C9"]],
        "context": [["message", "M77"]],
    } | other


def keys():
    for name, v in (
        ("keys-suite-1", caller(1)),
        ("keys-suite-2", caller(2)),
        ("keys-of-the-empty-scope", caller(1, tenant="t", region="r", scope=[])),
    ):
        made = {"index_key": ref.scope_key(v, "index").hex(), "derived_key": ref.scope_key(v, "derived").hex()}
        yield name, {"kind": "keys"} | v | made


def padding():
    lengths = [*range(70), 100, 255, 256, 257, 1000, 1024, 1025, 4097, 65_537, 2**20, 2**20 + 1, 2**24 - 1, 2**24]
    plaintexts = (b"", 0), (b"a", 0), (TEXT, 0), (b"\x80", 0), (b"a\x80\0\0", 0), (b"\0", 0), (b"yes", 256)
    padded = [[plaintext.hex(), least, ref.pad(plaintext, least).hex()] for plaintext, least in plaintexts]
    refused = [b"", b"\0", b"a", b"a\x81", b"\x80\x01", bytes(64), b"\x01" + bytes(7)]
    refused += [b"0123456789abcdef\x80", TEXT + b"\x80\0\0"]  # of 17 bytes, which is no Padmé length
    yield "padding", {
        "kind": "padding",
        "padme": [[n, ref.padme(n)] for n in lengths],
        "padded": padded,
        "refused": [bytes.hex(p) for p in refused],
    }


def padded_messages():
    def message(name, v, envelope, plaintext=None):
        expect = "unopenable" if plaintext is None else "opens"
        made = {"kind": "padded message", "expect": expect} | v | {"envelope": envelope.hex()}
        return name, made | ({} if plaintext is None else {"plaintext": plaintext.hex()})

    for suite in (1, 2):
        v, nonce = caller(suite), derived(f"nonce of suite {suite}", 24)
        yield message(f"padded-message-suite-{suite}", v, ref.seal_padded(v, TEXT, nonce), TEXT)
        yield message(f"padded-to-256-bytes-suite-{suite}", v, ref.seal_padded(v, TEXT, nonce, 256), TEXT)
        yield message(f"padded-empty-message-suite-{suite}", v, ref.seal_padded(v, b"", nonce), b"")
        unflagged = seal_message(v, ref.pad(TEXT), nonce)
        flagged = unflagged[:1] + bytes([suite | ref.PADDED]) + unflagged[2:]
        yield message(f"flag-set-by-somebody-else-suite-{suite}", v, flagged)
        key = ref.padded_message_key(v)
        yield message(f"flagged-but-not-padded-suite-{suite}", v, ref.seal_flagged(v, ref.PADDED, key, nonce, TEXT))
        odd = TEXT + b"\x80\0\0"
        yield message(f"padded-to-no-padme-length-suite-{suite}", v, ref.seal_flagged(v, ref.PADDED, key, nonce, odd))


def files():
    for suite in (1, 2):
        file_key, own = derived(f"file data key of suite {suite}"), [["file", "F77"]]
        base = caller(suite, context=own)

        def wrap(expect, scope, wrapping=None, data_key=None, base=base, suite=suite, file_key=file_key, **other):
            data_key = derived(f"data key {scope} of suite {suite}") if data_key is None else data_key
            v = base | {"scope": scope, "data_key": data_key.hex()} | other
            nonce = derived(f"wrap {scope} {suite}", 24)
            made = ref.wrap_file_key(v, file_key, nonce) if wrapping is None else wrapping(v, nonce)
            return {"expect": expect, "scope": scope, "data_key": v["data_key"], "wrap": made.hex()}

        one, other = base["scope"], [["workspace", "W2"], ["channel", "C1"]]
        data_key = derived(f"data key {one} of suite {suite}")
        moved = wrap("unopenable", other, data_key=data_key) | {"scope": one}

        def stray(key):
            return lambda v, nonce: ref.seal_flagged(v, ref.OWN_KEY, key(v), nonce, file_key)

        wraps = [
            wrap("opens", one),
            wrap("opens", other),
            moved,
            wrap("unopenable", one, stray(lambda v: ref.scope_key(v, "file-wrap"))),
            wrap("unopenable", one, stray(lambda v: ref.scope_key(v, "derived", ref.OWN_KEY))),
            wrap("unopenable", one, lambda v, n: ref.wrap_file_key(v | {"context": [["file", "F78"]]}, file_key, n)),
        ]
        file = ref.seal_own_key_file(file_key, suite, base["region"].encode(), own, derived("salt", 24), TEXT)
        v = {name: value for name, value in base.items() if name not in ("scope", "data_key")}
        made = {"file_data_key": file_key.hex(), "wraps": wraps, "file": file.hex(), "plaintext": TEXT.hex()}
        yield f"file-with-a-key-of-its-own-suite-{suite}", {"kind": "file"} | v | made


def audit():
    secret, salt = derived("audit secret"), derived("audit salt")
    for name, tenant, pairs in (
        ("audit-entry", "acme", [["time", "2026-11-22T05:10:00Z"], ["operation", "unwrap"], ["outcome", "denied"]]),
        ("audit-entry-of-long-values", "T0:ACME@eu-1._", [["reason", "because " * 200], ["kek", "local:ü"], ["a", ""]]),
        ("audit-entry-of-nothing", "t", []),
    ):
        key, body = ref.audit_key(secret, tenant.encode()), ref.audit_body(pairs)
        entry = ref.audit_entry(salt, body)
        yield name, {
            "kind": "audit entry",
            "audit_secret": secret.hex(),
            "tenant": tenant,
            "audit_key": key.hex(),
            "pairs": pairs,
            "body": body.hex(),
            "salt": salt.hex(),
            "entry": entry.hex(),
            "leaf_hash": ref.leaf_hash(entry).hex(),
            "sealed": ref.seal_audit(key, salt, body, derived(f"nonce of {name}", 24)).hex(),
        }


def make():
    """{file name: its content}"""
    made = {}
    for part in (keys, padding, padded_messages, files, audit):
        for name, v in part():
            wrong = []
            ref.check_vector(lambda what, got, want: got == want or wrong.append(what), name, v)
            assert not wrong, wrong
            assert f"{name}.json" not in made, name
            made[f"{name}.json"] = json.dumps(v, indent=1) + "\n"
    return made


def main(check):
    # Labels are told apart, and flags are bound.
    v = caller(1)
    labels, flags = ("index", "derived", "file-wrap"), (0, ref.OWN_KEY, ref.PADDED)
    derivations = [ref.scope_key(v, label, flag) for label in labels for flag in flags]
    derivations += [ref.padded_message_key(v), bytes.fromhex(v["data_key"])]
    assert len(set(derivations)) == len(derivations)

    made = make()
    there = {path.name: path.read_text("utf-8") for path in DIRECTORY.glob("*.json")}
    if check:
        wrong = sorted(name for name in made | there if made.get(name) != there.get(name))
        for name in wrong:
            what = "is missing" if name not in there else "is not made" if name not in made else "differs"
            print(f"{name} {what}")
        print(f"{len(made)} vectors, {len(wrong)} wrong")
        return 1 if wrong else 0
    DIRECTORY.mkdir(parents=True, exist_ok=True)
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
