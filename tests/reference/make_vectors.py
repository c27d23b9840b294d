"""Writes tests/vectors/*.json and tests/vectors/local-kms/*.json, one scenario a file (FORMAT.md, section 8).

Same bytes at every run.

    python make_vectors.py           write them
    python make_vectors.py --check   fail if the files on disk are not the ones that would be written
"""

import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

import strongroom_reference as ref
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

OUT = Path(__file__).resolve().parent.parent / "vectors"
REGION, TENANT = "eu-central-1", "T024BE7LD"
SCOPE = [["workspace", "W1"], ["channel", "C9"]]
CONTEXT = [["message", "M77"]]
TEXT = b"Lunch at noon?"

files = {}


def fixed(what, scenario, length=32):
    return hashlib.sha256(f"strongroom test vector, {what}: {scenario}".encode()).digest()[:length]


class Case:
    """One scenario: what the opener holds, and an envelope that starts out right and may be bent."""

    def __init__(self, scenario, plaintext=TEXT, **opener):
        self.scenario, self.plaintext = scenario, plaintext
        self.data_key, self.nonce = fixed("data key", scenario), fixed("nonce", scenario, 24)
        defaults = {"data_key": self.data_key.hex(), "suite": 1, "region": REGION, "tenant": TENANT}
        self.opener = defaults | {"scope": SCOPE, "context": CONTEXT} | opener
        self.suite = self.opener["suite"]
        self.envelope = ref.seal_message(self.opener, plaintext, self.nonce)
        # Else every forged envelope would be refused for another reason than its scenario's.
        assert self.forge().envelope == ref.seal_message(self.opener, plaintext, self.nonce)

    @property
    def nonce_at(self):
        return ref.parse_header(self.envelope)[3]

    def header(self, suite=None, region=None, key_id=None):
        key_id = ref.derive(self.data_key, self.suite, "key-id") if key_id is None else key_id
        return ref.build_header(suite or self.suite, (region or self.opener["region"]).encode(), key_id)

    def forge(self, header=None, key=None, aad=None, aead=None):
        """Seals as seal_message does, except in what is given: a writer that knows the data key and errs, or lies."""
        header = self.header() if header is None else header
        scope, own = ref.split_context(self.opener["scope"], self.opener["context"])
        key = ref.message_key(self.data_key, header, self.opener["tenant"].encode(), scope) if key is None else key
        aad = own if aad is None else aad
        cipher, subnonce = aead(key, self.nonce) if aead else ref.message_cipher(self.suite, key, self.nonce)
        self.envelope = header + self.nonce + cipher.encrypt(subnonce, self.plaintext, aad)
        return self

    def flip(self, at, bit=0):
        bent = bytearray(self.envelope)
        bent[at] ^= 1 << bit
        self.envelope = bytes(bent)
        return self

    def put(self, at, new):
        """Writes over what is there."""
        self.envelope = self.envelope[:at] + new + self.envelope[at + len(new) :]
        return self

    def cut(self, length):
        assert abs(length) < len(self.envelope)
        self.envelope = self.envelope[:length]
        return self

    def held_by(self, **opener):
        """Another opener than the one it was sealed for."""
        self.opener = self.opener | opener
        return self

    def expect(self, expect):
        v = {"scenario": self.scenario, "expect": expect, **self.opener, "envelope": self.envelope.hex()}
        want = {"ok": expect}
        if expect == "opens":
            v["plaintext"] = want["plaintext"] = self.plaintext.hex()
        assert ref.answer(v | {"op": "open"}) == want, self.scenario
        write(v)


def write(v, folder=""):
    name = folder + re.sub("[^a-z0-9]+", "-", v["scenario"].lower()).strip("-") + ".json"
    assert name not in files, name
    files[name] = json.dumps(v, indent=1) + "\n"


