"""Functions that fetch something, for tests of the network."""

import os
import urllib.error
import urllib.request

import potluck

app = potluck.App("net")


def fetch(url: str) -> str:
    try:
        return urllib.request.urlopen(url, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return str(error)


if "POTLUCK_SANDBOX" in os.environ:
    # The network is there while the module is imported, and what is refused then is told to the first who runs.
    AT_IMPORT = fetch("http://imported.org/")

without = app.function(name="without")(fetch)
listed = app.function(name="listed", outbound_domain_allowlist=["files.example.org", "lan.example.org"])(fetch)
strict = app.function(name="strict", outbound_domain_allowlist=["files.example.org"], sandbox="gvisor")(fetch)
everything = app.function(name="everything", block_network=False)(fetch)
