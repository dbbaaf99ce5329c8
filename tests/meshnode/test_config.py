import pytest

from potluck.errors import InvalidError
from potluck_node.config import load


def test_defaults_fit_the_machine(tmp_path):
    settings = load(tmp_path, {})
    assert settings.name
    assert settings.cpus >= 1
    assert settings.memory_mib > 0
    assert all("127.0.0.1" in address for address in settings.listen)


def test_the_file_is_read_and_flags_override_it(tmp_path):
    (tmp_path / "config.toml").write_text('name = "mira"\ncpus = 3\nlabels = {room = "12"}\n')
    settings = load(tmp_path, {"cpus": 2.0})
    assert (settings.name, settings.cpus, settings.labels) == ("mira", 2.0, {"room": "12"})


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", "all"),
        ("gpus = 'none'", "none"),
        ("gpus = [0, 'GPU-1']", (0, "GPU-1")),
        ("gpus = '0, GPU-1'", ("0", "GPU-1")),
    ],
)
def test_gpus_are_named_in_a_list_or_a_text(tmp_path, text, gpus):
    (tmp_path / "config.toml").write_text(text)
    assert load(tmp_path, {}).gpus == gpus


@pytest.mark.parametrize(
    ("text", "lent"),
    [
        ("", ()),
        ("network = 'none'", ()),
        ("network = 'public'", ("*",)),
        ("network = ['PyPI.org', '*.example.org']", ("*.example.org", "pypi.org")),
        ("network = 'pypi.org, example.org'", ("example.org", "pypi.org")),
    ],
)
def test_the_network_is_lent_by_name_or_as_a_whole(tmp_path, text, lent):
    (tmp_path / "config.toml").write_text(text)
    assert load(tmp_path, {}).lent_network == lent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network = '10.0.0.0/8'", "names no host"),
        ("network = true", "does not fit"),
        ("cpu = 3", "Did you mean 'cpus'"),
        ("zzz = 3", "Known settings"),
        ("cpus = 'many'", "does not fit"),
        ("cpus = -1", "less than nothing"),
        ("name = 'a b'", "not a name"),
        ("cpus = ", "not valid TOML"),
    ],
)
def test_bad_settings_are_refused_with_a_hint(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(InvalidError, match=words):
        load(tmp_path, {})
