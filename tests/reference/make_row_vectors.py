"""Writes tests/vectors/rows/*.json and tests/vectors/rows/rooms/*.json (FORMAT.md, section 11). Same bytes at every run.

    python make_row_vectors.py           writes them, and removes those no longer made
    python make_row_vectors.py --check   writes nothing, and fails unless the folders hold just these
"""

import copy
import hashlib
import hmac
import json
import re
import struct
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import strongroom_reference as ref
import strongroom_reference_rows as rows
from strongroom_reference_rows import FLEET, JOURNAL, KEK, KEY, LOG, ROOM, SIGNED, TENANT, spelled

OUT = Path(__file__).resolve().parent.parent / "vectors" / "rows"
NAMES = {
    ROOM: "the room's row", FLEET: "the fleet's row", TENANT: "a tenant's row", KEY: "a key record",
    JOURNAL: "a journal entry", KEK: "a KEK's row", LOG: "a log entry",
}
EU = "eu-central-1"
NOW = 1_795_324_649_500  # 2026-11-22T05:17:29.5Z
HOUR = "hour=2026-11-22T05Z"
DROP = object()

files = {}


def fixed(what, length=32):
    return hashlib.shake_256(f"strongroom row vectors, {what}".encode()).digest(length)


def keep(folder, scenario, vector):
    name = re.sub("[^a-z0-9]+", "-", scenario.lower()).strip("-") + ".json"
    path = OUT / folder / name
    assert path not in files, path

    def line(value):
        return json.dumps(value, ensure_ascii=False)

    # A line for each field, and for each row.
    fields = []
    for field, value in ({"scenario": scenario} | vector).items():
        inner = ",\n".join(f"  {line(row)}" for row in value) if field == "rows" else None
        fields.append(f" {line(field)}: " + (f"[\n{inner}\n ]" if inner else line(value)))
    files[path] = "{\n" + ",\n".join(fields) + "\n}\n"


# --- A room -------------------------------------------------------------------

NAME, LIFE = "chat-eu", fixed("incarnation of the room", 16)
KEYS = [(fixed(f"row key {n}"), fixed(f"control seed {n}")) for n in (1, 2)]
ROOT = {1: fixed("root 1"), 2: fixed("root 2")}
ROOT_FILE = (spelled({
    "format": 1, "newest": len(ROOT), "versions": [{"version": n, "key": key.hex()} for n, key in ROOT.items()],
}) + b"\n").decode()
KEK_NAMES = ("acme-2025", "acme-2026", "second-holder", "stranger")
KEKS = {name: fixed(f"KEK {name}") for name in KEK_NAMES}
KEK_FILE = json.dumps({
    "format": 1,
    "keks": [
        {"name": name, "region": EU, "enabled": True, "newest": 1, "versions": [{"version": 1, "key": key.hex()}]}
        for name, key in KEKS.items()
    ],
})


def reader(generations=2, name=NAME, life=LIFE):
    """The room as who has these keys sees it."""
    keys = [(row_key, rows.public_key(seed)) for row_key, seed in KEYS[:generations]]
    return rows.Room(name, life, keys)


def row(kind, body, generation=2, room=None):
    body = body if isinstance(body, bytes) else spelled(body)
    return rows.make_row(room or reader(), kind, generation, KEYS[generation - 1], body)


def wrap_under_root(context, key):
    nonce = fixed(f"nonce of {context}", ref.NONCE_LEN)
    return ref.local_wrap(ROOT[2], "root", 2, context, key, nonce).hex()


def wrap(record, kek, key, component=False, context=None):
    context = context or rows.key_context(record, component)
    nonce = fixed(f"nonce of {kek} {context} {key.hex()}", ref.NONCE_LEN)
    return {"kek": f"local:{kek}", "wrapped": ref.local_wrap(KEKS[kek], kek, 1, context, key, nonce).hex()}


def room_body(generations=2):
    body = {
        "name": NAME,
        "incarnation": LIFE.hex(),
        "epoch": generations,
        "predecessor": None if generations == 1 else fixed("the room's row before").hex(),
        "created_at": 1_790_000_000_000,
        "generations": [],
    }
    for number, (row_key, seed) in enumerate(KEYS[:generations], 1):
        one = {"generation": number, "least_row_format": 1, "control": rows.public_key(seed).hex()}
        contexts = [rows.root_context(NAME, LIFE.hex(), one, purpose) for purpose in ("room", "control")]
        one["row_key"], one["control_seed"] = (wrap_under_root(c, k) for c, k in zip(contexts, (row_key, seed)))
        body["generations"].append(one)
    return body


def fleet_body(until=None):
    return {
        "room": LIFE.hex(),
        "epoch": 1,
        "predecessor": None,
        "opens_suspended_until": until,
        "actor": "ops@example.com",
        "reason": "a new fleet",
        "at": 1_790_000_000_000,
    }


DATA_KEY = fixed("data key")
ACME_LIFE = fixed("incarnation of acme", 16).hex()
SCOPE = [["channel", "C9"], ["workspace", "W1"]]


RULES = {"messages": ["message"], "files": ["file"]}


def by(state="active", at=NOW - 60_000, actor="data-plane", reason="first use"):
    return {"state": state, "at": at, "actor": actor, "reason": reason}


def key_body():
    record = {
        "tenant": "acme",
        "incarnation": ACME_LIFE,
        "key_id": ref.derive(DATA_KEY, 1, "key-id").hex(),
        "suite": "aes-256-gcm",
        "scope": SCOPE,
        "period": HOUR,
        "region": EU,
        "context_rules": RULES,
        "state": "active",
        "state_since": NOW - 60_000,
        "wrapped": None,
        "pending": None,
        "wrapped_epoch": 2,
        "made_epoch": 2,
        "made_generation": 2,
        "created_at": NOW - 60_000,
        "transitions": [by()],
    }
    record["wrapped"] = wrap(record, "acme-2026", DATA_KEY)
    return record


def policy_body():
    return {
        "keks": "local:acme-2026",
        "region": EU,
        "scope_fields": ["workspace", "channel"],
        "context_rules": RULES,
        "period": "hour",
        "rotation": {"max_age_secs": 7_776_000, "max_messages": 4_294_967_296},
        "suite": "aes-256-gcm",
        "cache_ttl_secs": 300,
        "verify_new_keys": True,
    }


def tenant_body():
    return {
        "tenant": "acme",
        "incarnation": ACME_LIFE,
        "epoch": 3,
        "predecessor": fixed("acme's row before").hex(),
        "enrolled_at": 1_790_000_000_000,
        "policy": policy_body(),
        "revocations": [],
        "suspensions": [],
        "erasures": [],
        "rewrap": None,
        "keks": [{"from_epoch": 1, "keks": "local:acme-2025"}, {"from_epoch": 2, "keks": "local:acme-2026"}],
        "erased": [],
        "compromised": [],
        "exports": [],
        "journal": {"entries": 0, "last": None},
    }


def journal_body(number=1, previous=None, decision=None):
    return {
        "tenant": "acme",
        "incarnation": ACME_LIFE,
        "number": number,
        "previous": previous,
        "epoch": number,
        "at": 1_790_000_000_000 + number,
        "actor": "alice",
        "reason": f"ticket {number}",
        "decision": decision or {"verb": "enroll", "details": [["keks", "local:acme-2025"], ["policy", "00" * 32]]},
    }


def kek_body():
    return {"kek": "local:acme-2026", "tenant": "acme", "shared": False}


def log_body():
    return {"number": 1, "change": {"tenant": "acme", "selector": {"fields": [["channel", "C9"]]}, "forget": "keys"}}


BODIES = {
    ROOM: room_body, FLEET: fleet_body, TENANT: tenant_body, KEY: key_body, JOURNAL: journal_body, KEK: kek_body, LOG: log_body,
}


def changed(body, **members):
    """The body with other members; `a__b` is b of a. DROP takes one out."""
    body = copy.deepcopy(body)
    for path, value in members.items():
        *way, last = path.split("__")
        inner = body
        for step in way:
            inner = inner[int(step) if step.isdigit() else step]
        if value is DROP:
            del inner[last]
        else:
            inner[int(last) if last.isdigit() else last] = value
    return body


# --- Rows ---------------------------------------------------------------------

def vector(scenario, expect, kind, bytes_of_row, generations=2, name=NAME, life=LIFE, trusting=False):
    v = {
        "room": None if trusting else name,
        "incarnation": None if trusting else life.hex(),
        "generations": [] if trusting else [
            {"row_key": row_key.hex(), "control_seed": seed.hex()} for row_key, seed in KEYS[:generations]
        ],
        "kind": kind,
        "row": bytes_of_row.hex(),
        "expect": expect,
    }
    got = rows.expect_row(v)
    assert got["expect"] == expect, (scenario, got)
    keep("", scenario, v | got)


def bent(bytes_of_row, at, bit=0):
    row = bytearray(bytes_of_row)
    row[at] ^= 1 << bit
    return bytes(row)


def cap(text):
    return text[0].upper() + text[1:]