def opening(suite):
    def opens(what, plaintext=TEXT, **opener):
        Case(f"Suite {suite} opens {what}", plaintext, suite=suite, **opener).expect("opens")

    opens("an ordinary message")
    opens("an empty message", b"")
    opens("a message of one byte", b"\x00")
    opens("a message in Unicode", "Grüße aus Zürich, 東京で 🍣 \u202eRTL".encode())
    opens("a message that is not UTF-8", bytes(range(256)))
    opens("a message of 1 KiB", bytes(i % 251 for i in range(1024)))
    opens("a message without fields of its own", context=[])
    opens("a message of the empty scope", scope=[])
    opens("a message with the empty context", scope=[], context=[])


def opening_limits():
    def opens(what, **opener):
        Case(what, **opener).expect("opens")

    opens("The longest region", region="eu-central-1-0123456789-abcdefgh")
    opens("The shortest region", region="0")
    opens("A region of hyphens", region="---")
    opens("The longest tenant", tenant="Az09._:@-" + "t" * 55)
    opens("The shortest tenant", tenant="-")
    # 1024 = 1 for the count, 2 * 3 lengths, names of 3 and 64, values of 512 and 438.
    long_context = [["big", "v" * 512], ["n" * 64, "w" * 438]]
    assert len(ref.canonical_context(long_context)) == 1024
    opens("A context of 1024 bytes without a scope", scope=[], context=long_context)
    # 26 bytes less: two pairs of 12 and 14 bytes are the scope's.
    with_scope = [["big", "v" * 512], ["n" * 64, "w" * 412]]
    assert len(ref.canonical_context(SCOPE + with_scope)) == 1024
    opens("A context of 1024 bytes, scope included", context=with_scope)
    opens("A context of 16 fields without a scope", scope=[], context=[[f"field{i}", str(i)] for i in range(16)])
    opens("A context of 16 fields, scope included", context=[[f"field{i}", str(i)] for i in range(14)])
    # 512 = 1, 8 * 3 lengths, names of 32, values of 28 and one of 35.
    long_scope = [["0123456789_abcdefghijklmnopqrst-"[i:] + "u" * i, "v" * (35 if i == 7 else 28)] for i in range(8)]
    assert len(ref.canonical_scope(long_scope)) == 512
    opens("The longest scope", scope=long_scope)
    opens("The longest scope and the longest context", scope=long_scope, context=[["b", "w" * 508]])
    opens("Longest header, for suite 2", suite=2, region="r" * 32)


def opening_contexts():
    def opens(what, context):
        Case(what, context=context).expect("opens")

    Case("Scope values in Unicode", scope=[["channel", "雑談 🍵"], ["workspace", "café\0="]]).expect("opens")

    opens("Context values with NUL, equals sign and slash", [["a", "x\0y"], ["b", "x=y"], ["c", "x/y"], ["d", "\0"]])
    opens("Context names with NUL, equals sign and slash", [["a\0b", "1"], ["a=b", "2"], ["a/b", "3"]])
    opens("Empty context values", [["thread", ""], ["message", ""]])
    opens("Context names and values in Unicode", [["canal", "café"], ["チャンネル", "雑談 🍵"]])
    opens("Context names that differ by Unicode normal form only", [["caf\u00e9", "1"], ["cafe\u0301", "2"]])
    opens("Context names sort by UTF-8 bytes and not by UTF-16 units", [["\U0001f511", "key"], ["\uff5e", "tilde"]])
    opens("Context names sort by bytes and not by case", [["b", "1"], ["A", "2"], ["a", "3"], ["B", "4"]])
    opens("A context name before a longer one that starts with it", [["ab", "1"], ["a", "2"], ["a\0", "3"]])
    # Sealed with one order, opened with the other.
    several = [["thread", "T1"], ["message", "M77"], ["author", "U5"]]
    Case("The order of context fields does not matter", context=several).held_by(context=several[::-1]).expect("opens")
    Case("The order of scope fields does not matter").held_by(scope=SCOPE[::-1]).expect("opens")
    # The largest length bytes that a value can have, on either side of the low byte's overflow.
    opens("Context values of 255 and 256 bytes", [["a", "x" * 255], ["b", "y" * 256]])


