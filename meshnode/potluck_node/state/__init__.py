"""Shared state on the owner's node: dicts, queues and secrets."""
