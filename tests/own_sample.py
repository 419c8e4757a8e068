"""A copy of the sample that ships: columns are kept beside files that are read, and not in the package."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from neuralannot import demo

_FOLDER = tempfile.mkdtemp(prefix="sample-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
SAMPLE = Path(shutil.copytree(demo.SAMPLE, Path(_FOLDER) / "sample"))
