"""Checked by mypy and pyright, never run: a function keeps its signature through the decorator."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import potluck

app = potluck.App("typing", image=potluck.Image.local_python().pip_install("numpy"))


@app.function(gpu=["A10G", "any"], cpu=2, memory=1024, timeout=60, retries=potluck.Retries(max_retries=3))
def scale(values: list[int], factor: float = 2.0) -> list[float]:
    return [factor * value for value in values]


@app.function()
async def greet(name: str) -> str:
    return f"hello {name}"


# mypy knows no dataclass_transform on methods (python/mypy#16527): to it, objects have no parameters.
@app.cls(cpu=2, retries=1)
class Model:
    name: str = potluck.parameter(default="small")
    size: int = potluck.parameter()
    weights: list[float] = potluck.parameter(init=False)

    @potluck.enter(snap=True)
    def load(self) -> None:
        self.weights = [1.0]

    @potluck.exit()
    async def close(self) -> None: ...

    @potluck.method()
    def predict(self, x: float, scale: int = 1) -> list[float]:
        assert_type(self.load(), None)
        assert_type(self.describe.local("a"), str)
        return [x * scale]

    @potluck.method()
    async def describe(self, text: str) -> str:
        return text


def a_model() -> Model:
    return Model(size=1)  # type: ignore[call-arg]


@app.local_entrypoint()
def main(count: int = 3) -> None:
    assert_type(scale.remote([1, 2], factor=1.5), list[float])
    assert_type(scale.remote([1, 2]), list[float])
    assert_type(scale.local([1]), list[float])
    assert_type(scale.map([[1], [2]]), Iterator[list[float]])
    assert_type(scale.starmap([([1], 2.0)]), Iterator[list[float]])
    assert_type(scale.map.aio([[1]]), AsyncIterator[list[float]])
    assert_type(scale.for_each([[1]]), None)
    assert_type(greet.remote("you"), str)
    model = Model(name="large", size=3)  # type: ignore[call-arg]
    assert_type(model, Model)
    assert_type(model.name, str)
    assert_type(model.predict.remote(1.0, scale=2), list[float])
    assert_type(model.predict.local(1.0), list[float])
    assert_type(model.predict.map([1.0]), Iterator[list[float]])
    assert_type(model.predict.starmap([(1.0, 2)]), Iterator[list[float]])
    assert_type(model.describe.remote("a"), str)
    with app.run() as running:
        assert_type(running, potluck.App)


async def awaited() -> None:
    assert_type(await scale.remote.aio([1]), list[float])
    assert_type(await greet.remote.aio("you"), str)
    assert_type(await a_model().predict.remote.aio(1.0), list[float])
    async for each in greet.map.aio(["a"]):
        assert_type(each, str)


def mistakes() -> None:
    scale.remote("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scale.remote([1], factor="two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scale.remote()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    greet.remote(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.function(gpus="A10G")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    a_model().predict.remote("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a_model().predict.remote()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Model(size="text")  # type: ignore[call-arg]  # pyright: ignore[reportArgumentType]
    Model()  # pyright: ignore[reportCallIssue]
    Model(size=1, weights=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Model.predict.remote(1.0)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
