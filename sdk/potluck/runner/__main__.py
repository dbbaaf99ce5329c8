"""`python -m potluck.runner`: started by the node with the zygote's socket as standard input."""

from potluck.runner.zygote import main

main()
