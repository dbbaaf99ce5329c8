"""What calls of a plan call: `potluck_netsim.tiers` has it in virtual time."""

import time

import potluck

app = potluck.App("plan")


@app.function(timeout=60)
def work(index: int, run_s: float, raises: bool) -> int:
    # So that whoever reads the log knows of each run, also of one that comes to nothing.
    print(f"began {index}", flush=True)
    time.sleep(run_s)
    if raises:
        raise ValueError(index)
    return index


@app.function(scaledown_window=2)
def touch(_number: int) -> None:
    """Has the image come to whoever runs this."""
    time.sleep(0.2)
