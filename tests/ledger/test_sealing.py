import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_ledger.keys import PrivateKey, PublicKey
from potluck_ledger.sealing import LOCK_BYTES, SealError, Vault, is_locked, seal, unseal

KEY, OTHER = PrivateKey(bytes(32)), PrivateKey(bytes(range(32)))


@given(st.binary(max_size=2000), st.text(max_size=20))
def test_what_is_locked_or_sealed_opens_for_its_use(data, context):
    vault = Vault(KEY)
    locked = vault.lock(data, context)
    assert is_locked(locked)
    assert len(locked) == len(data) + LOCK_BYTES
    assert vault.unlock(locked, context) == data
    assert unseal(OTHER, seal(OTHER.public, data, context), context) == data


@given(st.data())
def test_a_changed_byte_is_noticed(data):
    vault = Vault(KEY)
    for made, open_ in (
        (vault.lock(b"secret", "a"), lambda changed: vault.unlock(changed, "a")),
        (seal(OTHER.public, b"secret", "a"), lambda changed: unseal(OTHER, changed, "a")),
    ):
        at = data.draw(st.integers(0, len(made) - 1))
        with pytest.raises(SealError):
            open_(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :])
        with pytest.raises(SealError):
            open_(made[:at])


def test_no_other_key_and_no_other_use_opens_it():
    locked, sealed = Vault(KEY).lock(b"secret", "a"), seal(OTHER.public, b"secret", "a")
    assert b"secret" not in locked + sealed
    assert locked != Vault(KEY).lock(b"secret", "a")
    for attempt in (
        lambda: Vault(OTHER).unlock(locked, "a"),
        lambda: Vault(KEY).unlock(locked, "b"),
        lambda: Vault(KEY).unlock(b"secret", "a"),
        lambda: unseal(KEY, sealed, "a"),
        lambda: unseal(OTHER, sealed, "b"),
        lambda: seal(PublicKey(b"\xff" * 32), b"secret", "a"),
    ):
        with pytest.raises(SealError):
            attempt()
    assert "secret" not in repr(Vault(KEY))