def every_kind():
    for kind, make in BODIES.items():
        what, body = NAMES[kind], make()
        good, front = row(kind, body), 72 if kind in SIGNED else 38

        def bad(how, bytes_of_row, **reader):
            vector(f"{cap(what)}, {how}", "tampered", kind, bytes_of_row, **reader)

        vector(f"{cap(what)} verifies", "verifies", kind, good)
        if kind != ROOM:
            earlier = changed(body, made_generation=1) if kind == KEY else body
            vector(f"{cap(what)} of an earlier generation verifies", "verifies", kind, row(kind, earlier, 1))
        bad("another version", bytes([2]) + good[1:])
        other = kind % 7 + 1
        bad("another kind's byte", good[:1] + bytes([other]) + good[2:])
        bad("made as another kind's", bytes([1, kind]) + row(other, body)[2:])
        bad("its generation changed", good[:2] + struct.pack(">I", 1) + good[6:])
        bad("its first authenticator bit flipped", bent(good, 6, 7))
        bad("its last authenticator bit flipped", bent(good, 37 if front == 38 else 69))
        bad("a bit of its body's first byte flipped", bent(good, front))
        bad("a bit of its body's last byte flipped", bent(good, -1))
        bad("its body cut by a byte", good[:-1])
        bad("a byte behind its body", good + b"\n")
        bad("cut in its authenticator", good[:30])
        bad("nothing", b"")
        bad("of a room of another name", good, name="chat-us")
        bad("of a room whose name is longer", good, name=NAME + "-")
        bad("of a room of another incarnation", good, life=fixed("another incarnation", 16))
        bad("of a generation that the reader does not know", good, generations=1)
        bad("of generation 0 and nobody's", rows.build_frame(kind, 0, bytes(front - 6 - 2 * (kind in SIGNED)), spelled(body)))
        text = spelled(body)

        def odd(how, bytes_of_body):
            assert bytes_of_body != text
            vector(f"{cap(what)}, {how}", "malformed", kind, row(kind, bytes_of_body))

        first, second = list(body)[:2]
        odd("a blank behind a colon", text.replace(b":", b": ", 1))
        odd("a line feed behind it", text + b"\n")
        odd("two members swapped", spelled({second: body[second], first: body[first]} | body))
        odd("an unknown member", spelled(body | {"more": 1}))
        odd("a member twice", text.replace(b"{", b"{" + spelled({first: body[first]})[1:-1] + b",", 1))
        odd("a member missing", spelled(changed(body, **{list(body)[-1]: DROP})))
        odd("a list in place of an object", spelled(list(body.values())))
        odd("an array of nothing", b"[]")
        odd("no body", b"")
        odd("a byte order mark", b"\xef\xbb\xbf" + text)
        odd("another escape", text.replace(b'"', b'"\\u%04x' % text[2], 1).replace(b"%c" % text[2], b"", 1))


def consents():
    for kind in SIGNED:
        good = row(kind, BODIES[kind]())
        consent = b"yes"
        longer = good[:70] + struct.pack(">H", len(consent)) + consent + good[72:]
        vector(f"{cap(NAMES[kind])} with a consent", "tampered", kind, longer)
        front = good[:70] + struct.pack(">H", 1) + good[72:]
        vector(f"{cap(NAMES[kind])}, its consent length not 0", "tampered", kind, front)
    taken = row(TENANT, tenant_body())
    # Signed without the first byte of its body, which then stands as a consent.
    body = b" " + spelled(tenant_body())
    signed = row(TENANT, spelled(tenant_body()))
    vector("A tenant's row, a byte of a consent before its body", "tampered", TENANT, signed[:70] + b"\x00\x01" + body)
    vector("A tenant's row that ends in its consent length", "tampered", TENANT, taken[:71])
    vector("A tenant's row whose consent is longer than what is there", "tampered", TENANT, taken[:70] + b"\xff\xff" + taken[72:])


