"""A program that places one call of a plan when it is told to: `python -m tests.e2e.plan_client CALL`, as JSON.

It prints "ready", waits for a line, and prints in the end what came when, by the clock that all processes share; it
stays until its input ends, as the others need what it has warmed.
"""

import json
import sys
import time

import msgspec
from tests.e2e import plan_sample

from potluck_netsim.tiers.plan import Call


def place(call):
    """When it was placed, when it was over, and (time, index, kind) of each outcome."""
    placed_s = time.monotonic()
    inputs = [(index, call.run_s, call.raises(index)) for index in range(call.inputs)]
    outcomes = plan_sample.work.starmap(inputs, order_outputs=False, return_exceptions=True)
    came = [(time.monotonic(), *told(outcome)) for outcome in outcomes]
    return {"placed_s": placed_s, "over_s": time.monotonic(), "came": came}


def told(outcome):
    if isinstance(outcome, ValueError):
        return outcome.args[0], "exception"
    return (-1, "failure") if isinstance(outcome, BaseException) else (outcome, "result")


def main():
    call = msgspec.json.decode(sys.argv[1], type=Call)
    with plan_sample.app.run(show_progress=False):
        # A program's first call imports what it needs, and waits for its image.
        list(plan_sample.touch.map(range(1)))
        print("ready", flush=True)
        sys.stdin.readline()
        print("outcome", json.dumps(place(call)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
