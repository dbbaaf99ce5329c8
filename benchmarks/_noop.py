import potluck

app = potluck.App("bench")


@app.function(cpu=1, memory=256)
def noop(x: int) -> int:
    return x
