"""The command that stands before bwrap. It enters the limits itself, so that nothing ever runs outside of them.

A process that moves itself into a control group does so at once; moved by another, it waits for all processors (4 ms
per hierarchy, measured), which is why the node does not do it. One shell does everything that needs no program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from potluck_node.sandbox.cgroups import Group
from potluck_node.sandbox.interface import Limits

# POSIX: `ulimit -f` counts in blocks of 512 bytes.
BLOCK_BYTES = 512

# Arguments: files, blocks, number of groups, a file each, number of mounts, source and target each, the command.
# Where a limit is lower already, setting it fails, and the lower one holds.
_SCRIPT = """
ulimit -c 0
ulimit -n "$1" 2>/dev/null || :
ulimit -f "$2" 2>/dev/null || :
shift 2
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 1; shift; n=$((n-1)); done
n=$1; shift
while [ "$n" -gt 0 ]; do mount --bind "$1" "$2" || exit 1; shift 2; n=$((n-1)); done
exec "$@"
"""


def command(limits: Limits, group: Group | None, moved: Sequence[tuple[Path, Path]], drop: Sequence[str]) -> list[str]:
    """What to put before bwrap: enters `limits` and `group`, makes the mounts `moved`, and becomes another user."""
    unshare = ["unshare", "--mount", "--propagation", "private", "--"] if moved else []
    entries = [] if group is None else [str(path) for path in group.entries()]
    pairs = [str(path) for pair in moved for path in pair]
    bounds = [str(limits.open_files), str((limits.file_mib << 20) // BLOCK_BYTES)]
    return [*unshare, "sh", "-c", _SCRIPT, "sh", *bounds, str(len(entries)), *entries, str(len(moved)), *pairs, *drop]
