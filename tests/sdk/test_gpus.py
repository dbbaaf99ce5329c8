import pytest
from hypothesis import given
from hypothesis import strategies as st

import potluck
from potluck.errors import InvalidError
from potluck.gpus import GpuRequest, gpu_matches, parse_gpu

A100_40 = ("NVIDIA A100-SXM4-40GB", 40960)
A100_80 = ("NVIDIA A100 80GB PCIe", 81920)
A100_SLICE = ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864)
H100 = ("NVIDIA H100 80GB HBM3", 81559)
T4 = ("Tesla T4", 15360)
RTX_4090 = ("NVIDIA GeForce RTX 4090", 24564)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("any", ("any",)),
        ("A10G", ("a10g",)),
        ("H100:2", ("h100", 2)),
        ("H100!", ("h100!",)),
        ("any:>=16GB", ("any", 1, 15258)),
        ("A100:2:>=40GiB", ("a100", 2, 40960)),
        ("any:4GiB", ("any", 1, 4096, True)),
    ],
)
def test_requests_are_read(text, request_):
    assert parse_gpu(text) == GpuRequest(*request_)


@pytest.mark.parametrize(
    "text", ["", ":2", "A10G:0", "A10G:17", "A10G:x", "a:b:c", "A10G:2:2", "any:2:4GB", "any:>=0GB", "any:>16GB", "!"]
)
def test_nonsense_is_refused_where_the_function_is_defined(text):
    with pytest.raises(InvalidError) as caught:
        potluck.App("x").function(gpu=text)
    assert caught.value.fix


@pytest.mark.parametrize("gpu", [7, ["A10G", 7], [], ["any"] * 17])
def test_so_is_what_is_no_request_at_all(gpu):
    with pytest.raises(InvalidError):
        potluck.App("x").function(gpu=gpu)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        request = parse_gpu(text)
    except InvalidError:
        return
    gpu_matches(request, "NVIDIA A10G", 24576)


@pytest.mark.parametrize(
    ("wanted", "gpu", "fits"),
    [
        ("any", H100, True),
        ("A10G", ("NVIDIA A10G", 23028), True),
        ("A10", ("NVIDIA A10G", 23028), False),
        ("A100", A100_40, True),
        ("A100-40GB", A100_40, True),
        ("A100-80GB", A100_40, False),
        ("A100-80GB", A100_80, True),
        ("A100", A100_SLICE, False),
        ("any", A100_SLICE, True),
        ("1g.5gb", A100_SLICE, True),
        ("MIG-A100", A100_SLICE, True),
        ("H100!", H100, True),
        ("H100-80GB", ("NVIDIA H100 PCIe", 81559), True),
        ("H100", ("NVIDIA H200", 143771), False),
        ("L4", ("NVIDIA L40S", 46068), False),
        ("L40S", ("NVIDIA L40S", 46068), True),
        ("T4", T4, True),
        ("B200", ("NVIDIA GB200", 189471), False),
        ("RTX 4090", RTX_4090, True),
        ("rtx4090", RTX_4090, True),
        ("RTX 4070", ("NVIDIA GeForce RTX 4070 Ti", 12282), False),
        ("any:>=16GB", T4, True),
        ("any:>=24GB", T4, False),
    ],
)
def test_product_names(wanted, gpu, fits):
    assert gpu_matches(parse_gpu(wanted), *gpu) is fits
