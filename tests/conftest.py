"""What tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no bug; in CI the same examples each time, so that a change is judged by
# what it changed. New examples are found wherever else the tests run.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data: ``data/`` of $CHILDRENS_ASR_SHARED, or of ../shared beside the checkout.

    Absent it skips with a message, but fails where CI says that it must be there.
    """
    shared = Path(os.environ.get("CHILDRENS_ASR_SHARED") or REPO.parent / "shared")
    data = shared / "data"
    if not data.is_dir():
        message = f"{data}: no such folder, must hold the real data (set CHILDRENS_ASR_SHARED)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return data
