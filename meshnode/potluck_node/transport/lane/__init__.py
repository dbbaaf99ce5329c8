"""Lanes: direct TLS connections between two nodes that know each other through the mesh already."""
