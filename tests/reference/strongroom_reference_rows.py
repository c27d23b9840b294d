"""Reference implementation of what a key store keeps (FORMAT.md, section 11): rows, the watermark, the local root.

Written from FORMAT.md, so that the crate and it check each other. For checking, not for production.

    python strongroom_reference_rows.py               one JSON request a line on stdin, one JSON answer a line on stdout
    python strongroom_reference_rows.py --self-test   every vector of tests/vectors/rows/
"""

import hashlib
import hmac
import json
import re
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import strongroom_reference as ref

LABEL = b"strongroom/v1/row"
VERSION = 1
ROOM, FLEET, TENANT, KEY, JOURNAL, KEK, LOG = range(1, 8)
SIGNED = (ROOM, FLEET, TENANT, JOURNAL, KEK, LOG)  # all but key records
TAG_LEN, SIGNATURE_LEN = 32, 64
MAX_GENERATIONS, ROW_FORMAT = 1000, 1


class Tampered(Exception):
    """Nobody of the room vouches for the row."""


class Malformed(Exception):
    """The row is vouched for and does not read."""


class Refused(Exception):
    """The row reads, and may not be used so."""


def need(condition, what="", error=Malformed):
    if not condition:
        raise error(what)


# --- Rows ---------------------------------------------------------------------

class Room:
    """A reader's room: its name, incarnation and, for each generation, row key and the control plane's public key. A
    reader that trusts its store has none of them."""

    def __init__(self, name=None, incarnation=None, generations=()):
        self.name, self.incarnation, self.generations = name, incarnation, list(generations)

    def authenticated(self, kind, generation, body):
        name = self.name.encode()
        head = LABEL + bytes([len(name)]) + name + self.incarnation
        return head + bytes([VERSION, kind]) + struct.pack(">I", generation) + body

    def tag(self, row_key, kind, generation, body):
        return hmac.digest(row_key, self.authenticated(kind, generation, body), "sha512")[:TAG_LEN]


def parse_frame(kind, row):
    """(generation, tag or signature, consent, body)"""
    need(len(row) >= 6 and row[0] == VERSION and row[1] == kind, "frame", Tampered)
    (generation,) = struct.unpack(">I", row[2:6])
    if kind not in SIGNED:
        need(len(row) >= 6 + TAG_LEN, "frame", Tampered)
        return generation, row[6 : 6 + TAG_LEN], b"", row[6 + TAG_LEN :]
    at = 6 + SIGNATURE_LEN + 2
    need(len(row) >= at, "frame", Tampered)
    (length,) = struct.unpack(">H", row[at - 2 : at])
    need(len(row) >= at + length, "consent", Tampered)
    return generation, row[6 : at - 2], row[at : at + length], row[at + length :]


def build_frame(kind, generation, authenticator, body):
    consent = struct.pack(">H", 0) if kind in SIGNED else b""
    return bytes([VERSION, kind]) + struct.pack(">I", generation) + authenticator + consent + body


def verify_row(room, kind, row):
    """(body's value, generation, digest), or Tampered or Malformed."""
    generation, authenticator, consent, body = parse_frame(kind, row)
    need(consent == b"", "consent", Tampered)
    if not room.generations:
        need(generation == 0 and authenticator == bytes(len(authenticator)), "not of a trusted store", Tampered)
        return read_body(kind, body, generation), generation, digest(row)
    need(1 <= generation <= len(room.generations), "generation", Tampered)
    row_key, control = room.generations[generation - 1]
    if kind in SIGNED:
        try:
            message = room.authenticated(kind, generation, body)
            Ed25519PublicKey.from_public_bytes(control).verify(authenticator, message)
        except InvalidSignature:
            raise Tampered("signature") from None
    else:
        need(hmac.compare_digest(room.tag(row_key, kind, generation, body), authenticator), "tag", Tampered)
    return read_body(kind, body, generation), generation, digest(row)


def make_row(room, kind, generation, keys, body):
    """A row of `body`, bytes. `keys` are a row key and a control seed; None where the store is trusted."""
    if keys is None:
        return build_frame(kind, 0, bytes(SIGNATURE_LEN if kind in SIGNED else TAG_LEN), body)
    row_key, seed = keys
    if kind in SIGNED:
        message = room.authenticated(kind, generation, body)
        return build_frame(kind, generation, Ed25519PrivateKey.from_private_bytes(seed).sign(message), body)
    return build_frame(kind, generation, room.tag(row_key, kind, generation, body), body)


