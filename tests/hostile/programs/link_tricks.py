"""Makes names for files that are not its own: hard links, symbolic links, renames, whiteouts."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import errors_of


def attack() -> dict[str, int]:
    os.symlink("/etc/shadow", "/tmp/shadow")
    return errors_of(
        into_image=lambda: os.link("/open/file", "/open/name"),
        out_of_image=lambda: os.link("/open/file", "/tmp/name"),
        of_a_process=lambda: os.link("/proc/self/exe", "/tmp/exe", follow_symlinks=True),
        symbolic=lambda: os.symlink("/etc/shadow", "/open/shadow"),
        rename=lambda: os.rename("/open/file", "/open/other"),
        through_a_link=lambda: os.open("/tmp/shadow", os.O_RDONLY),
        mode=lambda: os.chmod("/open/file", 0o4777),
        times=lambda: os.utime("/open/file", (0, 0)),
        attribute=lambda: os.setxattr("/open/file", "user.x", b"x"),
        unlink=lambda: os.unlink("/open/file"),
    )