def malformed():
    def cut_at(what, length, **kw):
        Case(f"Cut short {what}", **kw).cut(length).expect("malformed")

    head = 3 + len(REGION) + 32
    cut_at("to nothing", 0)
    cut_at("after the version", 1)
    cut_at("after the suite", 2)
    cut_at("after the region length", 3)
    cut_at("inside the region", 8)
    cut_at("after the region", 3 + len(REGION))
    cut_at("inside the key id", head - 1)
    cut_at("after the header", head)
    cut_at("inside the nonce", head + 23)
    cut_at("after the nonce", head + 24)
    cut_at("to a tag of 15 bytes", head + 24 + 15)
    cut_at("by the last byte of an empty message", -1, plaintext=b"", suite=2)

    for version in (0x00, 0x01, 0xF4, 0xF6, 0xFF):
        Case(f"Version 0x{version:02X}").put(0, bytes([version])).expect("malformed")
    Case("Version byte is the letter h").put(0, b"h").expect("malformed")
    plaintext = Case("Plaintext where an envelope should be")
    plaintext.envelope = b"hello, this was never sealed, although it is as long as an envelope that holds one word"
    plaintext.expect("malformed")
    shifted = Case("A byte stands before the envelope")
    shifted.envelope = b"\x00" + shifted.envelope
    shifted.expect("malformed")
    for suite in (0, 3, 255):
        Case(f"Suite byte {suite}").put(1, bytes([suite])).expect("malformed")

    def region(what, new):
        case = Case(what)
        rest = case.envelope[3 + len(REGION) :]
        case.envelope = case.envelope[:2] + bytes([len(new)]) + new + rest
        case.expect("malformed")

    region("Region length 0", b"")
    region("Region length 33", b"r" * 33)
    region("Region length 255", b"r" * 255)
    region("Region in upper case", b"EU-CENTRAL-1")
    region("Region that is not UTF-8", b"eu-central-\xff")
    region("Region with an underscore", b"eu_central-1")
    region("Region with a trailing newline", b"eu-central-\n")
    region("Region with a NUL", b"eu-central-\x00")
    region("Region in Unicode", "eu-zürich".encode())


def unopenable_bits(suite):
    def bent(what, at, bit=0, plaintext=TEXT):
        case = Case(f"Suite {suite}, {what}", plaintext, suite=suite)
        case.flip(at if at < 0 else case.nonce_at + at, bit).expect("unopenable")

    bent("a bit of the nonce's first byte flipped", 0, 7)
    bent("a bit of the nonce's twelfth byte flipped", 11)
    bent("a bit of the nonce's sixteenth byte flipped", 15)
    bent("a bit of the nonce's last byte flipped", 23)
    bent("a bit of the ciphertext flipped", 24)
    bent("a bit of the tag's first byte flipped", -16)
    bent("a bit of the tag's last byte flipped", -1, 7)
    bent("a bit of an empty message's tag flipped", -1, 0, b"")
    for what, at in (("first", 3 + len(REGION)), ("last", 3 + len(REGION) + 31)):
        Case(f"Suite {suite}, a bit of the key id's {what} byte flipped", suite=suite).flip(at).expect("unopenable")
    Case(f"Suite {suite}, ciphertext cut by one byte", suite=suite).cut(-1).expect("unopenable")
    longer = Case(f"Suite {suite}, ciphertext longer by one byte", suite=suite)
    longer.envelope += b"\x00"
    longer.expect("unopenable")
    Case(f"Suite {suite}, cut down to the tag's length", suite=suite).cut(-len(TEXT)).expect("unopenable")
    zeros = Case(f"Suite {suite}, tag of zeros", suite=suite)
    zeros.put(len(zeros.envelope) - 16, bytes(16)).expect("unopenable")


