"""The contributor's terminal: a Textual app that is a client of the local node."""
