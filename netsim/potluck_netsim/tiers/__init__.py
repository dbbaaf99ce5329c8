"""One plan, run by three tiers: the simulator, the node's own code on virtual time, and real processes.

What the simulator shows is worth as much as it is like the others; `outcome.disagreements` says where it is not.
"""
