"""A second verifier of exported journals, written from docs/ledger.md: `python verify_ledger.py FILE`. It uses none of
Potluck's code; needs `pip install blake3 cryptography msgspec`."""

import base64
import json
import pathlib
import sys

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import msgpack

# Kind → how many fields its body has, how many bytes at most, which of the fields are peers, and who of them signs.
KINDS = {
    "potluck/receipt/2": (20, 512, (1, 2), (2, 1)),
    "potluck/voucher/1": (6, 192, (1, 2), (2, 1)),
    "potluck/grant/1": (10, 512, (0,), (0,)),
    "potluck/membership/1": (7, 512, (0, 3), (0,)),
    "potluck/rule/1": (13, 512, (0,), (0,)),
    "potluck/transfer/1": (6, 512, (0, 1), (0,)),
    "potluck/dispute/1": (8, 512, (0, 1), (0,)),
    "potluck/checkpoint/1": (6, 160, (0,), (0,)),
    "potluck/journal-entry/2": (4, 128, (), ()),
}
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = {
    0, 1, P - 1, 2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
}  # fmt: skip
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def require(holds, why):
    if not holds:
        sys.exit(f"does not verify: {why}")


def unpack(data):
    """A value of the only encoding that it has: what is read gives the same bytes again."""
    value = msgpack.decode(data)
    require(plain(value) and msgpack.encode(value) == data, "bytes that are not in their one form")
    return value


def plain(value):
    if isinstance(value, list):
        return all(map(plain, value))
    return type(value) in (str, bytes) or (type(value) is int and 0 <= value < 2**63)


def verify_signature(key, message, signature):
    for point in (key, signature[:32]):
        y = int.from_bytes(point, "little") & (1 << 255) - 1
        require(y < P and y not in SMALL_ORDER, "a point that has two forms, or is of small order")
    require(int.from_bytes(signature[32:], "little") < L, "a signature that has two forms")
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def read(data):
    """The kind, the fields, whom they are about, and who signed, of an envelope that holds."""
    kind, body, signatures = unpack(data)
    signers = [key for _, key, _ in signatures]
    require(1 <= len(set(signers)) == len(signers) <= 4, "other signers than there may be")
    require({algorithm for algorithm, _, _ in signatures} == {1}, "no Ed25519 signature")
    for _, key, signature in signatures:
        verify_signature(key, b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body), signature)
    (count, most, peers, signing), fields = KINDS.get(kind, (-1, 0, (), ())), unpack(body)
    require(len(fields) == count and len(body) <= most, f"a {kind} of another form")
    require(kind != "potluck/receipt/2" or fields[10] <= fields[9], "a receipt of more use than time")
    wanted = [fields[place] for place in signing]
    # Entries are signed by whose journal it is, and witnesses sign behind the owner.
    is_open = kind in ("potluck/journal-entry/2", "potluck/checkpoint/1")
    require(wanted[: len(signers)] == signers or (is_open and signers[: len(wanted)] == wanted), "signed by others")
    return kind, fields, [fields[place] for place in peers], signers


def main(path):
    header, *lines = map(json.loads, pathlib.Path(path).read_text().splitlines())
    number_of = sum(BASE58.index(letter) * 58**place for place, letter in enumerate(reversed(header["journal"])))
    owner, heads, given, used = number_of.to_bytes(38, "big")[-32:], [bytes(32)], 0, 0
    for number, line in enumerate(lines, 1):
        entry, content = base64.b64decode(line["entry"]), base64.b64decode(line["content"])
        kind, (sequence, previous, _, digest), _, signers = read(entry)
        wanted = ("potluck/journal-entry/2", [owner], number, heads[-1])
        require((kind, signers, sequence, previous) == wanted, f"entry {number} does not follow: no chain")
        require(digest == blake3(content).digest(), f"entry {number} has another content")
        heads.append(blake3(entry).digest())
        kind, fields, peers, signers = read(content)
        require(owner in peers, f"entry {number} is about others")
        if kind == "potluck/receipt/2" and len(signers) == 2:
            given, used = given + fields[9] * (peers[1] == owner), used + fields[9] * (peers[0] == owner)
    if "checkpoint" in header:
        kind, fields, peers, signers = read(base64.b64decode(header["checkpoint"]))
        require((kind, peers) == ("potluck/checkpoint/1", [owner]), "a checkpoint of another journal")
        require(0 < fields[1] < len(heads) and fields[2] == heads[fields[1]], "witnesses cosigned another history")
        print(f"{len(signers) - 1} witnesses cosigned it up to entry {fields[1]}: {[key.hex() for key in signers[1:]]}")
    print(f"{len(lines)} entries of {header['journal']} hold; receipts of both: gave {given} µs, used {used} µs")


main(sys.argv[1])