def digest(row):
    return hashlib.sha256(row).hexdigest()


def public_key(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


# --- Bodies: one spelling -----------------------------------------------------

def spelled(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def parse_json(text):
    def members(pairs):
        need(len({name for name, _ in pairs}) == len(pairs), "a member twice")
        return dict(pairs)

    def none(text):
        raise Malformed(f"no integer: {text}")

    try:
        return json.loads(text.decode(), object_pairs_hook=members, parse_float=none, parse_constant=none)
    except (ValueError, RecursionError):
        raise Malformed("JSON") from None


def is_spelled(value, text):
    try:
        return spelled(value) == text
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def read_body(kind, body, generation):
    value = parse_json(body)
    BODIES[kind](value)
    need(is_spelled(value, body), "another spelling")
    CHECKS[kind](value, generation)
    return value


def integer(low, high):
    def check(value):
        need(type(value) is int and low <= value <= high, "integer")

    return check


def text(pattern):
    compiled = re.compile(pattern)

    def check(value):
        need(type(value) is str and compiled.fullmatch(value), pattern)

    return check


def one_of(*values):
    return lambda value: need(type(value) is str and value in values, "another word")


def either(value):
    need(type(value) is bool, "boolean")


def or_null(check):
    return lambda value: None if value is None else check(value)


def list_of(check, least=0, most=None):
    def check_all(value):
        need(type(value) is list and len(value) >= least and (most is None or len(value) <= most), "list")
        for item in value:
            check(item)

    return check_all


def pair(value):
    need(type(value) is list and len(value) == 2, "pair")
    anything(value[0])
    anything(value[1])


def ascending(key, strictly=False):
    def check(value):
        keys = [key(item) for item in value]
        need(all(a < b or (a == b and not strictly) for a, b in zip(keys, keys[1:])), "order")

    return check


def both(*checks):
    def check_each(value):
        for check in checks:
            check(value)

    return check_each


ALWAYS = object()


class Members:
    """An object of a table: (name, type, what stands for a member that is left out, or ALWAYS)."""

    def __init__(self, *table):
        self.table = [row if len(row) == 3 else (*row, ALWAYS) for row in table]

    def __call__(self, value):
        need(type(value) is dict, "object")
        expected = [name for name, _, absent in self.table if absent is ALWAYS or name in value]
        need(list(value) == expected, "members")
        for name, check, absent in self.table:
            if name in value:
                check(value[name])
                need(absent is ALWAYS or value[name] != absent, "to be left out")


anything = text(r"(?s).*")
count = epoch = integer(0, 2**64 - 1)
number4 = integer(0, 2**32 - 1)
time = integer(-(2**63), 2**63 - 1)
tenant = text(r"[A-Za-z0-9._:@-]{1,64}")
region = text(r"[a-z0-9-]{1,32}")
room_name = text(r"[a-z0-9-]{1,64}")
incarnation = text(r"[0-9a-f]{32}")
digest_text = key_id = text(r"[0-9a-f]{64}")
hexadecimal = text(r"(?:[0-9a-f]{2})*")
KEK_PATTERN = r"[a-z0-9-]{1,16}:[!-~]{1,512}"
suite = one_of("aes-256-gcm", "chacha20-poly1305")
period = text(r"month=[0-9]{4}-[0-9]{2}|day=[0-9]{4}-[0-9]{2}-[0-9]{2}|hour=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}Z")
state = one_of("active", "deactivated", "compromised", "suspended", "destroyed")


def kek(value):
    text(KEK_PATTERN)(value)
    need(not set(value) & set("(),"), "KEK")


def parse_expression(value):
    """A KEK, or ("any_of" or "all_of", [...])."""
    need(type(value) is str, "KEKs")
    tokens, at = re.findall(r"any_of\(|all_of\(|\)|, |[^(), ]+", value), 0
    need("".join(tokens) == value, "KEKs")

    def one(depth):
        nonlocal at
        need(at < len(tokens), "KEKs")
        token, at = tokens[at], at + 1
        if token not in ("any_of(", "all_of("):
            kek(token)
            return token
        need(depth < 3, "levels")
        members = [one(depth + 1)]
        while at < len(tokens) and tokens[at] == ", ":
            at += 1
            members.append(one(depth + 1))
        need(at < len(tokens) and tokens[at] == ")" and len(members) >= 2, "KEKs")
        at += 1
        return token[:-1], members

    parsed = one(0)
    need(at == len(tokens), "KEKs")
    named = list(keks_of(parsed))
    need(len(named) <= 8 and len(set(named)) == len(named), "KEKs")
    return parsed


def keks_of(expression):
    if isinstance(expression, str):
        yield expression
    else:
        for member in expression[1]:
            yield from keks_of(member)


def show(expression):
    if isinstance(expression, str):
        return expression
    return f"{expression[0]}({', '.join(map(show, expression[1]))})"


def is_part_of(part, whole, members):
    """Whether `whole` is wrapped for but for members of its any_of that did not answer: at least `members` of each stay."""
    if members is None or isinstance(whole, str):
        return part == whole
    word, of = whole
    least = min(members, len(of))
    if word == "all_of":
        return (
            not isinstance(part, str) and part[0] == "all_of" and len(part[1]) == len(of)
            and all(is_part_of(*pair, members) for pair in zip(part[1], of))
        )
    if not isinstance(part, str) and part[0] == "any_of" and len(part[1]) >= least:
        left = iter(of)
        if all(any(is_part_of(one, other, members) for other in left) for one in part[1]):
            return True
    return least == 1 and any(is_part_of(part, one, members) for one in of)


def wrapped_key(value):
    need(type(value) is dict, "wrapped key")
    if list(value) == ["kek", "wrapped"]:
        kek(value["kek"])
        hexadecimal(value["wrapped"])
        need(1 <= len(value["wrapped"]) // 2 <= 6144, "wrapped length")
    else:
        need(list(value) in (["any_of"], ["all_of"]), "wrapped key")
        (members,) = value.values()
        list_of(wrapped_key)(members)


def expression_of(wrapped):
    if "kek" in wrapped:
        return wrapped["kek"]
    ((word, members),) = wrapped.items()
    return word, [expression_of(member) for member in members]


selector = Members(
    ("everything", either, False),
    ("fields", both(list_of(pair), ascending(lambda p: (p[0].encode(), p[1].encode()))), []),
    ("from", period, None),
    ("to", period, None),
    ("keys", both(list_of(key_id), ascending(lambda id: id)), None),
)
floor = Members(("selector", selector), ("before", epoch))
generation = Members(
    ("generation", number4),
    ("least_row_format", number4),
    ("control", digest_text),
    ("row_key", hexadecimal),
    ("control_seed", hexadecimal),
)
kek_regions = both(
    lambda value: need(type(value) is dict, "object"),
    lambda value: [both(kek, lambda _: region(value[name]))(name) for name in value],
    lambda value: ascending(str.encode)(list(value)),
)
required_fields = lambda value: (
    list_of(anything, least=1, most=8) if type(value) is list else one_of("at_least_one", "unbound")
)(value)
context_rules = Members(("messages", required_fields), ("files", required_fields))
members = integer(1, 8)
policy = Members(
    ("keks", parse_expression),
    ("new_key_members", members, None),
    ("region", region),
    ("allowed_regions", both(list_of(region, most=16), ascending(str.encode, strictly=True)), []),
    ("kek_regions", kek_regions, {}),
    ("shared_keks", both(list_of(kek), ascending(str.encode, strictly=True)), []),
    ("scope_fields", list_of(anything, most=8)),
    ("context_rules", context_rules),
    ("period", one_of("none", "month", "day", "hour")),
    ("rotation", Members(("max_age_secs", integer(1, 2**64 - 1)), ("max_messages", integer(1, 2**40)))),
    ("suite", suite),
    ("cache_ttl_secs", integer(1, 86_400)),
    ("verify_new_keys", either),
    ("retention_secs", integer(1, 2**64 - 1), None),
    ("contact", text(r"[^\x00-\x1f\x7f-\x9f]+"), None),
)
tenant_row = Members(
    ("tenant", tenant),
    ("incarnation", incarnation),
    ("epoch", epoch),
    ("predecessor", or_null(digest_text)),
    ("enrolled_at", time),
    ("policy", policy),
    ("revocations", list_of(Members(("selector", selector), ("since", time)), most=1000)),
    ("suspensions", list_of(Members(("selector", selector), ("since", time), ("until", time)), most=1000)),
    ("erasures", list_of(Members(
        ("id", anything),
        ("selector", selector),
        ("requested_at", time),
        ("due_at", time),
        ("carried_out_since", time, None),
    ), most=1000)),
    ("rewrap", or_null(Members(("to", parse_expression), ("epoch", epoch), ("since", time)))),
    ("keks", list_of(
        Members(("from_epoch", epoch), ("keks", parse_expression), ("new_key_members", members, None)), least=1, most=64
    )),
    ("erased", list_of(floor, most=10_000)),
    ("compromised", list_of(floor, most=10_000)),
    ("exports", list_of(Members(
        ("kek", kek), ("foreign", either), ("first_at", time), ("last_at", time), ("upto_epoch", epoch)
    ), most=100)),
    ("journal", Members(("entries", count), ("last", or_null(digest_text)))),
)
key_record = Members(
    ("tenant", tenant),
    ("incarnation", incarnation),
    ("key_id", key_id),
    ("suite", suite),
    ("scope", list_of(pair)),
    ("period", or_null(period)),
    ("region", region),
    ("context_rules", context_rules),
    ("state", state),
    ("state_since", time),
    ("wrapped", or_null(wrapped_key)),
    ("pending", or_null(Members(("wrapped", wrapped_key), ("epoch", epoch)))),
    ("wrapped_epoch", epoch),
    ("made_epoch", epoch),
    ("made_generation", number4),
    ("created_at", time),
    ("transitions", list_of(Members(
        ("state", state), ("at", time), ("actor", anything), ("reason", anything)
    ), least=1, most=16)),
)
BODIES = {
    ROOM: Members(
        ("name", room_name),
        ("incarnation", incarnation),
        ("epoch", epoch),
        ("predecessor", or_null(digest_text)),
        ("created_at", time),
        ("generations", list_of(generation, least=1, most=MAX_GENERATIONS)),
    ),
    FLEET: Members(
        ("room", incarnation),
        ("epoch", epoch),
        ("predecessor", or_null(digest_text)),
        ("opens_suspended_until", or_null(time)),
        ("actor", anything),
        ("reason", anything),
        ("at", time),
    ),
    TENANT: tenant_row,
    KEY: key_record,
    JOURNAL: Members(
        ("tenant", tenant),
        ("incarnation", incarnation),
        ("number", count),
        ("previous", or_null(digest_text)),
        ("epoch", epoch),
        ("at", time),
        ("actor", anything),
        ("reason", anything),
        ("decision", Members(
            ("verb", anything), ("details", list_of(pair), []), ("selector", selector, None), ("keys", list_of(key_id), [])
        )),
    ),
    KEK: Members(("kek", anything), ("tenant", anything), ("shared", either)),
    LOG: Members(
        ("number", count),
        ("change", Members(
            ("tenant", or_null(tenant)), ("selector", selector), ("forget", one_of("nothing", "sealing", "keys"))
        )),
    ),
}


# --- Bodies: what else their tables say ---------------------------------------

def check_versioned(row, _=None):
    need(row["epoch"] >= 1 and (row["epoch"] == 1) == (row["predecessor"] is None), "epoch and predecessor")


def check_room(row, _):
    check_versioned(row)
    numbers = [it["generation"] for it in row["generations"]]
    need(numbers == list(range(1, row["epoch"] + 1)), "generations")
    need(all(it["least_row_format"] <= ROW_FORMAT for it in row["generations"]), "a later version's")


def check_scope_names(names):
    need(len(names) <= 8 and len(set(names)) == len(names), "scope fields")
    for name in names:
        need(re.fullmatch(r"[a-z0-9_-]{1,32}", name), "scope field")
        own = ("tenant", "region", "purpose", "suite", "month", "day", "hour")
        need(name not in own and not name.startswith("aws"), "scope field")


def check_context_rules(rules, scope_names):
    for names in rules.values():
        if type(names) is list:
            need(all(1 <= len(name.encode()) <= 64 and name not in scope_names for name in names), "required field")
            ascending(str.encode, strictly=True)(names)


def kek_region(policy, uri):
    parts = uri.split(":", 1)[1].split(":")
    if len(parts) > 3 and parts[0] == "arn" and re.fullmatch(r"[a-z0-9-]{1,32}", parts[3]):
        return parts[3]
    return policy.get("kek_regions", {}).get(uri)


def allows(policy, name):
    return name == policy["region"] or name in policy.get("allowed_regions", [])


def kek_allowed(policy, uri):
    stated = kek_region(policy, uri)
    return stated is None or allows(policy, stated)


def check_tenant(row, _):
    check_versioned(row)
    policy = row["policy"]
    check_scope_names(policy["scope_fields"])
    check_context_rules(policy["context_rules"], policy["scope_fields"])
    need(all(kek_allowed(policy, uri) for uri in keks_of(parse_expression(policy["keks"]))), "region of a KEK")
    need("retention_secs" not in policy or policy["period"] != "none", "retention")
    need(len(policy.get("contact", "").encode()) <= 200, "contact")
    epochs = [it["from_epoch"] for it in row["keks"]]
    need(epochs[0] >= 1 and all(a < b for a, b in zip(epochs, epochs[1:])) and epochs[-1] <= row["epoch"], "history")
    present = row["rewrap"]["to"] if row["rewrap"] else policy["keks"]
    need(row["keks"][-1]["keks"] == present, "history")
    need(row["keks"][-1].get("new_key_members") == policy.get("new_key_members"), "history")


def check_key(row, generation):
    destroyed = row["state"] == "destroyed"
    need((row["wrapped"] is None) == destroyed and not (destroyed and row["pending"]), "wrapping")
    need(1 <= row["made_epoch"] <= row["wrapped_epoch"], "epochs")
    need(row["made_generation"] <= generation, "made under a later generation than its row's", Tampered)
    last = row["transitions"][-1]
    need((last["state"], last["at"]) == (row["state"], row["state_since"]), "transitions")
    check_scope_names([name for name, _ in row["scope"]])
    check_context_rules(row["context_rules"], [name for name, _ in row["scope"]])
    ascending(lambda p: p[0].encode())(row["scope"])
    need(all(1 <= len(value.encode()) <= 512 for _, value in row["scope"]), "scope value")
    need(len(ref.encode_pairs(row["scope"])) <= 512, "canonical scope")
    for wrapped in filter(None, (row["wrapped"], row["pending"] and row["pending"]["wrapped"])):
        parse_expression(show(expression_of(wrapped)))


def nothing_more(row, _):
    pass


CHECKS = {ROOM: check_room, FLEET: check_versioned, TENANT: check_tenant, KEY: check_key}
CHECKS |= {kind: nothing_more for kind in (JOURNAL, KEK, LOG)}


# --- The watermark ------------------------------------------------------------

def parse_marks(marks):
    """Subject, such as ("tenant", "acme") or ("log",), to (incarnation, epoch, digest)."""
    lines = marks.split("\n")
    need(lines[0] == "strongroom watermark 1" and lines[-1] == "", "heading")
    line = re.compile(r"(room|fleet|tenant [A-Za-z0-9._:@-]{1,64}|log) ([0-9a-f]{32}) (0|[1-9][0-9]*) ([0-9a-f]{64})")
    found, order = {}, []
    for each in lines[1:-1]:
        match = line.fullmatch(each)
        need(match and int(match[3]) < 2**64, "mark")
        subject = tuple(match[1].split(" "))
        found[subject] = (match[2], int(match[3]), match[4])
        order.append((["room", "fleet", "tenant", "log"].index(subject[0]), subject))
    need(all(a < b for a, b in zip(order, order[1:])), "order")
    return found


def verdict(row, row_digest, mark):
    own = row.get("incarnation") or row["room"]
    if mark is None:
        return "one ahead" if row["epoch"] == 1 else "further ahead"
    if mark == (own, row["epoch"], row_digest):
        return "named"
    if mark[0] == own and row["epoch"] == mark[1] + 1 and row["predecessor"] == mark[2]:
        return "one ahead"
    if mark[0] == own and row["epoch"] > mark[1] + 1:
        return "further ahead"
    return "rolled back"


# --- A whole room -------------------------------------------------------------

def root_unwrap(root_file, context, wrapped):
    value = parse_json(root_file.encode())
    versions = Members(("version", integer(1, 2**32 - 1)), ("key", digest_text))
    Members(("format", integer(1, 1)), ("newest", integer(1, 2**32 - 1)), ("versions", list_of(versions, least=1)))(value)
    ascending(lambda it: it["version"], strictly=True)(value["versions"])
    need(spelled(value) + b"\n" == root_file.encode(), "the root's file")
    need(value["versions"][-1]["version"] == value["newest"], "the root's newest version is not there")
    keys = {it["version"]: bytes.fromhex(it["key"]) for it in value["versions"]}
    need(all(len(set(key)) > 1 for key in keys.values()), "a key of equal bytes")
    return unwrap_local(keys, "root", context, wrapped)


def unwrap_local(keys, name, context, wrapped):
    version = int.from_bytes(wrapped[1:5], "big")
    need(version in keys, "no such version", ref.Unopenable)
    return ref.local_unwrap(keys[version], name, context, wrapped)


def root_context(room, life, generation, purpose):
    return [
        ["purpose", purpose],
        ["room", room],
        ["room-incarnation", life],
        ["generation", str(generation["generation"])],
        ["control", generation["control"]],
        ["least-row-format", str(generation["least_row_format"])],
    ]


def key_context(record, component=False):
    context = [
        ["tenant", record["tenant"]],
        ["region", record["region"]],
        ["purpose", "data-key-component" if component else "data-key"],
        ["suite", record["suite"]],
        *record["scope"],
    ]
    return context + ([record["period"].split("=")] if record["period"] else [])


class World:
    """What a vector of rooms/ holds, and what a process makes of it."""

    def __init__(self, v):
        self.v = v
        self.rows = {tuple(row["name"]): bytes.fromhex(row["front"]) + row["body"].encode() for row in v["rows"]}
        self.hints = {tuple(row["name"]): row for row in v["rows"] if row["name"][0] == "key"}
        self.marks = None if v["watermark"] is None else parse_marks(v["watermark"])
        file = json.loads(v["kek_file"])
        for kek in file["keks"]:
            need(max(it["version"] for it in kek["versions"]) == kek["newest"], "a KEK's newest version is not there")
        self.keks = {
            kek["name"]: {it["version"]: bytes.fromhex(it["key"]) for it in kek["versions"]} for kek in file["keks"]
        }
        self.room = self.open_room()

    def open_room(self):
        row = self.rows[("room",)]
        body = read_body(ROOM, parse_frame(ROOM, row)[3], 0)
        need(body["name"] == self.v["room"], "another room", Refused)
        generations = []
        for generation in body["generations"]:
            context = root_context(body["name"], body["incarnation"], generation, "room")
            row_key = root_unwrap(self.v["root_file"], context, bytes.fromhex(generation["row_key"]))
            generations.append((row_key, bytes.fromhex(generation["control"])))
        room = Room(body["name"], bytes.fromhex(body["incarnation"]), generations)
        body, generation, row_digest = verify_row(room, ROOM, row)
        need(generation == len(generations), "not of its newest generation", Tampered)
        if self.marks is not None:
            need(verdict(body, row_digest, self.marks.get(("room",))) in ("named", "one ahead"), "room", Refused)
        return room

    def check_seeds(self):
        """What a control plane does before it signs, for every generation."""
        body, _, _ = verify_row(self.room, ROOM, self.rows[("room",)])
        for generation in body["generations"]:
            context = root_context(body["name"], body["incarnation"], generation, "control")
            seed = root_unwrap(self.v["root_file"], context, bytes.fromhex(generation["control_seed"]))
            need(public_key(seed).hex() == generation["control"], "control", Refused)

    def believed(self, kind, name):
        row = self.rows.get(name)
        mark = self.marks and self.marks.get(name)
        need(row is not None, "missing", Refused)
        body, generation, row_digest = verify_row(self.room, kind, row)
        held = "one ahead" if self.marks is None else verdict(body, row_digest, mark)
        need(held in ("named", "one ahead"), held, Refused)
        need(held == "named" or generation == len(self.room.generations), "of an earlier generation", Refused)
        return body

    def tenant(self):
        row = self.believed(TENANT, ("tenant", self.v["tenant"]))
        need(row["tenant"] == self.v["tenant"], "another tenant's", Refused)
        return row

    def record(self, row):
        """The record of the key in question, which belongs under the tenant's row."""
        name = ("key", self.v["tenant"], self.v["key_id"])
        record, _, _ = verify_row(self.room, KEY, self.rows[name])
        need((record["tenant"], record["key_id"]) == name[1:], "another key's", Refused)
        need((record["tenant"], record["incarnation"]) == (row["tenant"], row["incarnation"]), "incarnation", Refused)
        made = [(record["wrapped"], record["wrapped_epoch"], True)]
        if record["pending"]:
            made.append((record["pending"]["wrapped"], record["pending"]["epoch"], False))
        for wrapped, at, is_new in made:
            need(at <= row["epoch"], "a later epoch", Refused)
            if wrapped:
                in_force = [it for it in row["keks"] if it["from_epoch"] <= at][-1:]
                members = [it.get("new_key_members") if is_new else None for it in in_force]
                need(in_force, "not in force", Refused)
                whole = parse_expression(in_force[0]["keks"])
                need(is_part_of(expression_of(wrapped), whole, members[0]), "not in force", Refused)
        return record  # made_epoch is at most wrapped_epoch

    def unwrap(self, row, record):
        for wrapped in (record["wrapped"], record["pending"] and record["pending"]["wrapped"]):
            for data_key in self.combinations(row, record, wrapped, False) if wrapped else ():
                number = {name: byte for byte, name in ref.SUITE_NAMES.items()}[record["suite"]]
                if ref.derive(data_key, number, "key-id").hex() == record["key_id"]:
                    return data_key
        raise Refused("no wrapping gives the key")

    def combinations(self, row, record, wrapped, component):
        if "kek" in wrapped:
            scheme, name = wrapped["kek"].split(":", 1)
            if scheme == "local" and name in self.keks and kek_allowed(row["policy"], wrapped["kek"]):
                try:
                    context = key_context(record, component)
                    yield unwrap_local(self.keks[name], name, context, bytes.fromhex(wrapped["wrapped"]))
                except ref.Unopenable:
                    pass
        elif "any_of" in wrapped:
            for member in wrapped["any_of"]:
                yield from self.combinations(row, record, member, component)
        else:
            joined = [bytes(32)]
            for member in wrapped["all_of"]:
                components = list(self.combinations(row, record, member, True))
                joined = [bytes(a ^ b for a, b in zip(one, other)) for one in joined for other in components]
            yield from joined

    def served(self, name):
        return name in ("eu-central-1", "us-east-1")

    def opens(self):
        row = self.tenant()
        record = self.record(row)
        need(self.served(record["region"]) and allows(row["policy"], record["region"]), "region", Refused)
        need(not any(floor_covers(it, record) for it in row["erased"]), "erased", Refused)
        self.check_not_revoked(row, record)
        need(record["state"] in ("active", "deactivated", "compromised"), "state", Refused)
        for it in row["suspensions"]:
            need(it["until"] <= self.v["now"] or not covers(it["selector"], record), "suspended", Refused)
        fleet = self.believed(FLEET, ("fleet",))
        need((fleet["opens_suspended_until"] or 0) <= self.v["now"], "the fleet is suspended", Refused)
        self.unwrap(row, record)

    def check_not_revoked(self, row, record):
        for it in row["revocations"] + row["erasures"]:
            need(not covers(it["selector"], record), "revoked", Refused)

    def seals(self):
        row = self.tenant()
        policy, hint = row["policy"], self.hints[("key", self.v["tenant"], self.v["key_id"])]
        need(hint["state"] == "active" and hint["period"] == label(policy["period"], self.v["now"]), "not found", Refused)
        need(self.served(policy["region"]), "region", Refused)
        record = self.record(row)
        need((record["scope"], record["period"], record["state"]) == (hint["scope"], hint["period"], "active"), "", Refused)
        need(sorted(policy["scope_fields"]) == [name for name, _ in record["scope"]], "scope", Refused)
        self.check_not_revoked(row, record)
        need(record["made_generation"] == len(self.room.generations), "generation", Refused)
        need(not any(floor_covers(it, record) for it in row["erased"] + row["compromised"]), "floor", Refused)
        need((record["region"], record["suite"]) == (policy["region"], policy["suite"]), "region or suite", Refused)
        need(record["context_rules"] == policy["context_rules"], "context rules", Refused)
        need(self.v["now"] - record["created_at"] < policy["rotation"]["max_age_secs"] * 1000, "age", Refused)
        self.unwrap(row, record)

    def journal(self):
        row = self.tenant()
        reached, last = 0, None
        while reached < row["journal"]["entries"]:
            found = self.rows.get(("journal", self.v["tenant"], reached + 1))
            need(found is not None, "missing", Refused)
            entry, _, entry_digest = verify_row(self.room, JOURNAL, found)
            come_next = (row["tenant"], row["incarnation"], reached + 1, last)
            named = (entry["tenant"], entry["incarnation"], entry["number"], entry["previous"])
            need(named == come_next, "another entry", Refused)
            reached, last = reached + 1, entry_digest
        need(last == row["journal"]["last"], "it ends elsewhere", Refused)

    def every_row(self):
        """Verifies all rows, and that each is the one of its name. Returns how many there are of each kind."""
        kinds = {"room": ROOM, "fleet": FLEET, "tenant": TENANT, "key": KEY, "journal": JOURNAL, "kek": KEK, "log": LOG}
        found = dict.fromkeys(kinds, 0)
        for name, row in self.rows.items():
            body, _, _ = verify_row(self.room, kinds[name[0]], row)
            members = {"key": ("tenant", "key_id"), "journal": ("tenant", "number"), "log": ("number",)}
            own = tuple(body[member] for member in members.get(name[0], name[:1] if len(name) > 1 else ()))
            need(own == name[1:], "of another name", Refused)
            found[name[0]] += 1
        return found


def covers(selector, record):
    conditions = [True] if selector.get("everything") else []
    for name, value in selector.get("fields", []):
        conditions.append([name, value] in record["scope"] or f"{name}={value}" == record["period"])
    own = record["period"] or ""
    for bound, holds in (("from", lambda it: own >= it), ("to", lambda it: own <= it)):
        if bound in selector:
            it = selector[bound]
            conditions.append(own.split("=")[0] == it.split("=")[0] and holds(it))
    if "keys" in selector:
        conditions.append(record["key_id"] in selector["keys"])
    return bool(conditions) and all(conditions)


def floor_covers(floor, record):
    return record["made_epoch"] < floor["before"] and covers(floor["selector"], record)


def label(period, now):
    at = datetime.fromtimestamp(now // 1000, UTC)
    shape = {"month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%HZ"}
    return None if period == "none" else f"{period}={at.strftime(shape[period])}"


def check_export(exported, keks):
    """Unwraps what `Admin::export` handed out, and derives the key id again."""
    value = parse_json(exported.encode())
    Members(
        ("tenant", tenant), ("key_id", key_id), ("suite", integer(1, 2)), ("region", region),
        ("encryption_context", list_of(pair)), ("kek", kek), ("wrapped", hexadecimal),
    )(value)
    need(is_spelled(value, exported.encode()), "another spelling")
    name = value["kek"].split(":", 1)[1]
    wrapped = bytes.fromhex(value["wrapped"])
    data_key = unwrap_local({1: bytes.fromhex(keks[name])}, name, value["encryption_context"], wrapped)
    need(ref.derive(data_key, value["suite"], "key-id").hex() == value["key_id"], "key id", Refused)
    need(["purpose", "data-key"] in value["encryption_context"], "purpose", Refused)


# --- Command line -------------------------------------------------------------

def room_of(v):
    if v["room"] is None:
        return Room()
    keys = [(bytes.fromhex(it["row_key"]), public_key(bytes.fromhex(it["control_seed"]))) for it in v["generations"]]
    return Room(v["room"], bytes.fromhex(v["incarnation"]), keys)


def expect_row(v):
    try:
        _, generation, row_digest = verify_row(room_of(v), v["kind"], bytes.fromhex(v["row"]))
    except (Tampered, Malformed) as refusal:
        return {"expect": type(refusal).__name__.lower()}
    body = parse_frame(v["kind"], bytes.fromhex(v["row"]))[3].decode()
    return {"expect": "verifies", "body": body, "digest": row_digest}


def holds(ask):
    try:
        ask()
        return True
    except (Tampered, Malformed, Refused, ref.Unopenable):
        return False


def expect_room(v):
    asked = {"believed": World.tenant, "opens": World.opens, "seals": World.seals, "journal": World.journal}
    return {name: holds(lambda: ask(World(v))) for name, ask in asked.items()}


def expect_every_row(v):
    world = World(v)
    world.check_seeds()
    return world.every_row()


def answer(r):
    match r["op"]:
        case "row":
            return expect_row(r)
        case "room":
            return expect_room(r)
        case "every_row":
            return expect_every_row(r)
        case "export":
            return {"ok": check_export(r["exported"], r["keks"]) is None}
        case op:
            raise ValueError(f"unknown op {op!r}")


# --- Self-test ----------------------------------------------------------------

def self_test():
    vectors = Path(__file__).resolve().parent.parent / "vectors" / "rows"
    passed, failed = 0, 0
    for path in sorted(vectors.glob("**/*.json")):
        v = json.loads(path.read_text("utf-8"))
        got = answer(v | {"op": "room" if path.parent.name == "rooms" else "row"})
        if got == {name: v[name] for name in got}:
            passed += 1
        else:
            failed += 1
            print(f"FAILED {path.name}: got {got!r}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or passed < 100 else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if sys.argv[1:]:
        sys.exit(__doc__)
    for line in sys.stdin.buffer:
        print(json.dumps(answer(json.loads(line))), flush=True)
