import pytest
from tests.postgres import Postgres, missing


@pytest.fixture(scope="module")
def postgres():
    if why := missing():
        pytest.skip(why)
    server = Postgres()
    yield server
    server.stop()
