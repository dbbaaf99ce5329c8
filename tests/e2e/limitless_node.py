"""A node on a machine without control groups."""

from potluck_node import main
from potluck_node.sandbox import cgroups

if __name__ == "__main__":
    cgroups.detect = lambda: cgroups.Cgroups({}, v2=False)
    main.main()
