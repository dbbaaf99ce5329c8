"""Checked by mypy and pyright, never run: a function keeps its signature through the decorator."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import potluck

app = potluck.App("typing", image=potluck.Image.local_python().pip_install("numpy"))


@app.function(gpu=["A10G", "any"], cpu=2, memory=1024, timeout=60, retries=potluck.Retries(max_retries=3))
def scale(values: list[int], factor: float = 2.0) -> list[float]:
    return [factor * value for value in values]


@app.function()
async def greet(name: str) -> str:
    return f"hello {name}"


counts = potluck.Dict.from_name("counts", create_if_missing=True)
jobs = potluck.Queue.from_name("jobs")


async def share() -> None:
    assert_type(counts.len(), int)
    assert_type(counts.put("a", 1, skip_if_exists=True), bool)
    assert_type(await counts.contains.aio("a"), bool)
    assert_type(list(counts.items()), list[tuple[Any, Any]])
    assert_type(await jobs.get_many.aio(3, timeout=1), list[Any])
    assert_type(jobs.put(1, partition="p"), None)
    assert_type(potluck.Dict.objects.list(), list[potluck.Dict])
    with potluck.Queue.ephemeral() as queue:
        assert_type(queue, potluck.Queue)
    async for item in jobs.iterate.aio(item_poll_timeout=1.0):
        assert_type(item, Any)


files = potluck.Volume.from_name("files", create_if_missing=True)


async def store() -> None:
    assert_type(files.commit(), None)
    assert_type(await files.reload.aio(), None)
    assert_type([entry.size for entry in files.listdir("/", recursive=True)], list[int])
    assert_type(b"".join(files.read_file("a")), bytes)
    async for piece in files.read_file.aio("a"):
        assert_type(piece, bytes)
    with files.batch_upload(force=True) as batch:
        assert_type(batch.put_file("a", "/b"), None)
    assert_type(files.with_mount_options(read_only=True, sub_path="a"), potluck.Volume)
    assert_type(potluck.Volume.rename("a", "b"), None)
    assert_type(files.restore(3, "a"), int)


@app.function(secrets=[potluck.Secret.from_dict({"A": "b"})], region=["eu", "us"], labels={"disk": "fast"})
@potluck.concurrent(max_inputs=10, target_inputs=8)
async def ask(question: str) -> int:
    return len(question)


@app.function(
    min_containers=1, max_containers=4, scaledown_window=60, cpu=(1, 2), volumes={"/files": files.read_only()}
)
def steps(to: int) -> Iterator[int]:
    yield from range(to)


@app.function()
@potluck.batched(max_batch_size=4, wait_ms=10)
def embed(texts: list[str]) -> list[float]:
    return [1.0 for _ in texts]


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
    # A batched function is called with single values, which its own signature does not say.
    assert_type(embed.remote("text"), Any)
    other = scale.with_options(gpu="H100", max_containers=2).with_concurrency(max_inputs=4)
    assert_type(other.remote([1], factor=1.0), list[float])
    assert_type(ask.remote("how"), int)
    assert_type(steps.remote_gen(3), Iterator[Any])
    assert_type(scale.get_current_stats().backlog, int)
    assert_type(scale.update_autoscaler(min_containers=1), None)
    assert_type(potluck.Cls.from_name("app", "Model").with_options(cpu=1)(size=1), Any)
    assert_type(potluck.is_local(), bool)
    assert_type(potluck.current_input_id(), str | None)


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
    scale.with_options(cpu=1).remote("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scale.with_options(image=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    steps.remote_gen("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.function(timeout="a minute")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.cls(name="Model")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    greet.remote(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.function(gpus="A10G")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    a_model().predict.remote("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a_model().predict.remote()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Model(size="text")  # type: ignore[call-arg]  # pyright: ignore[reportArgumentType]
    Model()  # pyright: ignore[reportCallIssue]
    Model(size=1, weights=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Model.predict.remote(1.0)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
