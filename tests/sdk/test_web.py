"""The decorators of functions that answer requests."""

import pytest

import potluck
from potluck.errors import InvalidError
from potluck.parameters import packed
from potluck.runner import memory, web, web_frames
from potluck.source import Reference
from potluck.spec import make_spec
from potluck.wire import web as messages
from potluck.wire.common import Web


def made(decorator, raw=None, name="my_page", **settings):
    app = potluck.App("tests")
    function = app.function(name=name, **settings)(decorator(raw or (lambda: None)))
    return make_spec(function, Reference("m", "q"), "image", "3.11", b"key").web


def test_what_is_asked_for_travels():
    assert made(potluck.asgi_app()) == Web("asgi", "my-page")
    assert made(potluck.wsgi_app(label="old", requires_proxy_auth=True)) == Web("wsgi", "old", private=True)
    assert made(potluck.fastapi_endpoint(method="post", docs=True)) == Web("fastapi", "my-page", "POST", docs=True)
    server = Web("server", "my-page", port=80, startup_us=2_500_000)
    assert made(potluck.web_server(80, startup_timeout=2.5)) == server
    assert made(lambda raw: raw) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: potluck.asgi_app(label="Big"), "no label"),
        (lambda: potluck.asgi_app(label="-x"), "no label"),
        (lambda: potluck.fastapi_endpoint(method="FETCH"), "no method"),
        (lambda: potluck.asgi_app(custom_domains=["a.b"]), "custom_domains"),
        (lambda: potluck.web_server(0), "no port"),
        (lambda: potluck.web_server(80, startup_timeout=0), "out of range"),
        (lambda: potluck.asgi_app()(lambda needed: None), "takes arguments"),
        (lambda: potluck.asgi_app()(3), "plain functions"),
        (lambda: potluck.asgi_app()(potluck.asgi_app()(lambda: None)), "already"),
        (lambda: made(potluck.asgi_app(), potluck.batched(max_batch_size=2, wait_ms=1)(lambda: None)), "batched"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(InvalidError, match=words):
        make()


def test_methods_answer_with_an_object_made_without_arguments():
    app = potluck.App("tests")

    @app.cls()
    class Model:
        size: int = potluck.parameter(default=3)

        @potluck.asgi_app()
        def page(self): ...

    assert list(app.registered_functions) == ["Model.page"]
    spec = make_spec(app.registered_functions["Model.page"], Reference("m", "Model"), "image", "3.11", b"key")
    assert spec.web == Web("asgi", "model-page", attribute="page")
    assert spec.parameters == packed("Model", {"size": 3})
    with pytest.raises(InvalidError, match="needs the parameter"):

        @app.cls()
        class Needy:
            size: int = potluck.parameter()

            @potluck.asgi_app()
            def page(self): ...


def test_what_answers_is_not_called():
    function = potluck.App("tests").function()(potluck.fastapi_endpoint()(lambda: None))
    with pytest.raises(InvalidError, match="answers requests"):
        function.remote()
    with pytest.raises(InvalidError, match="not running"):
        function.get_web_url()
    assert potluck.App("tests").function()(lambda: None).get_web_url() is None


def test_the_runner_repeats_the_constants():
    assert web.AHEAD_BYTES_MAX == messages.AHEAD_BYTES_MAX
    assert web.TELL_BYTES == messages.TELL_BYTES
    assert web_frames.MESSAGE_BYTES_MAX == messages.SOCKET_MESSAGE_BYTES_MAX
    assert web.BODY_BYTES_MAX < memory.INLINE_BYTES_MAX


def test_a_server_is_a_class_with_a_port():
    app = potluck.App("servers")

    @app.server(port=9000, max_concurrency=5, target_concurrency=3, min_containers=1)
    class MyServer:
        pass

    function = app.registered_functions["MyServer.serve"]
    assert function._web == ("server", "myserver", "GET", False, True, 9000, 30, "serve")
    assert function._options.sharing[:2] == (5, 3)
    assert MyServer.get_raw_f().__name__ == "MyServer"
    with pytest.raises(InvalidError, match="no class to make objects of"):
        MyServer()
    with pytest.raises(InvalidError, match="is not possible"):
        app.server(h2_enabled=True)
    with pytest.raises(InvalidError, match="decorates classes"):
        app.server()(len)
