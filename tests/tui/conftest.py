"""Real nodes for those tests of the terminal that need some."""

from __future__ import annotations

import pytest
from tests.e2e.mesh import Mesh


@pytest.fixture
def mesh(tmp_path):
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.stop()
