"""Makes itself the last one to be killed for want of memory, and everybody else the first."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import error_of


def attack() -> dict[str, int]:
    return {who: error_of(lambda who=who: write(who)) for who in ("self", "1")}


def write(who: str) -> None:
    with open(f"/proc/{who}/oom_score_adj", "w") as file:
        file.write("-1000" if who == "self" else "1000")
