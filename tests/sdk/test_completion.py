"""What Tab offers, as the shells ask for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potluck.cli.completion import SHELLS

POTLUCK = str(Path(sys.executable).with_name("potluck"))
FILE = """
import potluck
raise SystemExit("this file was run")
app = potluck.App("a")

@app.function()
def greet(): pass

@app.cls(cpu=2)
class Model: pass

@app.local_entrypoint()
async def main(): pass

def helper(): pass
"""


def offered(*words, shell="zsh", **env):
    """What is offered for the last word."""
    asked = {"_POTLUCK_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([POTLUCK], env={**os.environ, **asked, **env}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_names_in_a_file_are_offered_without_running_it(tmp_path):
    file = tmp_path / "some_app.py"
    file.write_text(FILE)
    shown = offered("potluck", "run", f"{file}::")
    assert [name for name in ("greet", "Model", "main", "helper") if f"::{name}" in shown] == ["greet", "Model", "main"]
    assert "::Model" not in offered("potluck", "shell", f"{file}::g")
    file.write_text("def broken(:")
    assert offered("potluck", "run", f"{file}::") == ""
    assert offered("potluck", "run", f"{tmp_path}/absent.py::") == ""


def test_files_and_commands_are_offered():
    assert "file" in offered("potluck", "deploy", "so")
    assert "container" in offered("potluck", "cont")


def test_without_a_node_no_app_is_offered(tmp_path):
    for command in (("app", "stop"), ("container", "logs")):
        assert offered("potluck", *command, "x", POTLUCK_HOME=str(tmp_path)) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_printed_is_a_script_of_that_shell(shell):
    script = subprocess.run([POTLUCK, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert f"_POTLUCK_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_a_command():
    test = f"""
    PATH={Path(POTLUCK).parent}:$PATH; eval "$(potluck completion bash)"
    COMP_WORDS=(potluck depl); COMP_CWORD=1; _potluck_completion potluck; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", test], capture_output=True, text=True, check=True)
    assert done.stdout == "deploy\n"
