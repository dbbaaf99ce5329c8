"""GPUs for what is no call, such as a step of an image's build."""

import pytest
import trio
from tests.meshnode.devices.test_watch import ONE, Played

from potluck.errors import RefusedError
from potluck_ledger.keys import PrivateKey
from potluck_node.clock import SystemClock
from potluck_node.core.provider import Capacity
from potluck_node.devices.interface import Binding
from potluck_node.provider import Provider


class OneGpu(Played):
    def binding(self, uuids):
        return Binding(env={"CUDA_VISIBLE_DEVICES": ",".join(uuids)})


async def provider(*devices):
    made = Provider(
        "ann", PrivateKey(bytes(range(32))), Capacity(1000, 512), None, None, None, SystemClock(), idle_us=1,
        devices=OneGpu(*devices),
    )  # fmt: skip
    await made.gpus.look()
    return made


async def test_a_gpu_is_lent_for_as_long_as_the_block_lasts():
    node = await provider(ONE)
    with pytest.raises(KeyError), node.lend(("A10G",)) as binding:
        assert binding.env == {"CUDA_VISIBLE_DEVICES": "GPU-1"}
        assert node.core.gpus.offers()[0].state == "leased"
        with pytest.raises(RefusedError, match="its GPUs are leased"), node.lend(("any",)):
            pass
        raise KeyError
    assert node.core.gpus.offers()[0].state == "free"
    await trio.lowlevel.checkpoint()


async def test_what_is_not_there_is_refused_with_the_reason():
    node = await provider(ONE)
    with pytest.raises(RefusedError, match="it lends NVIDIA A10G"), node.lend(("H100",)):
        pass
