"""Secrets as the caller describes them."""

import pytest

from potluck import Image, Secret
from potluck.errors import NotFoundError

VALUE = "hunter2-hunter2"


def test_nothing_that_is_printed_shows_a_value():
    secret = Secret.from_dict({"TOKEN": VALUE, "NONE": None})
    image = Image.debian_slim().run_commands("x", secrets=[secret]).pip_install("y", secrets=[secret])
    definition, secrets = image._plan()
    assert VALUE not in f"{secret!r} {image!r} {definition!r} {vars(secret)!r} {image._steps!r}"
    assert secrets == {1: {"TOKEN": VALUE}, 2: {"TOKEN": VALUE}}
    assert [step.secrets for step in definition.steps[1:]] == [("TOKEN",), ("TOKEN",)]


@pytest.mark.parametrize(
    "add",
    [
        lambda image, **more: image.pip_install("x", **more),
        lambda image, **more: image.uv_pip_install("x", **more),
        lambda image, **more: image.uv_sync(".", **more),
        lambda image, **more: image.pip_install_from_requirements("r.txt", **more),
        lambda image, **more: image.apt_install("x", **more),
        lambda image, **more: image.run_commands("x", **more),
        lambda image, **more: image.run_function(print, **more),
        lambda image, **more: image.dockerfile_commands("RUN x", **more),
    ],
)
def test_every_step_that_runs_something_takes_secrets_and_gpus(add):
    image = add(Image.debian_slim(), secrets=[Secret.from_dict({"B": "1"}), Secret.from_dict({"A": "2"})], gpu="H100")
    definition, secrets = image._plan()
    assert (definition.steps[-1].secrets, definition.steps[-1].gpu) == (("A", "B"), ("H100",))
    assert secrets == {1: {"A": "2", "B": "1"}}


def test_files_of_projects_and_dockerfiles_take_them_too(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "1"\ndependencies = ["x"]\n')
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRUN a\nRUN b\n")
    more = {"secrets": [Secret.from_dict({"A": "2"})], "gpu": "any"}
    for image in (
        Image.debian_slim().pip_install_from_pyproject(str(tmp_path / "pyproject.toml"), **more),
        Image.from_dockerfile(tmp_path / "Dockerfile", **more),
    ):
        definition, secrets = image._plan()
        assert (definition.steps[-1].secrets, definition.steps[-1].gpu) == (("A",), ("any",))
        assert secrets[len(definition.steps) - 1] == {"A": "2"}


def test_a_file_is_found_from_a_folder_upwards_and_read_late(tmp_path, monkeypatch):
    secret = Secret.from_dotenv(tmp_path / "a" / "b")
    named = Secret.from_dotenv(tmp_path / "a" / "program.py", filename="prod.env")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".env").write_text("# a note\nexport TOKEN='x $y'\nEMPTY=\nNAME\n")
    (tmp_path / "a" / "prod.env").write_text("TOKEN=prod\n")
    assert secret._read() == {"TOKEN": "x $y", "EMPTY": ""}
    assert named._read() == {"TOKEN": "prod"}
    monkeypatch.chdir(tmp_path)
    assert Secret.from_dotenv()._read()["TOKEN"] == "x $y"
    with pytest.raises(NotFoundError, match=r"no-such\.env"):
        Secret.from_dotenv(filename="no-such.env")._read()


def test_variables_of_the_program_are_read_late(monkeypatch):
    secret = Secret.from_local_environ(["POTLUCK_TEST_TOKEN"])
    monkeypatch.setenv("POTLUCK_TEST_TOKEN", "v")
    assert secret._read() == {"POTLUCK_TEST_TOKEN": "v"}
