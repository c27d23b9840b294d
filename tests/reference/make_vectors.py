"""Writes tests/vectors/*.json, one scenario a file (FORMAT.md, section 8). Same bytes at every run.

    python make_vectors.py           write them
    python make_vectors.py --check   fail if the files on disk are not the ones that would be written
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import strongroom_reference as ref
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

OUT = Path(__file__).resolve().parent.parent / "vectors"
REGION, TENANT = "eu-central-1", "T024BE7LD"
CONTEXT = [["workspace", "W1"], ["channel", "C9"]]
TEXT = b"Lunch at noon?"

files = {}


def fixed(what, scenario, length=32):
    return hashlib.sha256(f"strongroom test vector, {what}: {scenario}".encode()).digest()[:length]


class Case:
    """One scenario: what the opener holds, and an envelope that starts out right and may be bent."""

    def __init__(self, scenario, plaintext=TEXT, **opener):
        self.scenario, self.plaintext = scenario, plaintext
        self.data_key, self.nonce = fixed("data key", scenario), fixed("nonce", scenario, 24)
        defaults = {"data_key": self.data_key.hex(), "suite": 1, "region": REGION, "tenant": TENANT, "context": CONTEXT}
        self.opener = defaults | opener
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
        key = ref.derive(self.data_key, self.suite, "message") if key is None else key
        if aad is None:
            canonical = ref.canonical_context(self.opener["context"])
            aad = ref.associated_data(header, self.opener["tenant"].encode(), canonical)
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
        name = re.sub("[^a-z0-9]+", "-", self.scenario.lower()).strip("-") + ".json"
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
    opens("a message bound to its own id", context=CONTEXT + [["message", "M77"]])
    opens("a message with the empty context", context=[])


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
    opens("A context of 1024 bytes", context=long_context)
    opens("A context of 16 fields", context=[[f"field{i}", str(i)] for i in range(16)])
    opens("Longest header, for suite 2", suite=2, region="r" * 32)


def opening_contexts():
    def opens(what, context):
        Case(what, context=context).expect("opens")

    opens("Context values with NUL, equals sign and slash", [["a", "x\0y"], ["b", "x=y"], ["c", "x/y"], ["d", "\0"]])
    opens("Context names with NUL, equals sign and slash", [["a\0b", "1"], ["a=b", "2"], ["a/b", "3"]])
    opens("Empty context values", [["thread", ""], ["channel", ""]])
    opens("Context names and values in Unicode", [["canal", "café"], ["チャンネル", "雑談 🍵"]])
    opens("Context names that differ by Unicode normal form only", [["caf\u00e9", "1"], ["cafe\u0301", "2"]])
    opens("Context names sort by UTF-8 bytes and not by UTF-16 units", [["\U0001f511", "key"], ["\uff5e", "tilde"]])
    opens("Context names sort by bytes and not by case", [["b", "1"], ["A", "2"], ["a", "3"], ["B", "4"]])
    opens("A context name before a longer one that starts with it", [["ab", "1"], ["a", "2"], ["a\0", "3"]])
    # Sealed with one order, opened with the other.
    Case("The order of context fields does not matter").held_by(context=CONTEXT[::-1]).expect("opens")
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

    message = CONTEXT + [["message", "M77"]]

    def moved(what, sealed, opened):
        Case(what, context=sealed).held_by(context=opened).expect("unopenable")

    moved("Context field missing", message, CONTEXT)
    moved("Context field added", CONTEXT, message)
    moved("Context value changed", message, CONTEXT + [["message", "M78"]])
    moved("Context value in lower case", message, CONTEXT + [["message", "m77"]])
    moved("Context name changed", message, CONTEXT + [["thread", "M77"]])
    moved("Whole context missing", message, [])
    moved("Context where none was", [], CONTEXT)
    moved("Values of two context fields swapped", CONTEXT, [["workspace", "C9"], ["channel", "W1"]])
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


def unopenable_writers():
    """Writers that strayed from the page. Each is what an opener with the same fault would open."""
    for suite in (1, 2):

        def case(what):
            return Case(f"Suite {suite}, {what}", suite=suite)

        def with_aad(what, make):
            c = case(what)
            c.forge(aad=make(c.header(), TENANT.encode(), ref.canonical_context(CONTEXT))).expect("unopenable")

        label = b"strongroom/v1/message"
        with_aad("associated data without its label", lambda h, t, c: h + bytes([len(t)]) + t + c)
        file = b"strongroom/v1/file"
        with_aad("associated data with the file label", lambda h, t, c: file + h + bytes([len(t)]) + t + c)
        with_aad("associated data without the header", lambda h, t, c: label + bytes([len(t)]) + t + c)
        with_aad("associated data without the tenant", lambda h, t, c: label + h + c)
        with_aad("associated data without the tenant's length", lambda h, t, c: label + h + t + c)
        with_aad("associated data without the context", lambda h, t, c: label + h + bytes([len(t)]) + t)
        with_aad("associated data with the empty context", lambda h, t, c: label + h + bytes([len(t)]) + t + b"\x00")
        with_aad("empty associated data", lambda h, t, c: b"")
        unsorted = b"\x02\x09workspace\x00\x02W1\x07channel\x00\x02C9"
        with_aad("context not sorted", lambda h, t, c: label + h + bytes([len(t)]) + t + unsorted)
        little = b"\x02\x07channel\x02\x00C9\x09workspace\x02\x00W1"
        with_aad("context lengths little-endian", lambda h, t, c: label + h + bytes([len(t)]) + t + little)

        def with_key(what, make):
            c = case(what)
            c.forge(key=make(c.data_key)).expect("unopenable")

        with_key("sealed under the other suite's message key", lambda k: ref.derive(k, 3 - suite, "message"))
        with_key("sealed under the file key", lambda k: ref.derive(k, suite, "file"))
        with_key("sealed under the key id", lambda k: ref.derive(k, suite, "key-id"))
        with_key("sealed under the data key itself", lambda k: k)

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

    on_disk = {path.name: path.read_text("utf-8") for path in OUT.glob("*.json")}
    differing = sorted(name for name in files.keys() | on_disk.keys() if files.get(name) != on_disk.get(name))
    if args == ["--check"]:
        for name in differing:
            print("differs:" if name in files and name in on_disk else "missing:" if name in files else "stray:", name)
        print(f"{len(files)} scenarios, {len(differing)} files differ")
        return 1 if differing else 0
    if args:
        sys.exit(__doc__)
    for name in differing:
        if name in files:
            (OUT / name).write_text(files[name], "utf-8", newline="\n")
        else:
            (OUT / name).unlink()  # a scenario that was renamed or dropped
    print(f"{len(files)} scenarios, {len(differing)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
