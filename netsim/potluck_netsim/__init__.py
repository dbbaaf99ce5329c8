"""A deterministic world that drives the node's own cores on virtual time."""
