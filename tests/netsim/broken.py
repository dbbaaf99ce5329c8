"""For tests that take a defence away: the promise that is broken then."""

from potluck_netsim.world import PromiseBroken


def first_broken(lab, seeds):
    """How the promise is broken in the first world where it is, "" where it is in none."""
    for seed in seeds:
        try:
            lab(seed).run()
        except PromiseBroken as broken:
            return str(broken)
    return ""
