import potluck

app = potluck.App("bench-payloads")


@app.function(cpu=1, memory=2048, image=potluck.Image.local_python().pip_install("numpy"))
def echo(x: object) -> object:
    return x
