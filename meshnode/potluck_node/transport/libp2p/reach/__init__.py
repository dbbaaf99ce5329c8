"""Nodes behind routers: finding out what stands in front of us, and getting through with a relay's help."""