def unopenable_header():
    # An opener that compares nothing and leaves all to the cipher passes these; see the "truthfully sealed" ones below.
    Case("Region changed to another valid one").put(3, b"us").expect("unopenable")
    Case("Region changed and the opener's data key in that region").put(3, b"us").held_by(
        region="us-central-1"
    ).expect("unopenable")
    Case("Envelope right but the opener's data key in another region").held_by(region="us-east-1").expect("unopenable")
    Case("Region of the opener is a prefix of the envelope's").held_by(region="eu-central").expect("unopenable")
    for suite, other in ((1, 2), (2, 1)):
        Case(f"Suite byte swapped from {suite} to {other}", suite=suite).put(1, bytes([other])).expect("unopenable")
        Case(f"Suite byte swapped from {suite} to {other} and the opener's data key of suite {other}", suite=suite).put(
            1, bytes([other])
        ).held_by(suite=other).expect("unopenable")
        case = Case(f"Suite byte and key id swapped from {suite} to {other} and the opener's too", suite=suite)
        case.put(1, bytes([other])).put(3 + len(REGION), ref.derive(case.data_key, other, "key-id"))
        case.held_by(suite=other).expect("unopenable")

    # Sealed by someone who has the data key, so that the tag is right and only the opener's comparison refuses.
    for suite in (1, 2):
        case = Case(f"Suite {suite}, tag right but the key id is of another data key", suite=suite)
        key_id = ref.derive(fixed("other key", case.scenario), suite, "key-id")
        case.forge(case.header(key_id=key_id)).expect("unopenable")
        case = Case(f"Suite {suite}, tag right but the key id is of the other suite", suite=suite)
        case.forge(case.header(key_id=ref.derive(case.data_key, 3 - suite, "key-id"))).expect("unopenable")
        case = Case(f"Suite {suite}, tag right but the suite byte is the other", suite=suite)
        case.forge(case.header(suite=3 - suite)).expect("unopenable")
        case = Case(f"Suite {suite}, tag right but the region is another", suite=suite)
        case.forge(case.header(region="us-east-1")).expect("unopenable")


def unopenable_binding():
    def other(what, **opener):
        Case(what).held_by(**opener).expect("unopenable")

    other("Another tenant", tenant="T024BE7LE")
    other("Tenant in lower case", tenant=TENANT.lower())
    other("Tenant that is longer by one byte", tenant=TENANT + "0")
    other("Tenant that is shorter by one byte", tenant=TENANT[:-1])
    other("Another data key", data_key=fixed("other key", "Another data key").hex())
    flipped = fixed("data key", "Data key with one bit flipped")
    other("Data key with one bit flipped", data_key=(flipped[:31] + bytes([flipped[31] ^ 1])).hex())

    def moved(what, sealed, opened, scope=SCOPE):
        Case(what, context=sealed, scope=scope).held_by(context=opened).expect("unopenable")

    thread = CONTEXT + [["thread", "T1"]]
    moved("Context field missing", thread, CONTEXT)
    moved("Context field added", CONTEXT, thread)
    moved("Context value changed", CONTEXT, [["message", "M78"]])
    moved("Context value in lower case", CONTEXT, [["message", "m77"]])
    moved("Context name changed", CONTEXT, [["massage", "M77"]])
    moved("All own fields missing", CONTEXT, [])
    moved("Own fields where none were", [], CONTEXT)
    moved("Values of two context fields swapped", thread, [["message", "T1"], ["thread", "M77"]])
    moved("Name and value of a context field swapped", [["a", "b"]], [["b", "a"]])
    moved("A byte moved from the value to the name", [["a", "bc"]], [["ab", "c"]])
    moved("A byte moved from one value to the next name", [["a", "bc"], ["d", "e"]], [["a", "b"], ["cd", "e"]])
    moved("A field hidden in a value by equals sign and comma", [["a", "b,c=d"]], [["a", "b"], ["c", "d"]])
    # The second pair's encoding as the tail of the first one's value.
    moved("A field hidden in a value by its encoding", [["a", "b\x01c\0\x01d"]], [["a", "b"], ["c", "d"]])
    moved("Empty value for a field that was absent", CONTEXT, CONTEXT + [["thread", ""]])
    moved("Context value with a trailing NUL", [["a", "b"]], [["a", "b\0"]])
    moved("Context value with a trailing space", [["a", "b"]], [["a", "b "]])
    moved("Context value in another Unicode normal form", [["a", "caf\u00e9"]], [["a", "cafe\u0301"]])

    def rescoped(what, scope, context=None, sealed=SCOPE):
        context = CONTEXT if context is None else context
        Case(what, scope=sealed).held_by(scope=scope, context=context).expect("unopenable")

    rescoped("Scope field missing", SCOPE[:1])
    rescoped("Scope field added", SCOPE + [["thread", "T1"]])
    rescoped("Scope value changed", [["workspace", "W1"], ["channel", "C8"]])
    rescoped("Scope value in lower case", [["workspace", "W1"], ["channel", "c9"]])
    rescoped("Scope name changed", [["workspace", "W1"], ["chanel", "C9"]])
    rescoped("Values of two scope fields swapped", [["workspace", "C9"], ["channel", "W1"]])
    rescoped("Whole scope missing", [])
    rescoped("Scope where none was", SCOPE, sealed=[])
    rescoped("A scope field among the own fields", SCOPE[:1], CONTEXT + SCOPE[1:])
    rescoped("All scope fields among the own fields", [], CONTEXT + SCOPE)
    rescoped("An own field among the scope fields", SCOPE + CONTEXT, [])


