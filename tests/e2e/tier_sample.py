"""Functions that say which kernel they see, for tests of the sandbox tiers."""

import os

import potluck

app = potluck.App("tiers")


def seen() -> tuple[str, str]:
    """(release of the kernel, whether this claims to be a sandbox)."""
    return os.uname().release, os.environ.get("POTLUCK_SANDBOX", "")


plain = app.function(name="plain")(seen)
strict = app.function(name="strict", sandbox="gvisor")(seen)


@app.function(sandbox="gvisor", memory=256)
def eat(mib: int) -> int:
    return len(bytearray(mib << 20).replace(b"\0", b"\1"))
