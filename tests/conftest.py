"""Fixtures that several test modules use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from layouts import Written

# What a user's machine sets must not decide what the tests see.
for _variable in ("NEURALANNOT_BODY_MODELS", "NEURALANNOT_CACHE"):
    os.environ.pop(_variable, None)
# Workers of pytest and the processes that tests start share the cores: threads would wait for each other's.
# Numpy and torch read this as they are imported, so nothing here imports them before.
os.environ["OMP_NUM_THREADS"] = "1"
# A machine that is busy with something else fails no test.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever a test does to torch's threads, the next one starts with one, as `OMP_NUM_THREADS` has it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """Release name -> its files, written once a session in a folder of their own. Do not change them."""
    from layouts import write_release

    written: dict[str, Written] = {}

    def get(name: str) -> Written:
        if name not in written:
            written[name] = write_release(tmp_path_factory.mktemp("release") / name, name)
        return written[name]

    return get


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real annotations, which cannot ship: NEURALANNOT_TEST_DATA."""
    folder = os.environ.get("NEURALANNOT_TEST_DATA")
    if not folder:
        pytest.skip("NEURALANNOT_TEST_DATA is unset: the data sets' own cameras and joints cannot ship")
    return Path(folder)


@pytest.fixture
def forget_models() -> Iterator[None]:
    """Body models and warnings are kept for a process; this forgets them, before and after."""
    from neuralannot import bodies
    from neuralannot.body_models import model

    kept = (bodies._model_on, bodies._points_on, model._read, model.warn_open_body)
    for cached in kept:
        cached.cache_clear()
    yield
    for cached in kept:
        cached.cache_clear()
