import pickle
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_ledger.keys import KeyFileError, PrivateKey, PublicKey, load_or_create

# RFC 8032, section 7.1, TEST 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_rfc_8032():
    key = PrivateKey(SEED)
    assert key.public.raw == PUBLIC
    assert key.sign(b"\x72") == SIGNATURE
    assert key.public.verify(b"\x72", SIGNATURE)
    assert not key.public.verify(b"\x73", SIGNATURE)


def test_the_peer_id_is_libp2ps():
    from libp2p.crypto.ed25519 import Ed25519PublicKey
    from libp2p.peer.id import ID

    for _ in range(20):
        public = PrivateKey.generate().public
        assert public.peer == str(ID.from_pubkey(Ed25519PublicKey.from_bytes(public.raw)))
        assert PublicKey.of_peer(public.peer) == public


@given(st.text(max_size=80))
def test_other_peer_ids_are_refused(text):
    try:
        key = PublicKey.of_peer(text)
    except ValueError:
        return
    assert key.peer == text


def test_a_key_file_is_made_once_with_mode_0600(tmp_path):
    path = tmp_path / "node.key"
    made = load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create(path).peer == made.peer


def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "node.key"
    load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create(path)


def test_a_damaged_key_is_refused(tmp_path):
    path = tmp_path / "node.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="5 bytes"):
        load_or_create(path)


def test_keys_do_not_leak():
    key = PrivateKey(SEED)
    assert SEED.hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
