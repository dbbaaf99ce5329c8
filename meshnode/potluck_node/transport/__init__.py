"""How nodes reach each other; `interface.py` is the seam, `libp2p/` and `memory.py` implement it."""