def unopenable_writers():
    """Writers that strayed from the page. Each is what an opener with the same fault would open."""
    label, file = b"strongroom/v1/message", b"strongroom/v1/file"
    for suite in (1, 2):

        def case(what, **opener):
            return Case(f"Suite {suite}, {what}", suite=suite, **opener)

        def with_aad(what, make, **opener):
            c = case(what, **opener)
            scope, own = ref.split_context(c.opener["scope"], c.opener["context"])
            c.forge(aad=make(c.header(), TENANT.encode(), scope, own)).expect("unopenable")

        with_aad("empty associated data", lambda h, t, s, o: b"")
        with_aad("empty associated data for no own fields", lambda h, t, s, o: b"", context=[])
        with_aad("associated data of the whole context", lambda h, t, s, o: ref.canonical_context(SCOPE + CONTEXT))
        with_aad("associated data of the scope", lambda h, t, s, o: s)
        with_aad("associated data with the label", lambda h, t, s, o: label + o)
        with_aad("associated data with the header", lambda h, t, s, o: h + o)
        with_aad("associated data with the tenant", lambda h, t, s, o: bytes([len(t)]) + t + o)
        with_aad("own fields without their count", lambda h, t, s, o: o[1:])
        two = [["thread", "T1"], ["message", "M77"]]
        unsorted = b"\x02\x06thread\x00\x02T1\x07message\x00\x03M77"
        with_aad("own fields not sorted", lambda h, t, s, o: unsorted, context=two)
        with_aad("own fields' lengths little-endian", lambda h, t, s, o: b"\x01\x07message\x03\x00M77")

        def with_info(what, make, tenant=TENANT):
            c = case(what, tenant=tenant)
            info = make(c.header(), tenant.encode(), ref.canonical_scope(SCOPE))
            c.forge(key=ref.hkdf_sha512(c.data_key, info)).expect("unopenable")

        def bound(header, tenant, scope):
            return header + bytes([len(tenant)]) + tenant + scope

        with_info("message key derived without its label", bound)
        with_info("message key derived with the file label", lambda h, t, s: file + bound(h, t, s))
        with_info("message key derived without the header", lambda h, t, s: label + bound(b"", t, s))
        with_info("message key derived without the version", lambda h, t, s: label + bound(h[1:], t, s))
        with_info("message key derived without the tenant", lambda h, t, s: label + h + s)
        with_info("message key derived without the tenant's length", lambda h, t, s: label + h + t + s)
        with_info("message key derived without the scope", lambda h, t, s: label + bound(h, t, b""))
        with_info("message key derived with the empty scope", lambda h, t, s: label + bound(h, t, b"\x00"))
        with_info(
            "message key derived with the own fields too",
            lambda h, t, s: label + bound(h, t, ref.canonical_context(SCOPE + CONTEXT)),
        )
        unsorted_scope = b"\x02\x09workspace\x00\x02W1\x07channel\x00\x02C9"
        with_info("scope not sorted", lambda h, t, s: label + bound(h, t, unsorted_scope))
        little = b"\x02\x07channel\x02\x00C9\x09workspace\x02\x00W1"
        with_info("scope's lengths little-endian", lambda h, t, s: label + bound(h, t, little))

        def with_key(what, make):
            c = case(what)
            info = label + bound(c.header(), TENANT.encode(), ref.canonical_scope(SCOPE))
            c.forge(key=make(c.data_key, info)).expect("unopenable")

        with_key("message key by Expand alone", lambda k, i: hmac.digest(k, i + b"\x01", "sha512")[:32])
        with_key("message key by Extract alone", lambda k, i: hmac.digest(bytes(64), k, "sha512")[:32])
        with_key("message key by HMAC of the data key", lambda k, i: hmac.digest(k, i, "sha512")[:32])
        with_key("info for a salt", lambda k, i: hmac.digest(hmac.digest(i, k, "sha512"), b"\x01", "sha512")[:32])
        with_key(
            "message key by SHA-256",
            lambda k, i: hmac.digest(hmac.digest(bytes(32), k, "sha256"), i + b"\x01", "sha256"),
        )
        with_key("sealed under the file key", lambda k, i: ref.derive(k, suite, "file"))
        with_key("sealed under the key id", lambda k, i: ref.derive(k, suite, "key-id"))
        with_key("sealed under a key with a suite's label", lambda k, i: ref.derive(k, suite, "message"))
        with_key("sealed under the data key itself", lambda k, i: k)

        c = case("key id by Expand alone")
        info = f"strongroom/v1/{ref.SUITE_NAMES[suite]}/key-id".encode()
        c.forge(c.header(key_id=hmac.digest(c.data_key, info + b"\x01", "sha512")[:32])).expect("unopenable")

    def with_aead(what, suite, aead):
        Case(what, suite=suite).forge(aead=aead).expect("unopenable")

    with_aead("Suite 1, sealed with the other suite's cipher", 1, lambda k, n: ref.message_cipher(2, k, n))
    with_aead("Suite 2, sealed with the other suite's cipher", 2, lambda k, n: ref.message_cipher(1, k, n))
    with_aead("Suite 1, sealed with AES-256-GCM and no subkey", 1, lambda k, n: (AESGCM(k), n[12:]))
    with_aead("Suite 1, sealed with AES-256-GCM and a nonce of 24 bytes", 1, lambda k, n: (AESGCM(k), n))
    with_aead("Suite 2, sealed with ChaCha20-Poly1305 and no subkey", 2, lambda k, n: (ChaCha20Poly1305(k), n[12:]))
    with_aead(
        "Suite 2, sealed with the zero bytes behind the nonce instead of before it",
        2,
        lambda k, n: (ChaCha20Poly1305(ref.hchacha20(k, n[:16])), n[16:] + bytes(4)),
    )


