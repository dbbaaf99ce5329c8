"""Volumes: trees with signed, versioned heads; kept by their owner, mounted where functions run."""
