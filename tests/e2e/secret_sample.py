"""Functions with secrets."""

import os

import potluck

app = potluck.App("secretive", secrets=[potluck.Secret.from_name("kept")])


@app.function(timeout=60)
def reveal() -> str:
    return os.environ["KEPT_TOKEN"][::-1]


@app.function(timeout=60)
def given(secret: potluck.Secret) -> str:
    (value,) = dict(potluck.secret.values(secret)).values()
    return value[::-1]


@app.function(timeout=60)
def fail() -> None:
    token = os.environ["KEPT_TOKEN"]
    raise ValueError(f"a token of {len(token)} letters")
