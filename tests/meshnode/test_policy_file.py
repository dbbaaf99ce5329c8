"""The table [policy] of config.toml: what fits, and that writing it changes nothing else of the file."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.errors import InvalidError
from potluck_node import config
from potluck_node.core.policy_rules import Policy
from potluck_node.policy_file import RIGHT, parsed, read, write

FILE = """\
# mine
name = "ann"  # not anna

# When it lends.
[policy]
# I play on Saturdays.
preset = "idle"  # as asked
[policy.windows]
mon = ["22:00-07:00"]

# Where it stands.
[labels]
room = "12"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return path


def test_every_setting_says_what_would_be_right():
    assert list(RIGHT) == list(Policy.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("idel_s = 3", "idle_s"),
        ("weather = 1", "preset, idle_s"),
        ('idle_s = "soon"', "seconds"),
        ("idle_s = -1", "seconds"),
        ("grace_s = inf", "no end"),
        ("grace_s = nan", "seconds"),
        ('preset = "mornings"', '"nights"'),
        ("others_cpu = 50", "from 0 to 1"),
        ('windows = { mon = ["9-17"] }', "22:00-07:00"),
        ('windows = { monday = ["09:00-17:00"] }', "22:00-07:00"),
        ("windows = { mon = [7] }", "22:00-07:00"),
        ('exclusive = "blender"', "names of programs"),
        ("gpu_off = [1.5]", "numbers or uuids"),
        ("idle_s = ", "lines as"),
        ("[policy]\nidle_s = 3", "not part of it"),
        ("[windows]\nsun = []", "[policy.windows]"),
        (f"# {'x' * (64 << 10)}", "64 KiB"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(file, text, says):
    with pytest.raises(InvalidError) as caught:
        write(file, text)
    assert says in str(caught.value)
    assert file.read_text() == FILE


def test_the_table_is_replaced_and_all_else_stays(file):
    assert read(file) == FILE[FILE.index("# I play") : FILE.index("\n# Where")]
    assert write(file, "# New.\nidle_s = 60  # a minute\n") == Policy(idle_s=60)
    before, after = FILE.split("# I play")[0], FILE[FILE.index("# Where") :]
    assert file.read_text() == f"{before}# New.\nidle_s = 60  # a minute\n\n{after}"
    assert config.load(file.parent, {}).policy == Policy(idle_s=60)


def test_one_setting_is_changed_and_all_others_stay(file):
    write(file, 'preset = "nights"\nwindows = { sun = ["00:00-24:00"] }\nexclusive = ["blender"]', keep=True)
    policy = config.load(file.parent, {}).policy
    assert policy == Policy(preset="nights", windows={"sun": ("00:00-24:00",)}, exclusive=("blender",))
    for kept in ("# I play on Saturdays.\n", "# as asked\n", "# Where it stands.\n[labels]", "# not anna"):
        assert kept in file.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name = "x"',
        'policy = { preset = "idle" }\nname = "x"  # stays\n',
        'policy.preset = "idle"\nname = "x"\n',
        'policy.preset = "idle"\npolicy.windows.mon = ["22:00-07:00"]\nname = "x"\n[labels]\na = "b"',
        '[policy]\npreset = "idle"\n[labels]\na = "b"\n[policy.windows]\nmon = ["22:00-07:00"]\n',
        'state = """\n[policy]\npreset = "idle"\n"""\n',
        "[policy]",
        '\r\n[policy]\r\npreset = "idle"\r\n\r\n# next\r\n[labels]\r\na = "b"\r\n',
    ],
)
def test_however_it_was_written(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    before = tomllib.loads(text)
    old = before.pop("policy", {})
    assert tomllib.loads("[policy]\n" + read(path)) == {"policy": old}
    write(path, "grace_s = 3", keep=True)
    assert tomllib.loads(path.read_text()) == before | {"policy": old | {"grace_s": 3}}
    write(path, "grace_s = 5")
    assert tomllib.loads(path.read_text()) == before | {"policy": {"grace_s": 5}}
    write(path, "")
    assert tomllib.loads(path.read_text()) == before | {"policy": {}}


def test_a_file_that_is_none_is_neither_used_nor_lost(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("name =")
    with pytest.raises(InvalidError, match="cannot be used"):
        write(path, "idle_s = 3")
    assert path.read_text() == "name ="


def test_a_link_stays_one_and_who_may_read_it_stays(tmp_path):
    (tmp_path / "there").mkdir()
    real, path = tmp_path / "there/mine.toml", tmp_path / "config.toml"
    real.write_text('name = "x"\n')
    real.chmod(0o600)
    path.symlink_to(real)
    write(path, "idle_s = 3")
    assert path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert config.load(tmp_path, {}).policy.idle_s == 3


LINES = st.lists(
    st.sampled_from(
        ["", "# a word", "idle_s = 3", "grace_s = 4", 'gpu_off = ["1",\n 2]', "[policy.windows]", "sun = []"]
    ),
    unique=True,
)


@given(LINES, st.sampled_from([FILE, "", "policy = {}\n[labels]\n"]))
def test_what_is_written_is_what_was_given(tmp_path_factory, lines, before):
    text = "\n".join(lines)
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(before)
    try:
        policy = parsed(text)
    except InvalidError:
        with pytest.raises(InvalidError):
            write(path, text)
        assert path.read_text() == before
        return
    assert write(path, text) == policy
    assert parsed(read(path)) == policy
    assert config.load(path.parent, {}).policy == policy
    assert ("# Where it stands.\n[labels]" in path.read_text()) == (before is FILE)


def test_what_is_unset_is_as_the_preset_has_it_and_the_rest_stays(file):
    assert write(file, "idle_s = 7\n", keep=True).idle_s == 7
    policy = write(file, "", keep=True, unset=("idle_s", "windows", "grace_s"))
    assert policy == Policy(preset="idle")
    assert policy.complete().idle_s == 180
    without = FILE.replace('[policy.windows]\nmon = ["22:00-07:00"]\n', "")
    assert [line for line in file.read_text().splitlines() if line] == [line for line in without.splitlines() if line]
    with pytest.raises(InvalidError, match="idel_s") as caught:
        write(file, "", keep=True, unset=("idel_s",))
    assert "idle_s" in caught.value.fix
