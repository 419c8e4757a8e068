"""The code in README.md and docs/ runs: Python blocks of a page one after another, then its command lines."""

import re
import shutil
from pathlib import Path

import pytest
from processes import Process

from neuralannot.demo import SAMPLE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    found = [code for kind, code in _BLOCK.findall(page.read_text()) if kind == language]
    assert len(found) == page.read_text().count(f"```{language}"), f"{page.name}: a block that is not read"
    return found


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder as a reader has it: the MSCOCO files in it, Human3.6M's in a folder of its own."""
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    shutil.copytree(SAMPLE / "human36m", tmp_path / "human36m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:no official body models")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, data):
    names: dict[str, object] = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)  # our own pages


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_command_lines_run(page, data):
    for code in blocks(page, "bash"):
        for line in code.strip().splitlines():
            command = line.split()
            assert command[0] == "neuralannot"
            run = Process("-m", "neuralannot", *command[1:]).ended()
            assert run.returncode == 0, f"{line}\n{run.stderr}"


def test_readme_writes_its_overlay_and_numbers(data):
    names: dict[str, object] = {}
    for code in blocks(ROOT / "README.md", "python"):
        exec(compile(code, "README.md", "exec"), names)
    assert (data / "overlay.png").stat().st_size > 10_000
    gt = names["gt"]
    assert (len(gt), gt.model, gt.space) == (1, "smpl", "camera")


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_the_table_of_releases_names_every_release():
    from neuralannot import RELEASES

    text = (ROOT / "docs" / "releases.md").read_text()
    for release in RELEASES.values():
        stem, _, model = release.name.rpartition("-")
        assert release.name in text or (stem in text and f"`-{model}`" in text) or "recipes" in release.name
    listed = [r for r in ("three-recipes", "two-recipes") if r in text]
    assert listed == ["three-recipes", "two-recipes"]


def test_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "neuralannot"
    for module in (*package.glob("*.py"), *(package / "body_models").glob("*.py")):
        if module.name not in ("__init__.py",):
            assert module.name in text, f"docs/architecture.md does not name {module.name}"
