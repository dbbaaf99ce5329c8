"""Whatever a peer asks for, what is used of it can be signed: a receipt that does not fit must not end the node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.meshnode.core.worlds import spec

from potluck_ledger.entries import NOTE_MAX, Dispute, Voucher, cut, sign
from potluck_ledger.keys import PrivateKey
from potluck_node.core.admission import nonsense
from potluck_node.core.gpu_meter import GpuUse
from potluck_node.core.gpus import Gpu
from potluck_node.core.meter import LeaseMeter
from potluck_node.core.receipts import unbillable, write_receipt

CALLER, PROVIDER = PrivateKey(bytes(32)), PrivateKey(bytes([1]) * 32)
IMAGE = "ab" * 32
TEXTS = st.text(max_size=300)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 9))
def test_what_passes_the_door_can_be_signed(lease, app, name, reason, gpus):
    if unbillable(lease, CALLER.peer):
        lease = "l" * 32
    use = GpuUse(gpus={f"GPU-{n:036d}": Gpu(f"GPU-{n:036d}", "NVIDIA H200 ü" * (n + 1), 1) for n in range(gpus)})
    receipt = write_receipt(
        lease=lease, caller=CALLER.peer, provider=PROVIDER.peer, spec=replace(spec(), app=app, name=name, image=IMAGE),
        meter=LeaseMeter(run_us=1 << 60, inputs=1 << 40), times=(1 << 60, 1 << 61), nonce=bytes(16), reason=reason,
        gpu=use if gpus else None, tier="process",
    )  # fmt: skip
    sign(PROVIDER, receipt)
    sign(PROVIDER, Voucher(lease, CALLER.peer, PROVIDER.peer, 1 << 40, 1 << 60, 1 << 61))
    parties = PROVIDER.peer, CALLER.peer, lease
    sign(PROVIDER, Dispute(*parties, 1 << 60, 1 << 59, 1 << 61, bytes(32), cut(reason, NOTE_MAX)))


@pytest.mark.parametrize("lease", ["", "l" * 33, "\N{SNOWMAN}" * 11])
def test_a_lease_whose_name_does_not_fit_is_refused(lease):
    assert "name" in unbillable(lease, CALLER.peer)


@pytest.mark.parametrize("peer", ["", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "12D3KooW", "1" * 10_000])
def test_a_caller_that_cannot_sign_is_refused(peer):
    assert "Ed25519" in unbillable("lease", peer)
    assert unbillable("lease", CALLER.peer) == ""


@pytest.mark.parametrize("image", ["", "image", "ab" * 31, "AB" * 32, "zz" * 32, "ab" * 32 + "\n"])
def test_an_image_that_is_no_digest_is_refused(image):
    assert nonsense(replace(spec(), image=image)) == "it names no image"
    assert nonsense(replace(spec(), image=IMAGE)) == ""
