"""Pure deciding: each core takes events and returns actions; no I/O, no clock, no randomness of its own."""