def local_kms():
    kek, data_key = fixed("KEK", "local KMS"), fixed("data key", "local KMS")
    pairs = [["tenant", TENANT], ["region", REGION], ["purpose", "data-key"], ["suite", "aes-256-gcm"], *SCOPE]

    def wrap(name="acme-2026", version=1, pairs=pairs, kek=kek, data_key=data_key):
        return ref.local_wrap(kek, name, version, pairs, data_key, fixed("nonce", f"{name} {version} {pairs}", 24))

    def case(scenario, expect, wrapped, name="acme-2026", pairs=pairs, kek=kek):
        v = {"scenario": scenario, "expect": expect, "kek": kek.hex(), "kek_name": name, "context": pairs}
        want = {"ok": expect}
        if expect == "opens":
            v["data_key"] = data_key.hex()
            want = {"data_key": v["data_key"]}
        v["wrapped"] = wrapped.hex()
        assert ref.answer(v | {"op": "local_unwrap"}) == want, scenario
        write(v, "local-kms/")

    hour = pairs + [["hour", "2026-11-22T05Z"]]
    longest = "Az09._-" + "k" * 57
    case("A wrapped data key", "opens", wrap())
    case("A data key of a period", "opens", wrap(pairs=hour), pairs=hour)
    case("The order of the encryption context does not matter", "opens", wrap(), pairs=pairs[::-1])
    case("A KEK's version of four bytes", "opens", wrap(version=0x01020304))
    case("The longest name of a KEK", "opens", wrap(longest), longest)
    case("The shortest name of a KEK", "opens", wrap("k"), "k")

    def refused(scenario, wrapped, **opener):
        case(scenario, "unopenable", wrapped, **opener)

    good = wrap()
    for what, at in (
        ("first byte", 0),
        ("KEK version", 4),
        ("nonce's first byte", 5),
        ("nonce's twelfth byte", 16),
        ("nonce's thirteenth byte", 17),
        ("nonce's last byte", 28),
        ("ciphertext", 29),
        ("tag's last byte", 76),
    ):
        refused(f"A bit of the {what} flipped", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    refused("Nothing", b"")
    refused("Cut by a byte", good[:-1])
    refused("Longer by a byte", good + b"\0")
    refused("Another KEK", good, kek=fixed("KEK", "another"))
    refused("Another KEK's name", good, name="acme-2027")
    refused("A KEK's name that starts with this one's", good, name="acme-20260")
    refused("Another tenant", good, pairs=[["tenant", "T024BE7LE"]] + pairs[1:])
    refused("Another region", good, pairs=pairs[:1] + [["region", "us-east-1"]] + pairs[2:])
    refused("Another purpose", good, pairs=pairs[:2] + [["purpose", "local-kek"]] + pairs[3:])
    refused("A scope field more", good, pairs=pairs + [["thread", "T1"]])
    refused("A scope field less", good, pairs=pairs[:-1])
    refused("A period that was not wrapped", good, pairs=hour)

    # Writers that strayed from the page.
    aad, nonce = ref.local_kms_aad("acme-2026", 1, pairs), fixed("nonce", "strayed", 24)
    head, (subkey, subnonce) = b"\x02" + bytes([0, 0, 0, 1]), ref.xaes_derive(kek, nonce)
    right = head + nonce + AESGCM(subkey).encrypt(subnonce, data_key, aad)
    assert ref.local_unwrap(kek, "acme-2026", pairs, right) == data_key
    refused("AES-256-GCM and no subkey", head + nonce + AESGCM(kek).encrypt(subnonce, data_key, aad))
    short = b"\x01" + head[1:] + nonce[:12] + AESGCM(kek).encrypt(nonce[:12], data_key, aad)
    refused("AES-256-GCM with a nonce of 12 bytes, as before version 1 was settled", short)
    strayed = {
        "Associated data without its label": aad[23:],
        "Associated data without the name's length": aad[:23] + aad[24:],
        "Associated data without the name": aad[:24] + aad[33:],
        "Associated data without the KEK version": aad[:33] + aad[37:],
        "Associated data without the encryption context": aad[:37],
        "KEK version little-endian": aad[:33] + bytes([1, 0, 0, 0]) + aad[37:],
    }
    for scenario, other in strayed.items():
        refused(scenario, head + nonce + AESGCM(subkey).encrypt(subnonce, data_key, other))


def main(args):
    for suite in (1, 2):
        opening(suite)
        unopenable_bits(suite)
    opening_limits()
    opening_contexts()
    malformed()
    unopenable_header()
    unopenable_binding()
    unopenable_writers()
    local_kms()

    paths = [*OUT.glob("*.json"), *OUT.glob("local-kms/*.json")]
    on_disk = {path.relative_to(OUT).as_posix(): path.read_text("utf-8") for path in paths}
    differing = sorted(name for name in files.keys() | on_disk.keys() if files.get(name) != on_disk.get(name))
    if args == ["--check"]:
        for name in differing:
            print("differs:" if name in files and name in on_disk else "missing:" if name in files else "stray:", name)
        print(f"{len(files)} scenarios, {len(differing)} files differ")
        return 1 if differing else 0
    if args:
        sys.exit(__doc__)
    (OUT / "local-kms").mkdir(exist_ok=True)
    for name in differing:
        if name in files:
            (OUT / name).write_text(files[name], "utf-8", newline="\n")
        else:
            (OUT / name).unlink()  # a scenario that was renamed or dropped
    print(f"{len(files)} scenarios, {len(differing)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
