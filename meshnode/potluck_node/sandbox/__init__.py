"""Where other people's code runs; the only package that spawns sandboxes."""
