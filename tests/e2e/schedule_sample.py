"""An app that runs by itself, and answers requests."""

import potluck

app = potluck.App("nightly")


@app.function(schedule=potluck.Period(seconds=2), secrets=[potluck.Secret.from_dict({"TOKEN": "hunter2"})])
def tick() -> str:
    import os

    print("tick of", os.environ["TOKEN"][0])
    return "ticked"


@app.function(schedule=potluck.Cron("0 4 * * *", timezone="Europe/Berlin"))
def nightly() -> None:
    raise ValueError("not tonight")


@app.function(schedule=potluck.Cron("* * * * *"))
def minutely() -> None:
    print("a minute")


@app.function(cpu=0.5)
@potluck.asgi_app()
def page():
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a page"})

    return answer
