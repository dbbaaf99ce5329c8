"""How commands talk to the local node."""

from __future__ import annotations

from potluck import start
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control


def client() -> Client:
    """Connect to the running node. Raises `ConnectionError` with what to do when there is none."""
    return Client(start.path(), PlainOutput(), "cli")


def ask_status() -> control.Status:
    """The node's status now."""
    connection = client()
    try:
        return connection.ask(control.AskStatus, control.Status)
    finally:
        connection.close()
