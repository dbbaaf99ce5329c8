"""The house rules that a machine can check."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import potluck

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("sdk", "meshnode", "image_store", "ledger", "tui", "netsim")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]


PYTHON = tracked("*.py")
OURS = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in SOURCES]


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", OURS, ids=named)
def test_modules_say_what_they_are(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Every dotted name that a file imports, relative ones resolved."""
    package = module_name(path).rpartition(".")[0] if path in OURS else ""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def test_no_module_is_dead():
    """Every module is imported by another file, started with -m, or named in pyproject.toml."""
    used = {name for path in PYTHON for name in imported(path)}
    texts = [(ROOT / "pyproject.toml").read_text(), *(path.read_text() for path in PYTHON)]
    for path in OURS:
        name = module_name(path)
        if path.name not in ("__init__.py", "__main__.py"):
            # Sandboxes see the runner's folder under a name of its own.
            inside = name.replace("potluck.runner", "potluck_runner")
            assert name in used or any(f'"{name}' in text or inside in text for text in texts), name


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_nothing_is_left_to_do_without_a_decision(path):
    if path != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text())


def test_only_its_own_module_imports_libp2p():
    for path in OURS:
        if "transport/libp2p" not in named(path):
            assert not re.search(r"^\s*(import|from) (libp2p|multiaddr)\b", path.read_text(), re.MULTILINE), path


def test_the_two_version_numbers_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == potluck.__version__


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[dependency-groups]")]
    for line in block.splitlines():
        if line.strip().startswith('"'):
            assert "#" in line, line


@pytest.mark.parametrize("path", tracked("*.md", "*.py", "*.toml", "Makefile", ".ci/*"), ids=named)
def test_no_secrets_hosts_or_machine_paths(path):
    if path != Path(__file__):
        assert not re.search(r"/work/|files\.pythonhosted|registry\.npmjs|deb\.debian\.org", path.read_text())


def test_every_command_setting_and_public_name_is_documented():
    from potluck.cli.main import COMMANDS, main
    from potluck_node.config import HELP, Settings

    docs = "\n".join(path.read_text() for path in tracked("*.md"))
    names = list(COMMANDS)
    for group in filter(None, (main.get_command(None, name) for name in COMMANDS)):
        names += [f"{group.name} {sub}" for sub in getattr(group, "commands", {})]
    missing = [f"potluck {name}" for name in names if f"potluck {name}" not in docs]
    missing += [name for name in HELP if f"`{name}`" not in docs]
    missing += [name for name in potluck.__all__ if not re.search(rf"\b{name}\b", docs)]
    assert not missing
    assert set(HELP) == set(Settings.__struct_fields__)
