"""What identifies a function, and what must not."""

from msgspec.structs import replace

from potluck.wire import FunctionSpec, Scaling, function_id

SPEC = FunctionSpec("app", "f", "image", "3.11", module="m", qualname="f")


def test_workers_are_shared_whatever_their_number():
    assert function_id(replace(SPEC, scaling=Scaling(min_containers=3))) == function_id(SPEC)


def test_secrets_are_neither_hashed_nor_shown():
    told = replace(SPEC, secrets=(("TOKEN", "hunter2"),), salt=b"1")
    assert function_id(told) == function_id(replace(SPEC, salt=b"1"))
    assert function_id(told) != function_id(replace(told, salt=b"2"))
    assert "hunter2" not in repr(told)
