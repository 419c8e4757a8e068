"""The checks before a commit: they are those of `make lint`, and refuse what may not be committed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / ".pre-commit-config.yaml"
ENVIRONMENT = Path(sys.executable).parent


def in_repository(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the hooks, whose environment is the one that runs this test."""
    assert in_repository(tmp_path, "git", "init", "-q").returncode == 0
    (tmp_path / ".venv").symlink_to(ENVIRONMENT.parent)
    (tmp_path / ".gitignore").write_text(".venv\n")
    for name in ("pyproject.toml", CONFIG.name):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_the_programs_are_those_of_make_lint():
    """Local hooks: no version but that of constraints.txt, and nothing to download."""
    text = CONFIG.read_text()
    assert set(re.findall(r"- repo: (.*)", text)) == {"local"}
    assert set(re.findall(r"language: (.*)", text)) == {"system"}
    programs = {entry.split()[0] for entry in re.findall(r"entry: (.*)", text)}
    assert programs == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python"}


@pytest.mark.slow
def test_hooks_pass_what_is_well_and_refuse_what_is_not(repository):
    run = ("env", "SKIP=mypy", ENVIRONMENT / "python", "-m", "pre_commit", "run", "--all-files")
    (repository / "fine.py").write_text('"""A module."""\n')
    in_repository(repository, "git", "add", ".")
    fine = in_repository(repository, *run)
    assert fine.returncode == 0, fine.stdout + fine.stderr
    (repository / "large.bin").write_bytes(bytes(6_200_000))
    (repository / "untidy.py").write_text("import os\nx  =  1\n")
    (repository / "merged.md").write_text("<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n")
    (repository / "broken.yaml").write_text("a: [1\n")
    in_repository(repository, "git", "add", ".")
    said = in_repository(repository, *run)
    assert said.returncode == 1
    assert "large.bin (6055 KB) exceeds 6000 KB." in said.stdout
    assert "untidy.py" in said.stdout
    refused = set(re.findall(r"^(\S.*?)\.{3,}.*Failed$", said.stdout, re.M))
    assert {
        "ruff check",
        "ruff format",
        "no file over 6 MB",
        "no marks of a merge",
        "YAML that parses",
    } == refused
