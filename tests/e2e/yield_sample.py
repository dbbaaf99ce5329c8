"""Functions that save what they have when the owner of their machine comes back."""

import time

import potluck

app = potluck.App("yielding")
saves = potluck.Dict.from_name("saves", create_if_missing=True)


@app.function()
def train(steps: int) -> tuple[int, bool]:
    """From which step it went on, and whether whoever worked before was told when its grace began."""
    begun = step = saves.get("step", 0)
    told = False
    try:
        while step < steps:
            time.sleep(0.05)
            step += 1
            told = told or potluck.preempted()
    except KeyboardInterrupt:
        saves["told"], saves["step"] = told, step
        raise
    return begun, saves.get("told", False)


@app.function()
def endure(seconds: float) -> str:
    """Takes no notice, and has the time that it needs."""
    time.sleep(seconds)
    return "done"


@app.function(gpu="any")
def stubborn() -> None:
    """Will not go. Under a name by which its process is found."""
    with open("/proc/self/comm", "w") as name:
        name.write("stubborn")
    while True:
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            continue


@app.cls(gpu="any")
class Keeper:
    @potluck.method()
    def work(self, seconds: float) -> str:
        import os

        self.gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        saves["began"] = self.gpu
        time.sleep(seconds)
        return self.gpu

    @potluck.exit()
    def leave(self) -> None:
        saves["left"] = self.gpu
