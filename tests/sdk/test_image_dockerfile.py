import platform
import sys

import pytest

from potluck import Image
from potluck.errors import InvalidError
from potluck_images.definition import (
    AddFiles,
    Cmd,
    Entrypoint,
    Environment,
    Registry,
    Run,
    Scratch,
    Shell,
    Workdir,
)


@pytest.fixture
def context(tmp_path):
    for name in ("app/main.py", "app/x.log", "requirements.txt", "setup.cfg", "b.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    return tmp_path


def read(context, text, **options):
    (context / "Dockerfile").write_text(text)
    return Image.from_dockerfile(context / "Dockerfile", **options)._definition().steps


def lines(context, *commands, **options):
    image = Image.from_scratch().dockerfile_commands(*commands, context_dir=context, **options)
    return image._definition().steps[1:]


def test_a_usual_file(context):
    found = read(
        context,
        """# syntax=docker/dockerfile:1
ARG TAG=3.11
FROM python:${TAG}-slim AS base
LABEL a=b
ARG WHO=you
ENV GREETING="hello $WHO" PLAIN=x
ENV OLD style value
WORKDIR /srv
COPY --chown=1:1 requirements.txt setup.cfg ./
COPY app app
RUN pip install \\
    # a comment in between
    -r requirements.txt && echo $WHO
RUN ["echo", "a b"]
RUN [ -d app ] && echo yes
USER root
WORKDIR sub
SHELL ["/bin/bash", "-c"]
EXPOSE 80
ENTRYPOINT ["python3"]
CMD python3 main.py
""",
    )
    who = (("WHO", "you"),)
    assert found == (
        Registry("python:3.11-slim", sys.executable, platform.python_version()),
        Environment((("GREETING", "hello you"), ("PLAIN", "x"))),
        Environment((("OLD", "style value"),)),
        Workdir("/srv"),
        AddFiles("/srv/requirements.txt", str(context / "requirements.txt")),
        AddFiles("/srv/setup.cfg", str(context / "setup.cfg")),
        AddFiles("/srv/app", str(context / "app"), ("x.log",)),
        Run(("pip install      -r requirements.txt && echo $WHO",), who),
        Run(("echo 'a b'",), who),
        Run(("[ -d app ] && echo yes",), who),
        Workdir("/srv/sub"),
        Shell(("/bin/bash", "-c")),
        Entrypoint(("python3",)),
        Cmd(("/bin/sh", "-c", "python3 main.py")),
    )


def test_build_arguments_environment_and_python(context):
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = read(
        context,
        "FROM x\nARG A\nARG B=b\nRUN echo $A",
        build_args={"A": "given"},
        env={"E": "e"},
        add_python=minor,
        force_build=True,
    )
    assert found[0].add_python
    assert found[0].force
    assert found[1] == Run(("echo $A",), (("A", "given"), ("B", "b"), ("E", "e")), True)
    assert read(context, "FROM scratch\nCOPY requirements.txt /") == (
        Scratch(),
        AddFiles("/requirements.txt", str(context / "requirements.txt")),
    )


def test_patterns_context_files_and_ignore(context):
    assert lines(context, "COPY *.txt *.cfg /d/") == (
        AddFiles("/d/requirements.txt", str(context / "requirements.txt")),
        AddFiles("/d/setup.cfg", str(context / "setup.cfg")),
    )
    assert lines(context, "COPY here /d", context_files={"here": "/elsewhere/file"}) == (
        AddFiles("/d", "/elsewhere/file"),
    )
    assert lines(context, "COPY b.log /", ignore=[])[0].path == "/b.log"


@pytest.mark.parametrize(
    "line",
    [
        "USER app",
        "ONBUILD RUN x",
        "RUN --mount=type=cache,target=/x pip install y",
        "RUN <<EOF",
        "COPY --from=build /x /y",
        "COPY gone.txt /",
        "COPY b.log /",
        "COPY ../x /",
        "COPY app relative",
        "COPY one",
        "ADD https://example.org/x /x",
        "ADD app.tar.gz /",
        "ENV lonely",
        "SHELL /bin/sh",
        "FROM again",
        "NONSENSE x",
    ],
)
def test_what_is_not_supported_is_refused_by_name(context, line):
    with pytest.raises(InvalidError) as caught:
        lines(context, line)
    assert line.split()[0] in caught.value.what + caught.value.why


@pytest.mark.parametrize("text", ["", "RUN x", "FROM a\nFROM b", "FROM --platform=x a"])
def test_files_without_one_stage_are_refused(context, text):
    with pytest.raises(InvalidError):
        read(context, text)
