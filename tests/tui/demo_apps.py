"""What runs in the recording of the demo: functions that take their time."""

import time

import potluck

app = potluck.App("demo")


@app.function(gpu="any")
def train(epochs: int) -> int:
    for epoch in range(epochs):
        print(f"epoch {epoch}: loss {2.5 / (epoch + 1):.3f}", flush=True)
        time.sleep(1)
    return epochs


@app.function()
def transcribe(minutes: float) -> float:
    print(f"heard {minutes:g} minutes", flush=True)
    time.sleep(minutes)
    return minutes


@app.function()
def render(frame: int) -> int:
    time.sleep(0.8)
    print(f"frame {frame} is done", flush=True)
    return frame
