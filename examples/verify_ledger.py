"""A second verifier of exported journals, written from docs/ledger.md: `python verify_ledger.py FILE`. It uses none of
Potluck's code; needs `pip install cryptography blake3`."""

import base64
import json
import pathlib
import sys

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KINDS = {"receipt/2": 20, "voucher/1": 6, "grant/1": 10, "transfer/1": 6, "dispute/1": 8, "checkpoint/1": 6}
KINDS["membership/1"] = 7
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = {
    0, 1, P - 1, 2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
}  # fmt: skip
# First byte of msgpack's sized forms → (what it is, bytes of the size, least size that may be written so).
SIZED = {
    0xC4: (bytes, 1, 0), 0xC5: (bytes, 2, 1 << 8), 0xC6: (bytes, 4, 1 << 16),
    0xD9: (str, 1, 32), 0xDA: (str, 2, 1 << 8), 0xDC: (list, 2, 16),
    0xCC: (int, 1, 1 << 7), 0xCD: (int, 2, 1 << 8), 0xCE: (int, 4, 1 << 16), 0xCF: (int, 8, 1 << 32),
}  # fmt: skip
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def require(holds, why):
    if not holds:
        sys.exit(f"does not verify: {why}")


def unpack(data, at=0):
    """One value in its shortest form, and where the next begins."""
    first = data[at]
    if first < 0x80:
        return first, at + 1
    if 0x90 <= first < 0xC0:
        kind, size, at = (list, first & 0x0F, at + 1) if first < 0xA0 else (str, first & 0x1F, at + 1)
    else:
        kind, width, least = SIZED[first]
        size, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        require(size >= least, "a longer form than is needed")
    if kind is int:
        return size, at
    if kind is list:
        values = []
        while len(values) < size:
            value, at = unpack(data, at)
            values.append(value)
        return values, at
    require(at + size <= len(data), "cut off")
    return (data[at : at + size].decode() if kind is str else data[at : at + size]), at + size


def whole(data):
    value, end = unpack(data)
    require(end == len(data), "something follows")
    return value


def signed(data):
    """The kind, the body's fields, and who signed, of an envelope whose signatures hold."""
    kind, body, signatures = whole(data)
    message = b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(body), body)
    for algorithm, key, signature in signatures:
        for point in (key, signature[:32]):
            y = int.from_bytes(point, "little") & (1 << 255) - 1
            require(y < P and y not in SMALL_ORDER, "a point that has two forms, or of small order")
        scalar = int.from_bytes(signature[32:], "little")
        require(algorithm == 1 and scalar < L, "no Ed25519 signature, or one that has two forms")
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    require(1 <= len(signatures) == len({key for _, key, _ in signatures}) <= 4, "other signers than there may be")
    return kind, whole(body), [key for _, key, _ in signatures]


def key_of(peer):
    number = 0
    for letter in peer:
        number = number * 58 + BASE58.index(letter)
    return number.to_bytes(37, "big")[-32:]


def main(path):
    header, *lines = map(json.loads, pathlib.Path(path).read_text().splitlines())
    owner, previous, given, used = key_of(header["journal"]), bytes(32), 0, 0
    heads = [previous]
    for number, line in enumerate(lines, 1):
        entry, content = base64.b64decode(line["entry"]), base64.b64decode(line["content"])
        kind, (sequence, before, _, digest), signers = signed(entry)
        wanted = ("potluck/journal-entry/2", [owner], number, previous)
        require((kind, signers, sequence, before) == wanted, f"entry {number} does not follow: no chain")
        require(digest == blake3(content).digest(), f"entry {number} has another content")
        kind, fields, signers = signed(content)
        require(len(fields) == KINDS.get(kind.removeprefix("potluck/")), f"entry {number} is of no known kind")
        if kind == "potluck/receipt/2":
            caller, provider, leased, busy = fields[1], fields[2], fields[9], fields[10]
            both = signers == [provider, caller]
            require((both or signers == [provider]) and busy <= leased, f"receipt {number} cannot be")
            given, used = given + leased * both * (provider == owner), used + leased * both * (caller == owner)
        previous = blake3(entry).digest()
        heads.append(previous)
    if "checkpoint" in header:
        kind, fields, signers = signed(base64.b64decode(header["checkpoint"]))
        require(kind == "potluck/checkpoint/1" and signers[0] == fields[0] == owner, "a checkpoint of another journal")
        require(0 < fields[1] < len(heads) and fields[2] == heads[fields[1]], "witnesses cosigned another history")
        print(f"{len(signers) - 1} witnesses cosigned it up to entry {fields[1]}: {[key.hex() for key in signers[1:]]}")
    print(f"{len(lines)} entries of {header['journal']} hold; receipts of both: gave {given} µs, used {used} µs")


if __name__ == "__main__":
    main(sys.argv[1])
