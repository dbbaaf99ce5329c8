"""The daemon: transport, discovery, placement, calls, worker pools, sandboxes, ledger."""
