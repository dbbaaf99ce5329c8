"""A class that loads once, with parameters, and other settings for some objects."""

import os

import modal

app = modal.App("example-classes")


@app.cls(scaledown_window=60, enable_memory_snapshot=True)
class Model:
    name: str = modal.parameter()
    scale: int = modal.parameter(default=2)

    @modal.enter(snap=True)
    def load(self):
        self.weights = [len(self.name)]

    @modal.enter()
    def start(self):
        self.pid = os.getpid()

    @modal.method()
    def predict(self, x: int) -> int:
        return x * self.scale + self.weights[0]

    @modal.method()
    async def where(self) -> int:
        return self.pid

    @modal.exit()
    def stop(self):
        print("stopping", self.name)


@app.local_entrypoint()
def main():
    model = Model(name="abc")
    print("one:", model.predict.remote(10))
    print("many:", list(model.predict.map([1, 2, 3])))
    print("same worker:", model.where.remote() == model.where.remote())
    print("scaled:", Model(name="abc", scale=5).predict.remote(10))
    print("elsewhere:", Model.with_options(memory=256)(name="abcd").predict.remote(10))
    print("here:", model.predict.local(10))
