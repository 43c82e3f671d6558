"""What tests share."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no bug; in CI the same examples each time, so that a change is judged by
# what it changed. New examples are found wherever else the tests run.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# Where nothing compiled may be kept, each command that a test starts would compile a toolkit of
# thousands of modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_EXIT_SECONDS = 60


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let no library's exit handler keep a finished session alive for ever.

    Services that a toolkit starts (W&B's, for one) are waited for without limit when Python
    ends. What hangs is printed, and the tests' own result stands.
    """

    def leave() -> None:
        print(f"still alive {_EXIT_SECONDS} s after the last test:", file=sys.__stderr__)
        faulthandler.dump_traceback(sys.__stderr__)
        os._exit(exitstatus)

    timer = threading.Timer(_EXIT_SECONDS, leave)
    timer.daemon = True
    timer.start()
    # Where Python no longer runs threads only this one wakes up; it ends with status 1.
    faulthandler.dump_traceback_later(2 * _EXIT_SECONDS, exit=True, file=sys.__stderr__)


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
