"""Returns and raises objects whose unpickling, text and traceback run code."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")


class Trap(Exception):
    def __reduce__(self):
        return exec, ("import os; os._exit(66)",)

    def __str__(self) -> str:
        raise SystemExit("in __str__")


def attack() -> None:
    raise Trap from Trap()
