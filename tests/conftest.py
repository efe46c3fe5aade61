import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

DATA = os.environ.get("FORETASTE_DATA")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DATA is None:
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(
                    pytest.mark.skip(reason="FORETASTE_DATA does not name a folder with the real data sets")
                )


@pytest.fixture
def real_data() -> Path:
    """Return the folder with the real data sets."""
    if DATA is None:
        pytest.skip("FORETASTE_DATA does not name a folder with the real data sets")
    return Path(DATA)
