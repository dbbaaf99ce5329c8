"""Starting the terminal, and who must not load it."""

import contextlib
import os
import pty
import select
import subprocess
import sys

import pytest

from potluck_tui.main import main


def loaded(program: str, *names: str) -> set[str]:
    """Which of `names` a fresh interpreter has imported after `program`."""
    code = f"import sys\n{program}\nprint(*({set(names)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import potluck_tui.model, potluck_tui.fit, potluck_tui.words, potluck_tui.link",
        "import potluck_tui.main, potluck_tui.first, potluck_tui.demo",
        "import pkgutil, importlib, potluck_node.core as core\n"
        "for each in pkgutil.iter_modules(core.__path__): importlib.import_module(f'potluck_node.core.{each.name}')",
        "import potluck_node.node, potluck_node.main",
        "import potluck, potluck.cli.main, potluck.aio",
    ],
)
def test_textual_is_loaded_by_the_app_alone(program):
    assert loaded(program, "textual") == set()
    assert loaded(program + "\nimport potluck_tui.app", "textual") == {"textual"}


def test_the_app_loads_neither_the_node_nor_its_libraries():
    assert loaded("import potluck_tui.app", "potluck_node", "trio", "libp2p", "cloudpickle") == set()
    assert loaded("import potluck_tui.app", "potluck_tui.dialogs") == set()


def test_the_command_loads_no_other_and_no_event_loop_for_the_first_frame():
    program = "import potluck.cli.tui, potluck_tui.main"
    assert loaded(program, "asyncio", "potluck.cli.run", "potluck.cli.node", "potluck.cli.mesh", "rich.table") == set()


def test_without_a_terminal_it_says_what_to_use():
    with pytest.raises(SystemExit, match="needs a terminal"):
        main()


@contextlib.contextmanager
def terminal(home, *arguments):
    """`potluck tui` on a pseudo-terminal: its other end, and the process."""
    master, slave = pty.openpty()
    env = os.environ | {"POTLUCK_HOME": str(home), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "potluck.cli.main", "tui", *arguments]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    try:
        yield master, process
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_the_command_starts_it_in_a_terminal_and_q_ends_it(tmp_path):
    with terminal(tmp_path) as (master, process):
        read_until(master, b"No node answers")
        os.write(master, b"q")
        drain(master)
        assert process.wait(30) == 0


def test_a_demo_needs_no_node_and_keys_pressed_early_count(tmp_path):
    with terminal(tmp_path, "--demo") as (master, process):
        # The first frame: textual is not there yet.
        read_until(master, b"Lends 8 cores")
        os.write(master, b"q")
        drain(master)
        assert process.wait(30) == 0


def read_until(master: int, word: bytes) -> None:
    seen = b""
    while word not in seen:
        readable, _, _ = select.select([master], [], [], 30)
        assert readable, seen[-2000:]
        seen += os.read(master, 65536)


def drain(master: int) -> None:
    """Until the program has let go of the terminal (EIO on Linux, pty(7))."""
    try:
        while select.select([master], [], [], 30)[0] and os.read(master, 65536):
            pass
    except OSError:
        pass