def straying_writers():
    """Writers that have the keys and stray from the page. Each is what a reader with the same fault would take."""
    room, (row_key, seed), name = reader(), KEYS[1], NAME.encode()

    def stray(how, make):
        for kind in (KEY, TENANT):
            body = spelled(BODIES[kind]())
            message = make(kind, body)
            if kind in SIGNED:
                made = Ed25519PrivateKey.from_private_bytes(seed).sign(message)
            else:
                made = hmac.digest(row_key, message, "sha512")[:32]
            vector(f"{cap(NAMES[kind])}, {how}", "tampered", kind, rows.build_frame(kind, 2, made, body))

    label, head = b"strongroom/v1/row", lambda kind: bytes([1, kind]) + struct.pack(">I", 2)
    named = bytes([len(name)]) + name
    stray("without the label", lambda kind, body: named + LIFE + head(kind) + body)
    stray("with another label", lambda kind, body: b"strongroom/v1/rows" + named + LIFE + head(kind) + body)
    stray("without the length of the room's name", lambda kind, body: label + name + LIFE + head(kind) + body)
    stray("without the room's name", lambda kind, body: label + LIFE + head(kind) + body)
    stray("without the room's incarnation", lambda kind, body: label + named + head(kind) + body)
    stray("incarnation before name", lambda kind, body: label + LIFE + named + head(kind) + body)
    stray("the incarnation as text", lambda kind, body: label + named + LIFE.hex().encode() + head(kind) + body)
    stray("without version and kind", lambda kind, body: label + named + LIFE + head(kind)[2:] + body)
    stray("without the version", lambda kind, body: label + named + LIFE + head(kind)[1:] + body)
    stray("without the kind", lambda kind, body: label + named + LIFE + b"\x01" + head(kind)[2:] + body)
    stray("without the generation", lambda kind, body: label + named + LIFE + head(kind)[:2] + body)
    stray("the generation little-endian", lambda kind, body: label + named + LIFE + bytes([1, kind, 2, 0, 0, 0]) + body)
    stray("the generation in 2 bytes", lambda kind, body: label + named + LIFE + bytes([1, kind, 0, 2]) + body)
    stray("without the body", lambda kind, body: label + named + LIFE + head(kind))
    stray("with a consent length", lambda kind, body: label + named + LIFE + head(kind) + bytes(2) + body)
    stray("its body hashed first", lambda kind, body: label + named + LIFE + head(kind) + hashlib.sha256(body).digest())

    body = spelled(key_body())
    message = room.authenticated(KEY, 2, body)
    for how, tag in (
        ("tagged by the end of the HMAC", hmac.digest(row_key, message, "sha512")[32:]),
        ("tagged by HMAC-SHA-256", hmac.digest(row_key, message, "sha256")),
        ("tagged by HMAC-SHA-384", hmac.digest(row_key, message, "sha384")[:32]),
        ("tagged by SHA-512 without a key", hashlib.sha512(row_key + message).digest()[:32]),
        ("tagged under the control seed", hmac.digest(seed, message, "sha512")[:32]),
        ("tagged under the control plane's public key", hmac.digest(rows.public_key(seed), message, "sha512")[:32]),
        ("tagged under the earlier row key", hmac.digest(KEYS[0][0], message, "sha512")[:32]),
        ("tagged with zeros", bytes(32)),
    ):
        vector(f"A key record, {how}", "tampered", KEY, rows.build_frame(KEY, 2, tag, body))
    body = spelled(tenant_body())
    message = room.authenticated(TENANT, 2, body)
    sign = lambda seed, message: Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    for how, signature in (
        ("signed under the row key as a seed", sign(row_key, message)),
        ("signed under the earlier seed", sign(KEYS[0][1], message)),
        ("its digest signed", sign(seed, hashlib.sha512(message).digest())),
        ("a tag in place of its signature", hmac.digest(row_key, message, "sha512")),
        ("signed with zeros", bytes(64)),
    ):
        vector(f"A tenant's row, {how}", "tampered", TENANT, rows.build_frame(TENANT, 2, signature, body))
    # S and S plus the group's order give the same point.
    good = sign(seed, message)
    order = 2**252 + 27742317777372353535851937790883648493
    high = (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    not_reduced = rows.build_frame(TENANT, 2, good[:32] + high, body)
    vector("A tenant's row, S not below the group's order", "tampered", TENANT, not_reduced)


def trusted_stores():
    for kind in (TENANT, KEY, JOURNAL, LOG):
        body = changed(key_body(), made_generation=0) if kind == KEY else BODIES[kind]()
        bare = rows.make_row(rows.Room(), kind, 0, None, spelled(body))
        vector(f"{cap(NAMES[kind])} in a store that is trusted verifies", "verifies", kind, bare, trusting=True)
        vector(f"{cap(NAMES[kind])} of a trusted store is not a room's", "tampered", kind, bare)
        vector(f"{cap(NAMES[kind])} of a room in a store that is trusted", "tampered", kind, row(kind, body), trusting=True)
        vector(f"{cap(NAMES[kind])} in a trusted store, an authenticator bit set", "tampered", kind, bent(bare, 8), trusting=True)
        vector(f"{cap(NAMES[kind])} in a trusted store, its generation 1", "tampered", kind, bent(bare, 5), trusting=True)
    bare = rows.make_row(rows.Room(), TENANT, 0, None, spelled(tenant_body()))
    consent = bare[:70] + b"\0\1." + bare[72:]
    vector("A tenant's row in a trusted store, with a consent", "tampered", TENANT, consent, trusting=True)


OWN_NAMES = ("tenant", "region", "purpose", "suite", "month", "day", "hour")
HOURS = [f"hour=2026-11-22T{n:02}Z" for n in range(24)]
IDS = sorted(fixed(f"key id {n}").hex() for n in range(3))
RICH_SELECTORS = [
    {"everything": True},
    {"fields": [["channel", "C9"]]},
    {"fields": [["channel", "C9"], ["channel", "C9"], ["hour", "2026-11-22T05Z"]]},
    {"from": HOURS[3], "to": HOURS[7]},
    {"fields": [["channel", 'quo"te \\ / \u0008\u000c\n\r\t\u0000\u001f\u007f ü 🍵 \u2028']], "keys": IDS},
    {"from": "month=2026-11"},
    {"to": "day=2026-99-99"},
    {"keys": []},
    {"everything": True, "fields": [["a", ""]], "from": HOURS[3], "to": HOURS[7], "keys": IDS},
    {},
]
NESTED = "any_of(local:acme-2026, all_of(local:a, any_of(local:b, local:c)))"


def rich_bodies():
    """One with every member, and each kind's limits."""
    def good(what, kind, body):
        vector(f"{cap(NAMES[kind])}, {what}", "verifies", kind, row(kind, body))

    policy = {
        "keks": NESTED,
        "new_key_members": 8,
        "region": EU,
        "allowed_regions": ["eu", "us-east-1"],
        "kek_regions": {"aws-kms:alias/b": "eu", "local:a": "us-east-1"},
        "shared_keks": ["local:a", "local:b"],
        "scope_fields": ["workspace", "channel", "a_b-9"],
        "context_rules": {"messages": ["Message", "b", "n" * 64, "tenant", "ü 🍵", "\uffff", "🍵"], "files": "unbound"},
        "period": "day",
        "rotation": {"max_age_secs": 2**64 - 1, "max_messages": 2**40},
        "suite": "chacha20-poly1305",
        "cache_ttl_secs": 86_400,
        "verify_new_keys": False,
        "retention_secs": 1,
        "contact": "security@acme, Zürich",
    }
    floors = [{"selector": it, "before": n} for n, it in enumerate(RICH_SELECTORS)]
    good("every member", TENANT, tenant_body() | {
        "epoch": 2**64 - 1,
        "enrolled_at": -(2**63),
        "policy": policy,
        "revocations": [{"selector": it, "since": n} for n, it in enumerate(RICH_SELECTORS)],
        "suspensions": [{"selector": RICH_SELECTORS[1], "since": 1, "until": 2**63 - 1}],
        "erasures": [
            {"id": "0123456789abcdef", "selector": RICH_SELECTORS[0], "requested_at": 1, "due_at": 2},
            {"id": "0123456789abcdef", "selector": {}, "requested_at": 1, "due_at": 2, "carried_out_since": 3},
        ],
        "rewrap": {"to": "all_of(local:a, local:b)", "epoch": 9, "since": 8},
        "keks": [
            {"from_epoch": 1, "keks": NESTED, "new_key_members": 1},
            {"from_epoch": 9, "keks": "all_of(local:a, local:b)", "new_key_members": 8},
        ],
        "erased": floors,
        "compromised": floors[:2],
        "exports": [{"kek": "aws-kms:alias/x", "foreign": True, "first_at": 1, "last_at": 2, "upto_epoch": 7}],
        "journal": {"entries": 2**64 - 1, "last": fixed("last").hex()},
    })
    history = [{"from_epoch": 1, "keks": "local:acme-2026"}]
    good("epoch 1", TENANT, changed(tenant_body(), epoch=1, predecessor=None, keks=history))
    good("1000 revocations", TENANT, changed(tenant_body(), revocations=[{"selector": {}, "since": 1}] * 1000))
    arn = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1"
    for how, kek in (
        ("a KEK whose name is an ARN without a region", "aws-kms:arn:aws:kms::111122223333:key/1"),
        ("a KEK whose name is no ARN", "aws-kms:arm:aws:kms:us-east-1:111122223333:key/1"),
        ("a KEK whose name is an ARN of three parts", "aws-kms:arn:aws:us-east-1"),
    ):
        good(how, TENANT, changed(tenant_body(), policy__keks=kek, keks=[{"from_epoch": 1, "keks": kek}]))
    for period in ("none", "month"):
        good(f"the period {period}", TENANT, changed(tenant_body(), policy__period=period))
    longest = policy_with(contact="ü" * 100, cache_ttl_secs=1, allowed_regions=[f"r{n:02}" for n in range(16)])
    good("limits reached", TENANT, changed(tenant_body(), policy=longest))
    oldest = changed(policy_with(retention_secs=2**64 - 1), rotation__max_age_secs=2**64 - 1, rotation__max_messages=2**40)
    good("times without end", TENANT, changed(tenant_body(), policy=oldest))
    good("a scope field that begins with aw", TENANT, changed(tenant_body(), policy__scope_fields=["awning"]))
    many = [{"from_epoch": n, "keks": "local:acme-2026"} for n in range(1, 65)]
    good("64 changes of KEKs", TENANT, changed(tenant_body(), epoch=64, keks=many))
    exports = [{"kek": "a:b", "foreign": False, "first_at": 1, "last_at": 1, "upto_epoch": 1}] * 100
    good("100 exports", TENANT, changed(tenant_body(), exports=exports))
    names = [f"f{n}" for n in range(8)]
    good("eight scope fields", TENANT, changed(tenant_body(), policy__scope_fields=names))
    good("eight scope fields", KEY, changed(key_body(), scope=[[name, "v"] for name in names]))
    good("values against the order of names", KEY, changed(key_body(), scope=[["a", "z"], ["b", "y"]]))
    good("a scope of 512 bytes", KEY, changed(key_body(), scope=[["a", "v" * 507]]))
    eight = f"any_of({', '.join(f'local:{n}' for n in range(8))})"
    deep = "any_of(a:1, any_of(a:2, any_of(a:3, a:4)))"
    first = "any_of(any_of(any_of(a:1, a:2), a:3), a:4)"
    for how, keks in (("eight KEKs", eight), ("three levels of groups", deep), ("three levels in the first member", first)):
        good(how, TENANT, changed(tenant_body(), policy__keks=keks, keks=[{"from_epoch": 1, "keks": keks}]))
    good("three levels", KEY, changed(key_body(), wrapped=nested_wrapping(3)))
    good("a KEK whose region is known", TENANT, changed(tenant_body(), policy__keks=arn, keks=[{"from_epoch": 1, "keks": arn}]))
    record = key_body()
    part = lambda kek, n: {"kek": kek, "wrapped": "00" * n}
    good("every member", KEY, record | {
        "suite": "chacha20-poly1305",
        "scope": [["channel", "C\u0000 ü\u007f"], ["workspace", "W1"]],
        "context_rules": {"messages": "unbound", "files": list("abcdefgh")},
        "period": "month=2026-11",
        "state": "suspended",
        "state_since": -1,
        "wrapped": {"any_of": [part("local:a", 1), {"all_of": [part("local:b", 2), part("local:c", 6144)]}]},
        "pending": {"wrapped": part("local:d", 3), "epoch": 2**64 - 1},
        "wrapped_epoch": 2**64 - 1,
        "made_generation": 1,
        "transitions": [by(), by("suspended", -1, "alice", 'a "reason"')],
    })
    good("any one field for messages", KEY, changed(record, context_rules={"messages": "at_least_one", "files": ["file"]}))
    good("no period and the empty scope", KEY, changed(record, period=None, scope=[]))
    good("destroyed", KEY, changed(record, state="destroyed", wrapped=None, transitions=[by(), by("destroyed")]))
    good("16 transitions", KEY, changed(record, transitions=[by()] * 16))
    decision = {"verb": "erase", "details": [["a", "b"], ["a", ""]], "selector": RICH_SELECTORS[4], "keys": IDS[::-1]}
    good("every member", JOURNAL, journal_body(2, fixed("entry before").hex(), decision))
    good("a verb alone", JOURNAL, journal_body(3, fixed("entry before").hex(), {"verb": "a new verb"}))
    good("suspended", FLEET, changed(fleet_body(2**63 - 1), epoch=2, predecessor=fixed("fleet before").hex()))
    everybody = changed(log_body(), change__tenant=None, change__selector={"everything": True}, change__forget="sealing")
    good("of every tenant", LOG, everybody)
    good("of nothing to forget", LOG, changed(log_body(), number=2**64 - 1, change__selector={}, change__forget="nothing"))
    good("shared", KEK, changed(kek_body(), shared=True))
    vector("The room's row, its first", "verifies", ROOM, row(ROOM, room_body(1), 1), generations=1)


def bodies_that_cannot_be():
    def bad(kind, how, body=None, **members):
        body = changed(body or BODIES[kind](), **members)
        vector(f"{cap(NAMES[kind])} that cannot be: {how}", "malformed", kind, row(kind, body))

    def in_text(kind, how, before, after):
        text = spelled(BODIES[kind]())
        assert text.count(before) >= 1, before
        vector(f"{cap(NAMES[kind])} that cannot be: {how}", "malformed", kind, row(kind, text.replace(before, after, 1)))

    bad(ROOM, "epoch 0", epoch=0)
    bad(ROOM, "epoch 1 with a predecessor", epoch=1)
    bad(ROOM, "no predecessor", predecessor=None)
    bad(ROOM, "no generations", generations=[])
    bad(ROOM, "fewer generations than epochs", epoch=3)
    bad(ROOM, "more generations than epochs", epoch=1, predecessor=None)
    bad(ROOM, "a generation left out", generations=room_body()["generations"][1:])
    bad(ROOM, "a later format of rows", generations__1__least_row_format=2)
    bad(ROOM, "its name in upper case", name="Chat-eu")
    bad(ROOM, "its name too long", name="c" * 65)
    bad(FLEET, "epoch 0", epoch=0)
    bad(FLEET, "epoch 0 with a predecessor", epoch=0, predecessor=fixed("fleet before").hex())
    bad(FLEET, "a time below -2^63", at=-(2**63) - 1)
    bad(FLEET, "epoch 2 without a predecessor", epoch=2)
    bad(FLEET, "a member left out that is null", opens_suspended_until=DROP)
    in_text(FLEET, "a fraction", b":1790000000000", b":1790000000000.0")
    in_text(FLEET, "an exponent", b":1790000000000", b":179e10")
    in_text(FLEET, "a leading zero", b'"epoch":1', b'"epoch":01')
    in_text(FLEET, "a minus before zero", b'"at":1790000000000', b'"at":-0')
    in_text(FLEET, "a number as text", b'"epoch":1', b'"epoch":"1"')
    bad(FLEET, "a time above 2^63", at=2**63)
    in_text(FLEET, "half of a surrogate pair", b"a new fleet", b"\\ud800")
    in_text(FLEET, "an upper-case escape", b"a new fleet", b"\\u001F")
    in_text(FLEET, "a letter escaped", b"a new fleet", b"\\u0061 new fleet")
    in_text(FLEET, "a slash escaped", b"a new fleet", b"\\/")
    in_text(FLEET, "a control character not escaped", b"a new fleet", b"a\x01fleet")
    in_text(FLEET, "not UTF-8", b"a new fleet", b"a\xfffleet")
    for how, members in {
        "epoch 0": {"epoch": 0},
        "no predecessor": {"predecessor": None},
        "a predecessor at epoch 1": {"epoch": 1, "keks": [{"from_epoch": 1, "keks": "local:acme-2026"}]},
        "a predecessor in upper case": {"predecessor": fixed("acme's row before").hex().upper()},
        "an epoch above 2^64": {"epoch": 2**64},
        "an incarnation of 15 bytes": {"incarnation": ACME_LIFE[2:]},
        "its name blank": {"tenant": ""},
        "its name too long": {"tenant": "t" * 65},
        "an empty history of KEKs": {"keks": []},
        "a history that is out of order": {"keks": tenant_body()["keks"][::-1]},
        "a history from epoch 0": {"keks__0__from_epoch": 0},
        "a history with an epoch twice": {"keks__0__from_epoch": 2},
        "a history from an epoch to come": {"keks__1__from_epoch": 4},
        "a history that ends otherwise than the policy": {"keks__1__keks": "local:acme-2025"},
        "a history that ends otherwise than the rewrap": {"rewrap": {"to": "local:a", "epoch": 3, "since": 1}},
        "65 changes of KEKs": {"epoch": 99, "keks": [{"from_epoch": n, "keks": "local:acme-2026"} for n in range(1, 66)]},
        "1001 revocations": {"revocations": [{"selector": {}, "since": 1}] * 1001},
        "101 exports": {"exports": [{"kek": "a:b", "foreign": False, "first_at": 1, "last_at": 1, "upto_epoch": 1}] * 101},
        "a KEK twice in an expression": {"policy__keks": "any_of(local:a, local:a)"},
        "a group of one": {"policy__keks": "all_of(local:a)"},
        "no blank behind a comma": {"policy__keks": "any_of(local:a,local:b)"},
        "a blank before a parenthesis": {"policy__keks": "any_of (local:a, local:b)"},
        "nine KEKs": {"policy__keks": f"any_of({', '.join(f'local:{n}' for n in range(9))})"},
        "four levels": {"policy__keks": "any_of(a:1, any_of(a:2, any_of(a:3, any_of(a:4, a:5))))"},
        "four levels in the first member": {"policy__keks": "any_of(any_of(any_of(any_of(a:1, a:2), a:3), a:4), a:5)"},
        "a KEK without a scheme": {"policy__keks": "acme"},
        "a KEK with a blank": {"policy__keks": "local:ac me"},
        "a KEK's scheme too long": {"policy__keks": "a" * 17 + ":b"},
        "a KEK's name too long": {"policy__keks": "a:" + "b" * 513},
        "a KEK that is an ARN elsewhere": {"policy__keks": "aws-kms:arn:aws:kms:us-east-1:1:key/1"},
        "a KEK that is an ARN elsewhere, of four parts": {"policy__keks": "aws-kms:arn:aws:kms:us-east-1"},
        "a KEK that is said to be elsewhere": {"policy__kek_regions": {"local:acme-2026": "us-east-1"}},
        "17 regions": {"policy__allowed_regions": [f"r{n:02}" for n in range(17)]},
        "an allowed region in upper case": {"policy__allowed_regions": ["EU"]},
        "regions out of order": {"policy__allowed_regions": ["us", "eu"]},
        "a region twice": {"policy__allowed_regions": ["eu", "eu"]},
        "a region in upper case": {"policy__region": "EU"},
        **{f"the scope field {name}": {"policy__scope_fields": [name]} for name in OWN_NAMES},
        "a scope field that begins with aws": {"policy__scope_fields": ["awsome"]},
        "a scope field in upper case": {"policy__scope_fields": ["Channel"]},
        "a scope field twice": {"policy__scope_fields": ["channel", "channel"]},
        "a scope field too long": {"policy__scope_fields": ["c" * 33]},
        "nine scope fields": {"policy__scope_fields": [f"f{n}" for n in range(9)]},
        "no field that a message must have": {"policy__context_rules__messages": []},
        "a field that a message must have without a name": {"policy__context_rules__messages": [""]},
        "fields that a message must have out of order": {"policy__context_rules__messages": ["thread", "message"]},
        "a field that a file must have twice": {"policy__context_rules__files": ["file", "file"]},
        "a field that a file must have is a scope field": {"policy__context_rules__files": ["channel", "file"]},
        "a field that a file must have too long": {"policy__context_rules__files": ["ü" * 32 + "f"]},
        "nine fields that a message must have": {"policy__context_rules__messages": list("abcdefghi")},
        "another word for what a message must have": {"policy__context_rules__messages": "none"},
        "no rules for files": {"policy__context_rules__files": DROP},
        "no context rules": {"policy__context_rules": DROP},
        "another period": {"policy__period": "year"},
        "a period in upper case": {"policy__period": "Hour"},
        "another suite": {"policy__suite": "aes-128-gcm"},
        "the suite's byte": {"policy__suite": 1},
        "no cache time": {"policy__cache_ttl_secs": 0},
        "more than a day of cache time": {"policy__cache_ttl_secs": 86_401},
        "no rotation age": {"policy__rotation__max_age_secs": 0},
        "no messages": {"policy__rotation__max_messages": 0},
        "more than 2^40 messages": {"policy__rotation__max_messages": 2**40 + 1},
        "a number for a boolean": {"policy__verify_new_keys": 1},
        "a selector that says everything is false": {"erased": [{"selector": {"everything": False}, "before": 1}]},
        "a selector with fields left empty": {"erased": [{"selector": {"fields": []}, "before": 1}]},
        "a selector's member null": {"erased": [{"selector": {"from": None}, "before": 1}]},
        "a selector's fields out of order": {"erased": [{"selector": {"fields": [["b", ""], ["a", ""]]}, "before": 1}]},
        "a selector's values out of order": {"erased": [{"selector": {"fields": [["a", "b"], ["a", "a"]]}, "before": 1}]},
        "a selector's keys out of order": {"erased": [{"selector": {"keys": IDS[::-1]}, "before": 1}]},
        "a selector's key that is no id": {"erased": [{"selector": {"keys": ["00"]}, "before": 1}]},
        "a field of three": {"erased": [{"selector": {"fields": [["a", "b", "c"]]}, "before": 1}]},
        "a selector's period without a field": {"erased": [{"selector": {"from": "2026-11"}, "before": 1}]},
        "a floor's members swapped": {"compromised": [{"before": 1, "selector": {}}]},
        "an erasure's member null": {"erasures": [
            {"id": "1", "selector": {}, "requested_at": 1, "due_at": 1, "carried_out_since": None},
        ]},
        "no text for KEKs": {"policy__keks": 1},
        "KEKs and more": {"policy__keks": "any_of(local:a, local:b)x"},
        "a parenthesis too many": {"policy__keks": "any_of(local:a, local:b))"},
        "a parenthesis too few": {"policy__keks": "any_of(local:a, local:b"},
        "a comma in place of a KEK": {"policy__keks": "any_of(local:a, , local:b)"},
        "no KEKs": {"policy__keks": ""},
        "an empty group": {"policy__keks": "any_of()"},
        "two expressions": {"policy__keks": "local:a, local:b"},
        "a KEK with a letter that is not ASCII": {"policy__keks": "local:ü"},
        "a pair of numbers": {"erased": [{"selector": {"fields": [[1, 2]]}, "before": 1}]},
        "a pair of null and a text": {"erased": [{"selector": {"fields": [[None, "a"]]}, "before": 1}]},
        "a pair of a text and null": {"erased": [{"selector": {"fields": [["a", None]]}, "before": 1}]},
        "a text for a selector": {"erased": [{"selector": "everything", "before": 1}]},
        "a text for an object": {"journal": "none"},
        "an object for a list": {"erased": {}},
        "a floor twice in one": {"erased": [[{"selector": {}, "before": 1}]]},
    }.items():
        if "policy__keks" in members:  # so that nothing else is wrong with it
            members = members | {"keks": [{"from_epoch": 1, "keks": members["policy__keks"]}]}
        for name in ("allowed_regions", "kek_regions"):  # which stand in the middle
            if (value := members.get(f"policy__{name}")) is not None:
                members = {"policy": policy_with(**{name: value})}
        bad(TENANT, how, **members)
    history = [{"from_epoch": 1, "keks": "local:acme-2026"}]
    needs_none = policy_with(new_key_members=0)
    bad(TENANT, "no members for new keys", policy=needs_none, keks=[history[0] | {"new_key_members": 0}])
    needs_nine = policy_with(new_key_members=9)
    bad(TENANT, "nine members for new keys", policy=needs_nine, keks=[history[0] | {"new_key_members": 9}])
    bad(TENANT, "members for new keys that its history does not have", policy=policy_with(new_key_members=1), keks=history)
    bad(TENANT, "a history with members for new keys that its policy does not have", keks=[history[0] | {"new_key_members": 1}])
    bad(TENANT, "a retention time above 2^64", policy=policy_with(retention_secs=2**64))
    bad(TENANT, "a key's age above 2^64", policy=changed(policy_with(), rotation__max_age_secs=2**64))
    bad(TENANT, "too many messages", policy=changed(policy_with(), rotation__max_messages=2**40 + 1))
    bad(TENANT, "retention without periods", policy=policy_with(period="none", retention_secs=1))
    bad(TENANT, "no retention time", policy=policy_with(retention_secs=0))
    bad(TENANT, "an empty contact", policy=policy_with(contact=""))
    bad(TENANT, "a contact too long", policy=policy_with(contact="ü" * 100 + "a"))
    bad(TENANT, "a contact of two lines", policy=policy_with(contact="a\nb"))
    bad(TENANT, "a contact with a control character", policy=policy_with(contact="a\u0085b"))
    bad(TENANT, "a contact that is null", policy=policy_with(contact=None))
    bad(TENANT, "KEKs' regions out of order", policy=policy_with(kek_regions={"b:1": EU, "a:1": EU}))
    bad(TENANT, "a list for KEKs' regions", policy=policy_with(kek_regions=[["a:1", EU]]))
    bad(TENANT, "the region of no KEK", policy=policy_with(kek_regions={"acme": EU}))
    bad(TENANT, "a KEK's region in upper case", policy=policy_with(kek_regions={"a:1": "EU"}))
    bad(TENANT, "a shared KEK that is none", policy=policy_with(shared_keks=["acme"]))
    bad(TENANT, "a shared KEK twice", policy=policy_with(shared_keks=["a:1", "a:1"]))
    bad(TENANT, "KEKs' regions left empty", policy=policy_with(kek_regions={}))
    bad(TENANT, "shared KEKs out of order", policy=policy_with(shared_keks=["b:1", "a:1"]))
    bad(TENANT, "allowed regions left empty", policy=policy_with(allowed_regions=[]))
    for how, members in {
        "made at epoch 0": {"made_epoch": 0},
        "wrapped before it was made": {"made_epoch": 3},
        "a generation above 2^32": {"made_generation": 2**32},
        "no wrapping": {"wrapped": None},
        "destroyed with a wrapping": {"state": "destroyed", "transitions": [by("destroyed")]},
        "no transitions": {"transitions": []},
        "17 transitions": {"transitions": [by()] * 17},
        "another state than its last transition": {"state": "deactivated"},
        "another time than its last transition": {"state_since": 0},
        "another state's name": {"state": "Active"},
        "a key id in upper case": {"key_id": key_body()["key_id"].upper()},
        "a key id of 31 bytes": {"key_id": key_body()["key_id"][2:]},
        "nine scope fields": {"scope": [[f"f{n}", "v"] for n in range(9)]},
        "its scope out of order": {"scope": SCOPE[::-1]},
        "a scope field twice": {"scope": [["channel", "a"], ["channel", "b"]]},
        "a scope field without a value": {"scope": [["channel", ""]]},
        "a scope field of the encryption context": {"scope": [["tenant", "a"]]},
        "a scope value of 513 bytes": {"scope": [["channel", "v" * 513]]},
        "a scope of 513 bytes": {"scope": [["a", "v" * 508]]},
        "no field that a file must have": {"context_rules__files": []},
        "fields that a message must have out of order": {"context_rules__messages": ["thread", "message"]},
        "a field that a message must have is a scope field": {"context_rules__messages": ["channel"]},
        "the fields that a message must have as an object": {"context_rules__messages": {"message": True}},
        "no rules for messages": {"context_rules__messages": DROP},
        "no context rules": {"context_rules": DROP},
        "its context rules swapped": {"context_rules": {"files": ["file"], "messages": ["message"]}},
        "a period that has no field": {"period": "2026-11-22T05Z"},
        "a period of a year": {"period": "year=2026"},
        "a period without Z": {"period": "hour=2026-11-22T05"},
        "a period with a sign": {"period": "month=+026-11"},
        "a period in other digits": {"period": "month=٢٠٢٦-11"},
        "nothing wrapped": {"wrapped": {"kek": "local:acme-2026", "wrapped": ""}},
        "wrapped in upper case": {"wrapped": {"kek": "local:acme-2026", "wrapped": "AB"}},
        "wrapped in odd digits": {"wrapped": {"kek": "local:acme-2026", "wrapped": "abc"}},
        "wrapped too long": {"wrapped": {"kek": "local:acme-2026", "wrapped": "00" * 6145}},
        "a wrapping's members swapped": {"wrapped": {"wrapped": "00", "kek": "local:acme-2026"}},
        "two groups in one": {"wrapped": {"any_of": [{"kek": "a:1", "wrapped": "00"}] * 2, "all_of": []}},
        "a group of none": {"wrapped": {"any_of": []}},
        "a group of one": {"wrapped": {"all_of": [{"kek": "a:1", "wrapped": "00"}]}},
        "a KEK twice": {"wrapped": {"any_of": [{"kek": "a:1", "wrapped": "00"}] * 2}},
        "a text for what was wrapped": {"wrapped": "00"},
        "a wrapping for a KEK that is none": {"wrapped": {"kek": "acme", "wrapped": "00"}},
        "a wrapping for a KEK with a parenthesis": {"wrapped": {"kek": "local:a)", "wrapped": "00"}},
        "an empty wrapping in a group": {"wrapped": {"any_of": [{"kek": "a:1", "wrapped": "00"}, {"kek": "a:2", "wrapped": ""}]}},
        "a text in a group": {"wrapped": {"any_of": [{"kek": "a:1", "wrapped": "00"}, "a:2"]}},
        "four levels of groups": {"wrapped": nested_wrapping(4)},
        "nine KEKs in a group": {"wrapped": {"any_of": [{"kek": f"a:{n}", "wrapped": "00"} for n in range(9)]}},
        "a pending group of one": {"pending": {"wrapped": {"any_of": [{"kek": "a:1", "wrapped": "00"}]}, "epoch": 2}},
        "a pending wrapping that is empty": {"pending": {"wrapped": {"kek": "a:1", "wrapped": ""}, "epoch": 2}},
    }.items():
        bad(KEY, how, **members)
    planted = row(KEY, changed(key_body(), made_generation=3))
    vector("A key record made under a later generation than its row's", "tampered", KEY, planted)
    vector("A key record made under a later generation than its row's earlier one", "tampered", KEY, row(KEY, key_body(), 1))
    destroyed = changed(key_body(), state="destroyed", wrapped=None, transitions=[by("destroyed")])
    bad(KEY, "destroyed with a pending wrapping", destroyed, pending={"wrapped": {"kek": "a:1", "wrapped": "00"}, "epoch": 2})
    bad(JOURNAL, "a detail of one", decision__details=[["a"]])
    bad(JOURNAL, "a text of two letters for a detail", decision__details=["ab"])
    bad(JOURNAL, "details left empty", decision__details=[])
    bad(JOURNAL, "keys left empty", decision={"verb": "rotate", "keys": []})
    bad(JOURNAL, "a selector that is null", decision={"verb": "rotate", "selector": None})
    bad(JOURNAL, "a number below 0", number=-1)
    bad(LOG, "another word for what to forget", change__forget="everything")
    bad(LOG, "a tenant of no name", change__tenant="")
    bad(KEK, "shared is null", shared=None)


def nested_wrapping(levels):
    wrapping = {"kek": f"a:{levels}", "wrapped": "00"}
    return {"any_of": [wrapping, nested_wrapping(levels - 1)]} if levels else wrapping


def policy_with(**more):
    order = [
        "keks", "new_key_members", "region", "allowed_regions", "kek_regions", "shared_keks", "scope_fields", "context_rules", "period",
        "rotation", "suite", "cache_ttl_secs", "verify_new_keys", "retention_secs", "contact",
    ]
    policy = policy_body() | more
    return {name: policy[name] for name in order if name in policy}


# --- Rooms --------------------------------------------------------------------

def mark(name, body, bytes_of_row):
    return f"{name} {body.get('incarnation') or body['room']} {body['epoch']} {rows.digest(bytes_of_row)}\n"


def decisions():
    return [
        {"verb": "enroll", "details": [["keks", "local:acme-2025"], ["policy", fixed("policy 1").hex()]]},
        {"verb": "rewrap", "details": [["to", "local:acme-2026"]]},
        {"verb": "revoke", "selector": {"fields": [["channel", "C1"]]}},
    ]


def chain(generations=(1, 2, 2)):
    entries, last = [], None
    for number, (decision, generation) in enumerate(zip(decisions(), generations), 1):
        entries.append(row(JOURNAL, journal_body(number, last, decision), generation))
        last = rows.digest(entries[-1])
    return entries


class Store:
    """A room's key store, as it is meant to be, to be bent."""

    def __init__(self, tenant=None, key=None, tenant_generation=2, key_generation=2, fleet=None, wrapped=True):
        self.entries = chain()
        self.head = {"entries": 3, "last": rows.digest(self.entries[-1])}
        self.tenant = changed(tenant_body(), journal=self.head, **(tenant or {}))
        self.key = changed(key_body(), **(key or {}))
        if wrapped:
            self.key["wrapped"] = wrap(self.key, "acme-2026", DATA_KEY)
        self.room, self.fleet = room_body(), fleet or fleet_body()
        self.hint = {name: self.key[name] for name in ("scope", "period", "state")}
        self.bytes = {
            ("room",): row(ROOM, self.room),
            ("fleet",): row(FLEET, self.fleet),
            ("tenant", "acme"): row(TENANT, self.tenant, tenant_generation),
            ("key", "acme", key_body()["key_id"]): row(KEY, self.key, key_generation),
            **{("journal", "acme", number): entry for number, entry in enumerate(self.entries, 1)},
            ("kek", "local:acme-2026"): row(KEK, kek_body()),
        }
        self.marks = {
            "room": mark("room", self.room, self.bytes[("room",)]),
            "fleet": mark("fleet", self.fleet, self.bytes[("fleet",)]),
            "tenant acme": mark("tenant acme", self.tenant, self.bytes[("tenant", "acme")]),
        }
        self.watermark, self.root_file, self.kek_file, self.text = True, ROOT_FILE, KEK_FILE, lambda text: text

    def marked(self, epoch, digest, life=ACME_LIFE):
        self.marks["tenant acme"] = f"tenant acme {life} {epoch} {digest}\n"
        return self

    def without_mark(self, *names):
        for name in names:
            del self.marks[name]
        return self

    def without_watermark(self):
        self.watermark = False
        return self

    def put(self, name, bytes_of_row):
        if bytes_of_row is None:
            del self.bytes[name]
        else:
            self.bytes[name] = bytes_of_row
        return self

    def expect(self, scenario, believed=True, opens=True, seals=True, journal=True):
        listed = []
        for name, bytes_of_row in self.bytes.items():
            front = 38 if name[0] == "key" else 72
            listed.append({
                "name": list(name), "front": bytes_of_row[:front].hex(), "body": bytes_of_row[front:].decode(),
            } | (self.hint if name[0] == "key" else {}))
        v = {
            "room": NAME,
            "root_file": self.root_file,
            "kek_file": self.kek_file,
            "watermark": self.text("strongroom watermark 1\n" + "".join(self.marks.values())) if self.watermark else None,
            "now": NOW,
            "rows": listed,
            "tenant": "acme",
            "key_id": key_body()["key_id"],
        }
        want = {"believed": believed, "opens": opens, "seals": seals, "journal": journal}
        got = rows.expect_room(v)
        assert got == want, (scenario, got)
        keep("rooms", scenario, v | want)

    def nothing(self, scenario):
        self.expect(scenario, False, False, False, False)


def watermarks():
    before = fixed("acme's row before").hex()
    first = {"epoch": 1, "predecessor": None, "keks": [{"from_epoch": 1, "keks": "local:acme-2026"}]}
    young = {"made_epoch": 1, "wrapped_epoch": 1}
    Store().expect("A room as it is meant to be")
    Store().marked(2, before).expect("The mark names the row's predecessor")
    Store(first, young).without_mark("tenant acme").expect("No mark yet, and the row's first epoch")
    Store().without_mark("tenant acme").nothing("No mark, and a later epoch")
    Store().marked(1, before).nothing("The row is two epochs ahead of its mark")
    Store().marked(2, fixed("another row").hex()).nothing("The next epoch on another predecessor")
    Store().marked(3, fixed("another row").hex()).nothing("The mark's epoch, and another row")
    Store().marked(4, fixed("a later row").hex()).nothing("An earlier epoch than the mark's")
    Store().marked(2, before, "00" * 16).nothing("One ahead of the mark of another incarnation")
    digest = rows.digest(Store().bytes[("tenant", "acme")])
    Store().marked(3, digest, "00" * 16).nothing("The mark's row, but its incarnation another")
    Store().put(("tenant", "acme"), None).nothing("A mark, and the tenant's row is gone")
    Store(tenant_generation=1).expect("An earlier control plane's row that the mark names")
    Store(tenant_generation=1).marked(2, before).nothing("An earlier control plane's row that is one ahead")
    evicted = Store(first, young, tenant_generation=1)
    evicted.without_mark("tenant acme").nothing("An earlier control plane's first row without a mark")
    Store().without_watermark().expect("Without a watermark")
    Store(tenant_generation=1).without_watermark().nothing("Without a watermark, an earlier control plane's row")
    other = Store()
    other.put(("tenant", "acme"), row(TENANT, changed(other.tenant, tenant="globex")))
    other.marked(3, rows.digest(other.bytes[("tenant", "acme")])).nothing("Another tenant's row in the tenant's place")


def rooms():
    first, second = room_body()["generations"]

    def root(how, body, generation=2, fine=False, mark_too=True):
        store = Store()
        store.put(("room",), row(ROOM, body, generation))
        if mark_too:
            store.marks["room"] = mark("room", body, store.bytes[("room",)])
        store.expect(how, fine, fine, fine, fine)

    body = room_body()
    earlier = changed(body, epoch=1, predecessor=None, generations=[first])
    root("The room's row of before, which the mark does not name", earlier, 1, mark_too=False)
    later = Store()
    later.marks["room"] = f"room {LIFE.hex()} 3 {fixed('a later row').hex()}\n"
    later.nothing("The room's row is not the newest")
    root("The room's row signed by the control plane of an earlier generation", body, 1)
    ahead = body | {"predecessor": rows.digest(row(ROOM, earlier, 1))}
    store = Store().put(("room",), row(ROOM, ahead))
    store.marks["room"] = mark("room", earlier, row(ROOM, earlier, 1))
    store.expect("The room's row is one ahead")
    root("A room of another name", body | {"name": "chat-us"})
    other, life = reader(name="chat-us"), LIFE.hex()
    us = copy.deepcopy(body) | {"name": "chat-us"}
    for generation, (row_key, seed) in zip(us["generations"], KEYS):
        for member, purpose, key in (("row_key", "room", row_key), ("control_seed", "control", seed)):
            generation[member] = wrap_under_root(rows.root_context("chat-us", life, generation, purpose), key)
    store = Store().put(("room",), row(ROOM, us, room=other))
    store.marks["room"] = mark("room", us, store.bytes[("room",)])
    store.nothing("A room of another name, root and all")
    root("A room of another incarnation", body | {"incarnation": "00" * 16})
    root("A room without its earlier generation's row key", changed(body, generations__0__row_key=second["row_key"]))
    root("A room whose row key has the purpose of the seed", changed(body, generations__1__row_key=second["control_seed"]))
    root("A room with another public key", changed(body, generations__1__control=first["control"]))
    for what, at in (("room", 1), ("room-incarnation", 2), ("generation", 3), ("control", 4), ("least-row-format", 5)):
        context = rows.root_context(NAME, LIFE.hex(), second, "room")
        context[at][1] = context[at][1] + "0"
        made = wrap_under_root(context, KEYS[1][0])
        root(f"A row key that the root wrapped with another {what}", changed(body, generations__1__row_key=made))
    context = rows.root_context(NAME, LIFE.hex(), second, "room")
    nonce = fixed("nonce under the other version", ref.NONCE_LEN)
    made = ref.local_wrap(ROOT[1], "root", 1, context, KEYS[1][0], nonce).hex()
    root("A row key under an earlier version of the root", changed(body, generations__1__row_key=made), fine=True)
    made = ref.local_wrap(ROOT[2], "acme-2026", 2, context, KEYS[1][0], nonce).hex()
    root("A row key under a KEK of another name", changed(body, generations__1__row_key=made))


    def marks(how, change, fine=False):
        store = Store()
        store.text = change
        store.expect(how, fine, fine, fine, fine)

    marks("A watermark of another heading", lambda text: text.replace("watermark 1", "watermark 2"))
    marks("A watermark whose last line does not end", lambda text: text[:-1])
    marks("A watermark with a line that is blank", lambda text: text + "\n")
    marks("A watermark out of order", lambda text: swap_lines(text, 1, 2))
    marks("A watermark with a mark twice", lambda text: text + text.splitlines(True)[-1])
    marks("A watermark with two blanks", lambda text: text.replace("fleet ", "fleet  "))
    marks("A watermark with a leading zero", lambda text: text.replace(" 1 ", " 01 "))
    marks("A watermark with an epoch above 2^64", lambda text: text + f"log {'0' * 32} {2**64} {'0' * 64}\n")
    marks("A watermark in upper case", lambda text: text.replace(LIFE.hex(), LIFE.hex().upper()))
    marks("A watermark with other tenants", lambda text: text.replace(
        "tenant acme", f"tenant A {'0' * 32} {2**64 - 1} {'0' * 64}\ntenant acme"
    ), fine=True)
    marks("A watermark with a mark of the log", lambda text: text + f"log {LIFE.hex()} 0 {'0' * 64}\n", fine=True)
    marks("A watermark whose tenants are out of order", lambda text: text + f"tenant A {'0' * 32} 1 {'0' * 64}\n")

    def root_file(how, change, fine=False):
        store = Store()
        store.root_file = change(ROOT_FILE)
        assert fine or store.root_file != ROOT_FILE, how
        store.expect(how, fine, fine, fine, fine)

    root_file("A root's file of another format", lambda text: text.replace('"format":1', '"format":2'))
    root_file("A root's file without its line feed", lambda text: text[:-1])
    root_file("A root's file with a blank", lambda text: text.replace(":1", ": 1", 1))
    root_file("A root's file in upper case", lambda text: text.replace(ROOT[1].hex(), ROOT[1].hex().upper()))
    root_file("A root's file with a key of equal bytes", lambda text: text.replace(ROOT[1].hex(), "07" * 32))
    root_file("A root's file with a short key", lambda text: text.replace(ROOT[1].hex(), ROOT[1].hex()[2:]))
    root_file("A root's file with version 0", lambda text: text.replace('"version":1', '"version":0'))
    root_file("A root's file with a version twice", lambda text: text.replace('"version":1', '"version":2'))
    root_file("A root's file out of order", lambda text: text.replace('"version":1', '"version":3'))
    root_file("A root's file with another member", lambda text: text.replace('"versions"', '"more":1,"versions"'))
    root_file("A root's file with its members swapped", lambda text: (
        '{"versions":' + text.split('"versions":')[1][:-2] + ',"format":1,"newest":2}\n'
    ))
    root_file("A root's file without versions", lambda text: '{"format":1,"newest":2,"versions":[]}\n')
    root_file("A root's file whose newest version was cut out", lambda text: text[:text.index(',{"version":2')] + "]}\n")
    root_file("A root's file with a version above its newest", lambda text: text.replace('"newest":2', '"newest":1'))

    def kek_file(how, change):
        store = Store()
        store.kek_file = change(KEK_FILE)
        assert store.kek_file != KEK_FILE, how
        store.nothing(how)

    kek_file("A KEK file without the newest version of a KEK", lambda text: text.replace('"newest": 1', '"newest": 2', 1))
    kek_file("A KEK file with a version above its newest", lambda text: text.replace('"version": 1', '"version": 2', 1))


def swap_lines(text, a, b):
    lines = text.splitlines(True)
    lines[a], lines[b] = lines[b], lines[a]
    return "".join(lines)


def fleets():
    def fleet(body):
        return Store(fleet=body)

    late = {"opens_suspended_until": NOW + 1}
    fleet(fleet_body() | late).expect("The fleet's opening is suspended", opens=False)
    fleet(fleet_body(NOW)).expect("The fleet's opening was suspended until now")
    Store().put(("fleet",), None).without_mark("fleet").expect("The fleet's row is missing", opens=False)
    Store().put(("fleet",), None).expect("The fleet's row is gone that has a mark", opens=False)
    rolled = fleet(fleet_body())
    rolled.marks["fleet"] = f"fleet {LIFE.hex()} 2 {fixed('later').hex()}\n"
    rolled.expect("The fleet's row is not the newest", opens=False)


def journals():
    def acme(number):
        return "journal", "acme", number

    store = Store()
    store.put(acme(2), None).expect("A journal entry is gone", journal=False)
    store = Store()
    one, two, three = store.entries
    store.put(acme(1), two).put(acme(2), one).expect("Two journal entries swapped", journal=False)
    Store().put(acme(2), three).put(acme(3), None).expect("A journal entry dropped and the next one moved up", journal=False)
    Store().put(acme(3), None).expect("The last journal entry is gone", journal=False)
    Store().put(acme(3), two).expect("A journal entry twice", journal=False)
    other = row(JOURNAL, journal_body(3, rows.digest(two), {"verb": "restore"}))
    Store().put(acme(3), other).expect("Another last journal entry than the tenant's row names", journal=False)
    for what, members in {
        "of another tenant": {"tenant": "globex"}, "of another incarnation": {"incarnation": "00" * 16},
        "of another number": {"number": 4}, "of another predecessor": {"previous": "00" * 32},
    }.items():
        # Vouched for, and named as the last one by the tenant's row itself.
        entry = row(JOURNAL, changed(journal_body(3, rows.digest(two)), **members))
        store = Store()
        tenant = changed(store.tenant, journal__last=rows.digest(entry))
        store.put(acme(3), entry).put(("tenant", "acme"), row(TENANT, tenant))
        store.marked(3, rows.digest(store.bytes[("tenant", "acme")]))
        store.expect(f"A last journal entry {what}", journal=False)
    short = Store(tenant={})
    tenant = changed(short.tenant, journal={"entries": 0, "last": None})
    short.put(("tenant", "acme"), row(TENANT, tenant)).marked(3, rows.digest(row(TENANT, tenant)))
    short.expect("An empty journal")


def records():
    def neither(scenario, **store):
        Store(**store).expect(scenario, opens=False, seals=False)

    def only_opens(scenario, **store):
        Store(**store).expect(scenario, seals=False)

    neither("A record of another incarnation", key={"incarnation": "00" * 16})
    neither("A record of another tenant", key={"tenant": "globex"})
    neither("A record of another key id", key={"key_id": "00" * 32})
    neither("A record made at an epoch to come", key={"made_epoch": 4, "wrapped_epoch": 4})
    neither("A record wrapped at an epoch to come", key={"wrapped_epoch": 4})
    neither("A record wrapped for the KEK that was in force before", key={"wrapped_epoch": 1, "made_epoch": 1})
    neither("A record wrapped for a KEK of nobody's", key={"wrapped": wrap(key_body(), "stranger", DATA_KEY)}, wrapped=False)
    early = key_body() | {"made_epoch": 1, "wrapped_epoch": 1, "wrapped": wrap(key_body(), "acme-2025", DATA_KEY)}
    Store(key=early, wrapped=False).expect("A record wrapped for the KEK of its epoch")
    abroad = policy_with(kek_regions={"local:acme-2025": "us-east-1"})
    neither("A KEK of an earlier epoch that is where the tenant does not allow", key=early, tenant={"policy": abroad}, wrapped=False)
    rewrapped = [{"from_epoch": 2, "keks": "local:acme-2026"}]
    neither("A record from before the rewrap that is finished", key=early, tenant={"keks": rewrapped}, wrapped=False)
    pending = {"wrapped": wrap(key_body(), "acme-2026", DATA_KEY), "epoch": 3}
    waits = early | {"pending": pending}
    Store(key=waits, wrapped=False).expect("A pending wrapping for the KEK in force")
    neither("A pending wrapping for a KEK that is not in force", key=waits | {"pending": pending | {"epoch": 1}}, wrapped=False)
    neither("A pending wrapping of an epoch to come", key=waits | {"pending": pending | {"epoch": 4}}, wrapped=False)
    useless = {"kek": "local:acme-2025", "wrapped": "00" * 32}
    Store(key=waits | {"wrapped": useless}, wrapped=False).expect("The pending wrapping opens what the other one does not")
    neither("A wrapping of another key", key={"wrapped": wrap(key_body(), "acme-2026", fixed("another data key"))}, wrapped=False)
    moved = [["tenant", "acme"], ["region", EU], ["purpose", "data-key"], ["suite", "aes-256-gcm"], *SCOPE]
    timeless = wrap(key_body(), "acme-2026", DATA_KEY, context=moved)
    neither("A wrapping without its period", key={"wrapped": timeless}, wrapped=False)

    def expression(keks):
        history = [{"from_epoch": 1, "keks": keks}]
        return {"policy__keks": keks, "keks": history}

    share = fixed("component")
    rest = bytes(a ^ b for a, b in zip(share, DATA_KEY))
    both = "all_of(local:acme-2026, local:second-holder)"

    def split(component):
        return {"all_of": [
            wrap(key_body(), "acme-2026", rest, component), wrap(key_body(), "second-holder", share, component),
        ]}

    def held(scenario, keks, wrapped, fine=True):
        store = Store(tenant=expression(keks), key={"wrapped": wrapped}, wrapped=False)
        store.expect(scenario, opens=fine, seals=fine)

    held("All of two holders", both, split(True))
    held("All of two holders with the purpose of a whole key", both, split(False), fine=False)
    held("All of two holders in another order", both, {"all_of": split(True)["all_of"][::-1]}, fine=False)
    either = "any_of(local:acme-2026, local:second-holder)"
    whole = [wrap(key_body(), kek, DATA_KEY) for kek in ("acme-2026", "second-holder")]
    held("Any of two KEKs", either, {"any_of": whole})
    held("Any of two KEKs, and the first wrapping is another key's", either, {
        "any_of": [wrap(key_body(), "acme-2026", fixed("another data key")), whole[1]],
    })
    held("One KEK's wrapping where the row has any of two", either, whole[0], fine=False)
    held("A KEK of another KMS", "elsewhere:acme-2026", whole[0] | {"kek": "elsewhere:acme-2026"}, fine=False)
    held("A KEK that the KMS does not have", "local:gone", whole[0] | {"kek": "local:gone"}, fine=False)
    held("All of where the row has any of", either, split(True), fine=False)
    nested = "any_of(local:stranger, all_of(local:acme-2026, local:second-holder))"
    held("A group in a group", nested, {"any_of": [{"kek": "local:stranger", "wrapped": "00"}, split(True)]})
    deeper = "all_of(local:stranger, any_of(local:acme-2026, local:second-holder))"
    held("Any of within all of has the purpose of a component", deeper, {"all_of": [
        wrap(key_body(), "stranger", rest, True),
        {"any_of": [wrap(key_body(), "acme-2026", share, True), wrap(key_body(), "second-holder", share, True)]},
    ]})

    def left_out(scenario, keks, members, wrapped, fine=True):
        policy = policy_with(keks=keks, new_key_members=members)
        row = {"policy": policy, "keks": [{"from_epoch": 1, "keks": keks, "new_key_members": members}]}
        Store(tenant=row, key={"wrapped": wrapped}, wrapped=False).expect(scenario, opens=fine, seals=fine)

    three = "any_of(local:acme-2026, local:stranger, local:second-holder)"
    strange = wrap(key_body(), "stranger", DATA_KEY)
    left_out("One member of two where a new key needs one", either, 1, whole[0])
    left_out("The other member of two where a new key needs one", either, 1, whole[1])
    left_out("One member of two where a new key needs two", either, 2, whole[0], fine=False)
    left_out("Both members where a new key needs eight", either, 8, {"any_of": whole})
    left_out("One KEK that is no member where a new key needs one", either, 1, strange, fine=False)
    left_out("The first and the last member of three", three, 2, {"any_of": whole})
    left_out("Two members of three in another order", three, 2, {"any_of": whole[::-1]}, fine=False)
    left_out("One member of three where a new key needs two", three, 2, whole[0], fine=False)
    left_out("A part of a group of which all are needed", both, 1, wrap(key_body(), "acme-2026", DATA_KEY), fine=False)
    left_out("A group within all of of which one member is left", deeper, 1, {"all_of": [
        wrap(key_body(), "stranger", rest, True), wrap(key_body(), "second-holder", share, True),
    ]})
    left_out("A group in a group in the place of both", nested, 1, split(True))
    late = {"wrapped": whole[0], "epoch": 3}
    history = [{"from_epoch": 1, "keks": "local:acme-2025"}, {"from_epoch": 2, "keks": either, "new_key_members": 1}]
    row = {"policy": policy_with(keks=either, new_key_members=1), "keks": history}
    neither("A pending wrapping that leaves a member out", key=early | {"pending": late}, tenant=row, wrapped=False)
    history = [{"from_epoch": 1, "keks": either, "new_key_members": 1}, {"from_epoch": 3, "keks": either}]
    row = {"policy": policy_with(keks=either), "keks": history}
    Store(tenant=row, key={"wrapped": whole[0], "made_epoch": 2, "wrapped_epoch": 2}, wrapped=False).expect(
        "One member of two of an epoch at which one was enough"
    )
    neither("One member of two of an epoch at which it was not", key={"wrapped": whole[0], "made_epoch": 3, "wrapped_epoch": 3}, tenant=row, wrapped=False)

    us = {"region": "us-east-1"}
    neither("A record of a region that is not allowed", key=us)
    allowing = {"policy": policy_with(allowed_regions=["us-east-1"])}
    far = {"policy": policy_with(region="eu-west-9")}
    neither("A home region that is not served", key={"region": "eu-west-9"}, tenant=far)
    other_key = fixed("another data key")
    strange = {"key_id": ref.derive(other_key, 1, "key-id").hex(), "wrapped": wrap(key_body(), "acme-2026", other_key)}
    neither("Another key's record under this key's name", key=strange, wrapped=False)
    only_opens("A record of a region that is allowed beside the home", key=us, tenant=allowing)
    elsewhere = {"policy": policy_with(allowed_regions=["eu-west-9"])}
    neither("A record of a region that is allowed and not served", key={"region": "eu-west-9"}, tenant=elsewhere)

    channel, other = {"fields": [["channel", "C9"]]}, {"fields": [["channel", "C8"]]}
    late = {"from": "hour=2026-11-22T06Z"}
    for scenario, selector, covered in (
        ("everything", {"everything": True}, True),
        ("nothing", {}, False),
        ("its channel", channel, True),
        ("another channel", other, False),
        ("its channel in another workspace", {"fields": [["channel", "C9"], ["workspace", "W2"]]}, False),
        ("its hour", {"fields": [["hour", "2026-11-22T05Z"]]}, True),
        ("another hour", {"fields": [["hour", "2026-11-22T06Z"]]}, False),
        ("periods up to its own", {"to": HOUR}, True),
        ("periods before its own", {"to": "hour=2026-11-22T04Z"}, False),
        ("periods from its own", {"from": HOUR}, True),
        ("periods after its own", late, False),
        ("days", {"from": "day=2026-11-01"}, False),
        ("its id", {"keys": [key_body()["key_id"]]}, True),
        ("another id", {"keys": [IDS[0]]}, False),
        ("no ids", {"keys": []}, False),
        ("everything after its own period", {"everything": True} | late, False),
    ):
        store = Store(tenant={"revocations": [{"selector": selector, "since": 1}]})
        store.expect(f"Revoked: {scenario}", opens=not covered, seals=not covered)
    for period, of_now in (("day", "day=2026-11-22"), ("month", "month=2026-11")):
        Store(tenant={"policy__period": period}, key={"period": of_now}).expect(f"A key of a {period}")
    timeless = policy_with(period="none")
    for selector in ({"from": HOURS[0]}, {"to": HOURS[23]}, {"fields": [["hour", "2026-11-22T05Z"]]}):
        store = Store(tenant={"policy": timeless, "revocations": [{"selector": selector, "since": 1}]}, key={"period": None})
        store.expect(f"A key without a period, revoked by {list(selector)[0]}")
    waiting = {"id": "00" * 8, "selector": channel, "requested_at": 1, "due_at": NOW + 1}
    neither("An erasure that waits", tenant={"erasures": [waiting]})
    neither("Erased by a floor", tenant={"erased": [{"selector": channel, "before": 3}]})
    Store(tenant={"erased": [{"selector": channel, "before": 2}]}).expect("Made at the epoch of a floor of erased keys")
    elsewhere = [{"selector": other, "before": 3}]
    Store(tenant={"erased": elsewhere, "compromised": elsewhere}).expect("Floors of another channel")
    only_opens("Given up after a compromise", tenant={"compromised": [{"selector": channel, "before": 3}]})
    Store(tenant={"compromised": [{"selector": channel, "before": 2}]}).expect("Made at the epoch of a floor of compromised keys")
    floored = {"compromised": [{"selector": channel, "before": 3}]}
    only_opens("Rewrapped after it was given up", key={"wrapped_epoch": 3}, tenant=floored)
    suspension = {"selector": channel, "since": 1, "until": NOW + 1}
    Store(tenant={"suspensions": [suspension]}).expect("Opening is suspended", opens=False)
    Store(tenant={"suspensions": [suspension | {"until": NOW}]}).expect("Opening was suspended until now")
    Store(tenant={"suspensions": [suspension | {"selector": other}]}).expect("Opening of another channel is suspended")

    for state in ("deactivated", "compromised", "suspended", "destroyed"):
        gone = {"wrapped": None} if state == "destroyed" else {}
        members = gone | {"state": state, "transitions": [by(), by(state)]}
        store = Store(key=members, wrapped=state != "destroyed")
        store.expect(f"A key that is {state}", opens=state in ("deactivated", "compromised"), seals=False)
        store = Store(key=members, wrapped=state != "destroyed")
        store.hint["state"] = "active"
        store.expect(f"A key that is {state} and listed as active", opens=state in ("deactivated", "compromised"), seals=False)
    only_opens("A key made under an earlier generation", key={"made_generation": 1})
    only_opens("A key of an earlier generation, row and all", key={"made_generation": 1}, key_generation=1)
    neither("An evicted node's record that claims the newest generation", key_generation=1)
    only_opens("A key that is too old", key={"created_at": NOW - 7_776_000_000})
    Store(key={"created_at": NOW - 7_775_999_999}).expect("A key that is just not too old")
    only_opens("A key of the hour before", key={"period": HOURS[4]})
    misplaced = Store(key={"period": HOURS[4]})
    misplaced.hint["period"] = HOUR
    misplaced.expect("A key of the hour before, listed under this one", seals=False)
    misplaced = Store()
    misplaced.hint["state"] = "deactivated"
    misplaced.expect("An active key that is listed as deactivated", seals=False)
    misplaced = Store()
    misplaced.hint["scope"] = [["channel", "C8"], ["workspace", "W1"]]
    misplaced.expect("A key listed under another channel", seals=False)
    only_opens("A key of the time before periods", key={"period": None})
    only_opens("The policy's suite is another one", tenant={"policy__suite": "chacha20-poly1305"})
    only_opens("The policy's context rules are other ones", tenant={"policy__context_rules__files": "at_least_one"})
    only_opens("The record's context rules are other ones", key={"context_rules": {"messages": "unbound", "files": ["file"]}})
    only_opens("The policy's home is another one", tenant={"policy": policy_with(region="us-east-1", allowed_regions=[EU])})


def main(args):
    every_kind()
    consents()
    straying_writers()
    trusted_stores()
    rich_bodies()
    bodies_that_cannot_be()
    watermarks()
    rooms()
    fleets()
    journals()
    records()

    on_disk = {path: path.read_text("utf-8") for path in OUT.glob("**/*.json")}
    differing = sorted(path for path in files.keys() | on_disk.keys() if files.get(path) != on_disk.get(path))
    if args == ["--check"]:
        for path in differing:
            how = "differs:" if path in files and path in on_disk else "missing:" if path in files else "stray:"
            print(how, path.relative_to(OUT))
        print(f"{len(files)} scenarios, {len(differing)} files differ")
        return 1 if differing else 0
    if args:
        sys.exit(__doc__)
    (OUT / "rooms").mkdir(parents=True, exist_ok=True)
    for path in differing:
        if path in files:
            path.write_text(files[path], "utf-8", newline="\n")
        else:
            path.unlink()  # a scenario that was renamed or dropped
    print(f"{len(files)} scenarios, {len(differing)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
