"""An app for tests of deploying, logs and stopping."""

import os
import time
from pathlib import Path

import potluck

app = potluck.App("lasting")


@app.function()
def greet(name: str, seconds: float = 0.0) -> str:
    print(f"greeting {name}")
    time.sleep(seconds)
    return f"hello {name}"


@app.function(secrets=[potluck.Secret.from_dict({"TOKEN": "hunter2"})])
def token() -> str:
    return os.environ["TOKEN"]


@app.cls()
class Counter:
    start: int = potluck.parameter(default=0)

    @potluck.method()
    def add(self, number: int) -> int:
        return self.start + number


@app.local_entrypoint()
def leave_a_note(place: Path, seconds: float = 0.0) -> None:
    place.with_suffix(".begun").touch()
    time.sleep(seconds)
    print("a line that nobody may see any more")
    place.write_text(greet.remote("note"))
