"""An app whose functions run in images of their own; the one of `picture` needs Debian's mirrors."""

import os
import subprocess
import sys

import potluck

app = potluck.App("pictures")

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON_SHELL = ["/opt/python/bin/python3", "-c"]

made = potluck.Image.local_python().shell(PYTHON_SHELL).run_commands("open('/made', 'w').write('by a command')")
broken = made.run_commands("print('almost'); raise SystemExit('the reason')")
debian = (
    potluck.Image.debian_slim()
    .apt_install("figlet")
    .pip_install("tinynetrc==1.3.1")
    .run_commands("figlet -f small ok > /srv/banner", "python3 -m compileall -q /opt/site")
    .workdir("/srv")
    .env({"WHO": "you"})
    .add_local_dir(HERE, "/srv/tests", ignore=["**", "!pictures.py"])
)


@app.function(image=made)
def read(path: str) -> str:
    with open(path) as file:
        return file.read()


@app.function(image=broken)
def never() -> None:
    pass


@app.function(image=debian)
def picture(text: str) -> dict:
    import tinynetrc

    return {
        "figlet": subprocess.run(["figlet", text], check=True, capture_output=True, text=True).stdout,
        "module": tinynetrc.__file__,
        "cached": os.path.exists(tinynetrc.__cached__),
        "here": sorted(os.listdir(".")),
        "tests": os.listdir("tests"),
        "who": os.environ["WHO"],
        "python": sys.executable,
    }
