import subprocess
import sys

HEAVY = ("libp2p", "trio", "textual", "rich", "asyncio", "cloudpickle", "click", "msgspec", "blake3", "zstandard")


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_import_potluck_loads_nothing_heavy():
    assert not loaded_by("import potluck")


def test_describing_an_app_loads_nothing_heavy_either():
    program = """
import potluck
app = potluck.App("a", image=potluck.Image.local_python().pip_install("numpy").env({"A": "b"}))
@app.function(gpu="any", retries=3)
def f(): pass
@app.local_entrypoint()
def main(): pass
"""
    assert not loaded_by(program)


def test_the_image_definition_loads_msgspec_alone():
    assert loaded_by("import potluck_images.definition") == {"msgspec"}


def test_the_nodes_cores_load_no_library_of_the_network_or_the_terminal():
    program = "import potluck_node.core.calls, potluck_node.core.provider, potluck_node.core.receipts"
    assert not loaded_by(program) & {"libp2p", "trio", "textual", "rich"}
