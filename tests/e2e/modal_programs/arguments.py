"""An entrypoint with arguments; positional, keyword and default ones of functions; variables; secrets."""

import os

import modal

app = modal.App(name="example-arguments", secrets=[modal.Secret.from_dict({"GREETING": "hello"})])


@app.function(cpu=0.5, memory=256, timeout=60, env={"MARK": "!"}, volumes={}, cloud=None, nonpreemptible=False)
def greet(name: str, *, times: int = 1) -> str:
    return " ".join([os.environ["GREETING"], name, os.environ["MARK"] * times])


@app.function(name="renamed", serialized=True)
def power(base: int, exponent: int) -> int:
    return base**exponent


@app.local_entrypoint()
def main(name: str, times: int = 1, loud: bool = False):
    said = greet.remote(name, times=times)
    print("said:", said.upper() if loud else said)
    print("powers:", list(power.starmap([(2, 3), (3, 2)])))
    print("with kwargs:", list(greet.map(["a", "b"], kwargs={"times": 2})))
    print("as they come:", sorted(power.map([1, 2], [2, 2], order_outputs=False)))
