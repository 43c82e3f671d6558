"""The garbage collector is paused while toolkits load, and afterwards as it was."""

import contextlib
import gc

from systems.importing import nothing_to_collect


def test_paused_within():
    with nothing_to_collect():
        assert not gc.isenabled()
        with nothing_to_collect():  # a toolkit that loads another
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_runs_again_after_an_error():
    with contextlib.suppress(ImportError), nothing_to_collect():
        raise ImportError
    assert gc.isenabled()
