"""Makes empty files, which take no space in a file system but memory of the kernel."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

FILES = 150_000


def attack() -> int:
    made = 0
    try:
        while made < FILES:
            os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        return -(error.errno or 1)
    return made
