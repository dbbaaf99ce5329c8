"""A node to whose functions a web server on loopback, at the port `WEB_PORT`, is the public internet."""

import os
from dataclasses import replace

from tests.meshnode.sandbox import web

from potluck_node import main
from potluck_node.sandbox.network import Gateway
from potluck_node.sandbox.network_policy import Policy


def gateway(asked, allowed, say):
    policy = Policy(asked, allowed, (("127.0.0.1", int(os.environ["WEB_PORT"])),))
    return Gateway(policy, say, web.resolve)


if __name__ == "__main__":
    parts = main._parts
    main._parts = lambda *arguments: replace(parts(*arguments), gateway=gateway)
    main.main()
