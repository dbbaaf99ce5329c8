"""All of `potluck mesh …`: its commands are in several modules."""

from __future__ import annotations

from potluck.cli import rules, strangers
from potluck.cli.mesh import mesh

for command in (rules.reserve, rules.priority, rules.limit, rules.rules):
    mesh.add_command(command)
# It adds itself.
assert strangers.peers.name in mesh.commands

__all__ = ["mesh"]
