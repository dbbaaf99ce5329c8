"""The first thing anyone runs: here, there, and many at once."""

import sys

import modal

app = modal.App("example-hello")


@app.function()
def square(number: int) -> int:
    if number % 2:
        print("odd", number)
    else:
        print("even", number, file=sys.stderr)
    return number**2


@app.local_entrypoint()
def main():
    print("here:", square.local(3))
    print("there:", square.remote(4))
    print("many:", sum(square.map(range(20))))
