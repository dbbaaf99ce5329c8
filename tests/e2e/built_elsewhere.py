"""An app whose image another node can build."""

import os
import subprocess
from pathlib import Path

import potluck

HERE = Path(__file__).parent
SHELL = "/bin/sh"


def small() -> potluck.Image:
    """A shell with its libraries, and nothing else: nothing is downloaded."""
    listed = subprocess.run(["ldd", os.path.realpath(SHELL)], check=True, capture_output=True, text=True).stdout
    libraries = {word for word in listed.split() if word.startswith("/")}
    image = potluck.Image.from_scratch().add_local_file(os.path.realpath(SHELL), SHELL, copy=True)
    for library in sorted(libraries):
        image = image.add_local_file(os.path.realpath(library), library, copy=True)
    return image.workdir("/srv")


app = potluck.App("elsewhere")
debian = (
    potluck.Image.debian_slim()
    .pip_install("tinynetrc==1.3.1")
    .run_commands("echo made > /srv/made")
    .add_local_dir(HERE, "/srv/tests", ignore=["**", "!pictures.py"])
)


@app.function(image=debian)
def look() -> str:
    import tinynetrc

    return f"{Path('/srv/made').read_text().strip()} {os.listdir('/srv/tests')} {tinynetrc.__name__}"


@app.local_entrypoint()
def main() -> None:
    print(look.remote())
