"""docs/ledger.md: its examples are what is written here, and a verifier that knows nothing else reads a journal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ledger.test_journal import CALLER, PROVIDER, receipt

from potluck_ledger import entries
from potluck_ledger.bodies import Body, encode
from potluck_ledger.envelope import EnvelopeError, countersign, seal
from potluck_ledger.exported import check_witnessed, export_lines, import_lines, import_witnessed
from potluck_ledger.journal import GENESIS, Journal, JournalError, Record, digest, verify
from potluck_ledger.keys import PrivateKey
from potluck_ledger.witness import read_cosigned

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ledger.md").read_text()
ONE, TWO = PrivateKey(bytes(32)), PrivateKey(bytes([1]) * 32)

BODIES = {
    "receipt": entries.Receipt(
        "lease-1", ONE.peer, TWO.peer, "ab" * 16, "app.f", "cd" * 32, bytes(16), 1_000_000, 2_500_000, 1_200_000,
        1_100_000, 250, 3, bytes(32), "GPU-1", "A10G", "wall", "provider's clock", "the caller is done", "bwrap",
    ),
    "voucher": entries.Voucher("lease-1", ONE.peer, TWO.peer, 2, 4_000_000, 5_000_000),
    "grant": entries.Grant(ONE.peer, "lab", "user", "maria", "H100", 3_600_000_000, 0, 0, 1 << 50, bytes(16)),
    "membership": entries.Membership(ONE.peer, "lab", "students", TWO.peer, 7, 1 << 50, bytes(16)),
    "rule": entries.Rule(
        ONE.peer, "lab", "limit", "group", "students", "lab=vision", 100, 8_000, 2, 7, 7, 1 << 50, bytes(16)
    ),
    "transfer": entries.Transfer(ONE.peer, TWO.peer, 1_000_000, 7, bytes(16), "thanks"),
    "dispute": entries.Dispute(TWO.peer, ONE.peer, "lease-1", 9, 4, 7, bytes(32), "the caller is gone"),
    "checkpoint": entries.Checkpoint(ONE.peer, 12, bytes(32), 7, 1_000, 2_000),
    "entry": entries.Entry(1, bytes(32), 7, digest(b"content")),
}  # fmt: skip


def examples():
    return json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])


def test_the_page_has_every_body_with_its_fields_in_order():
    for name, body in BODIES.items():
        assert f"`{body.KIND}`" in PAGE, name
        fields = ", ".join(f"`{field}`" for field in body.__struct_fields__)
        assert fields in re.sub(r"\s+", " ", PAGE), f"{name}: {fields}"
    assert {type(body) for body in BODIES.values()} == set(entries.CONTENTS.values()) | {entries.Entry}


@pytest.mark.parametrize("name", BODIES)
def test_the_examples_of_the_page_are_what_is_written(name):
    assert examples()[name] == encode(BODIES[name]).hex()


def test_the_envelope_of_the_page_is_what_is_written():
    envelope = countersign(ONE, entries.sign(TWO, BODIES["voucher"]))
    assert examples()["envelope"] == envelope.encode().hex()


def test_the_cosigned_checkpoint_of_the_page_is_what_is_written_and_names_its_witness():
    cosigned = countersign(TWO, entries.sign(ONE, BODIES["checkpoint"])).encode()
    assert examples()["cosigned"] == cosigned.hex()
    assert read_cosigned(cosigned, ONE.peer) == (BODIES["checkpoint"], [TWO.peer])
    with pytest.raises(EnvelopeError, match="owner first"):
        read_cosigned(countersign(ONE, entries.sign(TWO, BODIES["checkpoint"])).encode(), ONE.peer)


def test_no_body_may_be_larger_than_the_page_says():
    for body in BODIES.values():
        assert f"{type(body).BYTES_MAX} bytes" in PAGE
        assert len(encode(body)) <= type(body).BYTES_MAX <= Body.BYTES_MAX


@pytest.fixture
def exported(tmp_path):
    """A journal with everything that one can have."""
    journal = Journal(tmp_path / "journal", CALLER)
    contents = [
        countersign(CALLER, entries.sign(PROVIDER, receipt(1))),
        countersign(CALLER, entries.sign(PROVIDER, receipt(2, lease_us=7_000, label="ü" * 15))),
        countersign(CALLER, entries.sign(PROVIDER, entries.Voucher("l", CALLER.peer, PROVIDER.peer, 1, 300, 70_000))),
        entries.sign(PROVIDER, receipt(3)),
        entries.sign(CALLER, entries.Transfer(CALLER.peer, PROVIDER.peer, 1, 1, bytes(16), "n" * 90)),
        entries.sign(PROVIDER, entries.Dispute(PROVIDER.peer, CALLER.peer, "l", 1 << 40, 1, 1, bytes(32), "why")),
        entries.sign(CALLER, entries.Grant(CALLER.peer, "lab", "app", "a", "", 1, 0, 0, 1 << 33, bytes(16))),
    ]
    for number, content in enumerate(contents):
        journal.append(content.encode(), number)
    journal.append(journal.checkpoint(1).encode(), 99)
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(export_lines(CALLER.peer, journal.records())))
    journal.close()
    return path


def second(path):
    script = ROOT / "examples" / "verify_ledger.py"
    return subprocess.run([sys.executable, "-I", str(script), str(path)], capture_output=True, text=True, check=False)


def test_a_second_verifier_needs_no_code_of_ours(exported):
    source = (ROOT / "examples" / "verify_ledger.py").read_text()
    assert "potluck_" not in source
    assert "import potluck" not in source
    assert len(source.splitlines()) <= 100
    done = second(exported)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"8 entries of {CALLER.peer} hold; receipts of both: gave 0 µs, used 12000 µs\n"


def test_an_export_verifies_on_a_machine_that_has_no_node(exported, tmp_path):
    """With the file, and the public keys that are in it; nothing is started, and nothing left behind."""
    home = tmp_path / "home"
    home.mkdir()
    places = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "POTLUCK_HOME")
    command = [sys.executable, "-m", "potluck.cli.main", "ledger", "verify", str(exported)]
    environment = {"PATH": os.defpath, **dict.fromkeys(places, str(home))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 entries" in done.stdout
    assert list(home.iterdir()) == []


def test_a_second_verifier_checks_what_witnesses_cosigned(exported):
    header, *lines = exported.read_text().splitlines()
    journal = import_lines([header, *lines])[1]
    for number, head, holds in ((5, digest(journal[4].entry), True), (5, bytes(32), False), (9, bytes(32), False)):
        checkpoint = entries.sign(CALLER, entries.Checkpoint(CALLER.peer, number, head, 1, 0, 0))
        witnessed = countersign(TWO, countersign(ONE, checkpoint)).encode()
        exported.write_text("\n".join(export_lines(CALLER.peer, journal, witnessed)))
        assert import_witnessed(exported.read_text().splitlines()) == witnessed
        done = second(exported)
        assert (done.returncode == 0) == holds, done.stderr
        if holds:
            assert "2 witnesses cosigned it up to entry 5" in done.stdout
            found = check_witnessed(CALLER.peer, witnessed, [record.entry for record in journal])
            assert found == (5, [ONE.peer, TWO.peer])
        else:
            assert "another history" in done.stderr
            with pytest.raises(JournalError, match="another history"):
                check_witnessed(CALLER.peer, witnessed, [record.entry for record in journal])


@pytest.mark.parametrize("line", [1, 4, 8])
@pytest.mark.parametrize("field", ["entry", "content"])
def test_a_second_verifier_notices_a_changed_bit(exported, line, field):
    import base64

    lines = exported.read_text().splitlines()
    row = json.loads(lines[line])
    data = bytearray(base64.b64decode(row[field]))
    data[-5] ^= 1
    row[field] = base64.b64encode(bytes(data)).decode()
    lines[line] = json.dumps(row)
    exported.write_text("\n".join(lines))
    assert second(exported).returncode != 0


def test_a_second_verifier_notices_a_missing_entry(exported):
    lines = exported.read_text().splitlines()
    del lines[3]
    exported.write_text("\n".join(lines))
    assert "no chain" in second(exported).stderr


TRANSFER = entries.Transfer(CALLER.peer, PROVIDER.peer, 1, 1, bytes(16), "thanks")
VOUCHER = entries.Voucher("l", CALLER.peer, PROVIDER.peer, 1, 300, 70_000)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (entries.sign(PROVIDER, TRANSFER), "signed by others"),
        (countersign(PROVIDER, entries.sign(CALLER, TRANSFER)), "signed by others"),
        (countersign(PROVIDER, entries.sign(CALLER, VOUCHER)), "signed by others"),
        (entries.sign(ONE, entries.Transfer(ONE.peer, TWO.peer, 1, 1, bytes(16))), "about others"),
        (seal(CALLER, TRANSFER.KIND, encode(TRANSFER) + b"x"), ""),
        (seal(CALLER, TRANSFER.KIND, encode(TRANSFER).replace(b"\xa6thanks", b"\xd9\x06thanks")), "one form"),
        (seal(CALLER, TRANSFER.KIND, encode(TRANSFER).replace(b"\xa6thanks", b"\xff")), "one form"),
        (seal(CALLER, "potluck/transfer/2", encode(TRANSFER)), "of another form"),
    ],
)
def test_a_second_verifier_takes_what_we_take(tmp_path, content, why):
    """And nothing else: the owner of the journal may put into it whatever they like."""
    data = content.encode()
    entry = entries.sign(CALLER, entries.Entry(1, GENESIS, 1, digest(data))).encode()
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(export_lines(CALLER.peer, [Record(entry, data)])))
    done = second(path)
    assert done.returncode != 0
    assert why in done.stderr
    with pytest.raises(JournalError):
        verify(CALLER.peer, [Record(entry, data)])
