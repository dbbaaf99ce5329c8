"""Secrets: kept locked, sent sealed to trusted peers alone, and nowhere else to be found."""

import base64
import json
import secrets
import traceback
from pathlib import Path

import pytest
from tests.e2e import secret_sample as sample
from tests.e2e.mesh import Mesh, run_cli, wait_until

import potluck
from potluck import calls, found
from potluck.errors import AlreadyExistsError, InvalidError, NoPeerError, NotFoundError

ROOT = Path(__file__).resolve().parent.parent.parent
VALUE = f"value-{secrets.token_hex(16)}"
FILE = "tests/e2e/secret_sample.py"


def a_mesh(folder, trust):
    """A provider, and a node that calls and trusts it or not."""
    mesh = Mesh(folder)
    mesh.provider("ann")
    caller = mesh.caller("cas", "--trust", trust)
    wait_until(lambda: len(caller.status().peers) == 1, "finding the provider")
    return mesh


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    mesh = a_mesh(tmp_path_factory.mktemp("trusting"), "mesh")
    yield mesh
    mesh.stop()


@pytest.fixture
def use(use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    monkeypatch.setattr(found, "_link", None)
    yield use_node
    for connection in (calls._connection, found._link):
        if connection:
            connection.close()


def keep(node, *flags, value=VALUE):
    done = run_cli(node, "secret", "create", "kept", "KEPT_TOKEN=-", *flags, stdin=f"{value}\n")
    assert done.returncode == 0, done.stderr
    return done.stdout


def places_of(value, *nodes):
    """Files of nodes that have the value in them, as it is or in base64."""
    forms = {value.encode(), value[::-1].encode(), base64.b64encode(value.encode()).rstrip(b"=")}
    files = [path for node in nodes for path in (*node.home.rglob("*"), node.log) if path.is_file()]
    assert len(files) > 20
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms)]


def test_a_secret_is_nowhere_but_in_its_function(trusting, use, capfd):
    caller, provider = use(trusting.nodes[1]), trusting.nodes[0]
    told = keep(caller)
    with sample.app.run():
        assert sample.reveal.remote() == VALUE[::-1]
        assert sample.given.remote(potluck.Secret.from_dict({"A": VALUE})) == VALUE[::-1]
        spawned = sample.given.spawn(potluck.Secret.from_name("kept"))
        # While it runs, what went in is recorded.
        left = sample.reveal.spawn()
        with pytest.raises(ValueError, match="letters") as raised:
            sample.fail.remote()
        told += "".join(traceback.format_exception(raised.value))
        assert (spawned.get(), left.get()) == (VALUE[::-1], VALUE[::-1])
    told += run_cli(caller, "deploy", FILE, cwd=ROOT).stdout
    assert potluck.Function.from_name("secretive", "reveal").remote() == VALUE[::-1]
    for command in (("secret", "list", "--json"), ("app", "list", "--json"), ("status", "--json"), ("ledger", "list")):
        told += run_cli(caller, *command).stdout
    told += run_cli(provider, "status", "--json").stdout + run_cli(provider, "ledger", "list").stdout
    records = [record for node in (caller, provider) for record in node.journal()[1]]
    told += repr([part.decode(errors="replace") for record in records for part in record])
    shown = capfd.readouterr()
    assert VALUE not in told + shown.out + shown.err
    # The results, which the functions chose to return, wait in the caller's records turned around.
    for call in (spawned, left):
        call.cancel()
    assert [path for path in places_of(VALUE, caller, provider) if "spawned" not in path] == []
    assert VALUE.encode() not in b"".join(path.read_bytes() for path in caller.home.glob("spawned*"))
    assert (caller.home / "secrets.sqlite").stat().st_mode & 0o077 == 0


def test_a_secret_and_a_deployment_survive_a_restart(trusting, use):
    caller = use(trusting.nodes[1])
    keep(caller, "--force")
    run_cli(caller, "deploy", FILE, cwd=ROOT)
    caller.stop()
    caller.start()
    wait_until(lambda: caller.status().peers, "finding the provider again")
    assert potluck.Function.from_name("secretive", "reveal").remote() == VALUE[::-1]
    assert dict(potluck.secret.values(potluck.Secret.from_name("kept"))) == {"KEPT_TOKEN": VALUE}


def test_commands_and_the_programs_twin(trusting, use):
    caller = use(trusting.nodes[1])
    keep(caller, "--force")
    taken = run_cli(caller, "secret", "create", "kept", "A=b")
    assert "already" in taken.stderr
    assert run_cli(caller, "secret", "create", "kept", "OTHER=c", "--merge").returncode == 0
    (listed,) = json.loads(run_cli(caller, "secret", "list", "--json").stdout)
    assert (listed["name"], listed["variables"]) == ("kept", ["KEPT_TOKEN", "OTHER"])
    assert "KEPT_TOKEN" in run_cli(caller, "secret", "list").stdout
    with pytest.raises(AlreadyExistsError):
        potluck.Secret.objects.create("kept", {"A": "b"})
    potluck.Secret.objects.create("other", {"A": "b"})
    other = potluck.Secret.from_name("other", required_keys=["A", "B"])
    with pytest.raises(InvalidError, match="lacks B"):
        other.hydrate()
    other.update({"B": "c"})
    assert dict(potluck.secret.values(other)) == {"A": "b", "B": "c"}
    assert [each.name for each in potluck.Secret.objects.list()] == ["other", "kept"]
    assert other.info().variables == ("A", "B")
    potluck.Secret.objects.delete("other")
    with pytest.raises(NotFoundError):
        other.hydrate()
    assert run_cli(caller, "secret", "delete", "kept").returncode == 0
    assert run_cli(caller, "secret", "delete", "kept").returncode == 1


def test_a_peer_that_is_not_trusted_gets_none(tmp_path, use):
    mesh = a_mesh(tmp_path, "none")
    try:
        caller = use(mesh.nodes[1])
        keep(caller)
        with sample.app.run(show_progress=False), pytest.raises(NoPeerError) as raised:
            sample.reveal.remote()
        assert "not trusted with the function's secrets" in raised.value.why
        assert "trust" in raised.value.fix
        assert places_of(VALUE, *mesh.nodes) == []
    finally:
        mesh.stop()


def test_what_an_older_version_left_open_is_locked(tmp_path):
    """A node that starts locks it, and nothing of it stays in the file."""
    import sqlite3

    from potluck import wire
    from potluck.wire import FunctionSpec
    from potluck_ledger.keys import load_or_create
    from potluck_ledger.sealing import Vault
    from potluck_node import spawned_store

    path = tmp_path / "spawned.sqlite"
    spec = FunctionSpec("app", "f", "ab" * 32, "3.11", module="m", qualname="f", secrets=(("A", VALUE),))
    db = sqlite3.connect(path)
    db.executescript(spawned_store._SCHEMA)
    db.execute("INSERT INTO calls VALUES ('fc-1', ?, 5, 1)", (wire.encode(spec),))
    db.executemany("INSERT INTO inputs VALUES ('fc-1', ?, ?, NULL)", [(n, VALUE.encode()) for n in range(3)])
    db.commit()
    db.close()
    assert VALUE.encode() in path.read_bytes()
    store = spawned_store.SpawnedStore(path, Vault(load_or_create(tmp_path / "key")))
    assert store.facts("fc-1").function == spec
    assert [payload for _, payload in store.waiting("fc-1", -1, 9)] == [VALUE.encode()] * 3
    store.close()
    assert not any(VALUE.encode() in file.read_bytes() for file in tmp_path.iterdir())
