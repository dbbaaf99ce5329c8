"""An image from a registry, whiteouts and all, runs a function on a node that never saw it."""

from __future__ import annotations

import os
import sys

from tests.e2e.mesh import wait_until
from tests.image_store.registry import hardlink, member, needs_registry, put_image, running_registry, symlink, tar_of

import potluck


@needs_registry
def test_an_oci_image_runs_elsewhere(mesh, use_node, tmp_path):
    bottom = tar_of(
        member("srv/data/greeting", b"hello from a layer"),
        member("srv/data/secret", b"removed by the next layer"),
        symlink("srv/link", "data/greeting"),
    )
    top = tar_of(member("srv/data/.wh.secret"), hardlink("srv/again", "srv/data/greeting"))
    with running_registry(tmp_path) as registry:
        reference = put_image(registry, "base", bottom, top, run={"Env": ["WHERE=registry"], "WorkingDir": "/srv"})
        caller = use_node(mesh.caller())
        mesh.provider("ann")
        wait_until(lambda: caller.status().peers, "finding the provider")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        app = potluck.App("oci", image=potluck.Image.from_registry(reference, add_python=python))

        @app.function(serialized=True)
        def look() -> tuple[str, str, list[str], str | None]:
            from pathlib import Path

            linked, hard = (Path("/srv", name).read_text() for name in ("link", "again"))
            return linked, hard, os.listdir("/srv/data"), os.environ.get("WHERE")

        with app.run(show_progress=False):
            assert look.remote() == ("hello from a layer", "hello from a layer", ["greeting"], "registry")
