import potluck

app = potluck.App("hello")


@app.function()
def square(number: int) -> int:
    print(f"squaring {number}")
    return number * number


@app.local_entrypoint()
def main(count: int = 5) -> None:
    print("one:", square.remote(12))
    print("many:", list(square.map(range(count))))
