"""Web endpoints made with FastAPI: a function, an application that streams, and a method of a model."""

import potluck

app = potluck.App("example-web")
image = potluck.Image.local_python().uv_pip_install("fastapi")


@app.function(image=image)
@potluck.concurrent(max_inputs=10)
@potluck.fastapi_endpoint(docs=True)
def add(left: int, right: int = 1):
    return {"sum": left + right}


@app.function(image=image)
@potluck.asgi_app()
def words():
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    web = FastAPI()

    @web.get("/stream/{count}")
    async def stream(count: int):
        return StreamingResponse((f"{number} " for number in range(count)), media_type="text/event-stream")

    return web


@app.cls(image=image)
class Model:
    @potluck.enter()
    def load(self):
        self.bias = 100

    @potluck.fastapi_endpoint(method="POST", label="predict")
    def predict(self, item: dict):
        return item["x"] + self.bias
