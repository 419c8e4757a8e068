"""The code in README.md and docs/ runs, and the site that is made of them is whole.

A guide is read in pieces: its Python blocks run one after another, its command lines in a folder apart.
A tutorial or a how-to is followed from its first line to its last: its blocks in their order, in one folder.
"""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import smplx
from processes import Process
from smplx_layers import open_layer

from neuralannot import cli
from neuralannot.demo import SAMPLE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_FOLLOWED = [DOCS / "getting_started.md", *sorted(DOCS.glob("howto/*.md"))]
_FOLLOWED += sorted(DOCS.glob("tutorials/*.md"))
_GUIDES = [ROOT / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page not in _FOLLOWED)]
PAGES = [*_GUIDES, *_FOLLOWED, *sorted(DOCS.glob("reference/*.md"))]
# Pages that train a network: the rest takes seconds.
_SLOW = {"tutorials/annotate_images.md", "tutorials/train_a_regressor.md"}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    found = [code for kind, code in all_blocks(page) if kind == language]
    assert len(found) == page.read_text().count(f"```{language}"), f"{page.name}: a block that is not read"
    return found


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of a page's blocks, in their order."""
    return _BLOCK.findall(page.read_text())


def run_python(code: str, page: Path, names: dict[str, object]) -> None:
    exec(compile(code, str(page), "exec"), names)  # our own pages


def run_commands(code: str) -> None:
    for line in code.strip().splitlines():
        command = line.split()
        assert command[0] == "neuralannot"
        run = Process("-m", "neuralannot", *command[1:]).ended()
        assert run.returncode == 0, f"{line}\n{run.stderr}"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder as a reader has it: the MSCOCO files in it, Human3.6M's in a folder of its own."""
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    shutil.copytree(SAMPLE / "human36m", tmp_path / "human36m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:no official body models")
@pytest.mark.parametrize("page", _GUIDES, ids=lambda p: p.name)
def test_python_blocks_run(page, data, monkeypatch):
    # A page that compares with smplx: its layer, on the open body.
    monkeypatch.setattr(smplx, "create", lambda folder, model: open_layer(model))
    names: dict[str, object] = {}
    for code in blocks(page, "python"):
        run_python(code, page, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", _GUIDES, ids=lambda p: p.name)
def test_command_lines_run(page, data):
    for code in blocks(page, "bash"):
        run_commands(code)


def parse_commands(code: str) -> None:
    """Lines that need files or time that tests have not: their options exist at least."""
    for line in code.strip().splitlines():
        command = line.partition("#")[0].split()
        if command[0] == "neuralannot":
            cli._parser().parse_args(command[1:])


def _followed() -> list[object]:
    named = {page.relative_to(DOCS).as_posix(): page for page in _FOLLOWED if "```" in page.read_text()}
    assert set(named) >= _SLOW
    slow = {name: (pytest.mark.slow,) if name in _SLOW else () for name in named}
    return [pytest.param(page, id=name, marks=slow[name]) for name, page in named.items()]


@pytest.mark.filterwarnings("ignore:no official body models")
@pytest.mark.parametrize("page", _followed())
def test_pages_can_be_followed(page, data, released):
    # Besides what ships: hands and people of whom some have no fit.
    for folder, release in (("mpii", "mpii-smpl"), ("interhand26m", "interhand26m-mano")):
        if f'"{folder}"' in page.read_text():
            shutil.copytree(released(release).path.parent, data / folder)
    names: dict[str, object] = {}
    run = {"python": lambda code: run_python(code, page, names), "bash": run_commands, "sh": parse_commands}
    for language, code in all_blocks(page):
        run[language](code)


def test_readme_writes_its_overlay_and_numbers(data):
    names: dict[str, object] = {}
    for code in blocks(ROOT / "README.md", "python"):
        run_python(code, ROOT / "README.md", names)
    assert (data / "overlay.png").stat().st_size > 10_000
    gt = names["gt"]
    assert (len(gt), gt.model, gt.space) == (1, "smpl", "camera")


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


# --- the site


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", text[text.index("\nnav:") :], re.M)
    assert len(listed) == len(set(listed))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages - set(listed) == set(), "pages that `nav` in mkdocs.yml does not list"
    assert set(listed) - pages == set(), "pages of `nav` that are not there"


def shown_in_reference() -> set[str]:
    """What pages of the reference show: `::: neuralannot.cameras`."""
    text = "\n".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    return set(re.findall(r"^::: (\S+)$", text, re.M))


def tool(name: str) -> ModuleType:
    """A module of `tools/site`."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "tools" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lists_of_arguments_in_docstrings_are_lists():
    pytest.importorskip("griffe")
    as_markdown = tool("docstrings").as_markdown
    text = "Do it.\n\nfolder: where\n    it is.\nevery: which.\nRaises ValueError."
    text += "\n\n`folder`: of this\nor that."
    items = "Do it.\n\n- **folder**: where\n    it is.\n- **every**: which.\n\nRaises ValueError."
    assert as_markdown(text, {"folder", "every"}) == items + "\n\n`folder`: of this\nor that."
    assert as_markdown("folder: none of its own", {"every"}) == "folder: none of its own"
    assert (
        as_markdown("It.\n\nFields\n------\nn: a number", {"n"}) == "It.\n\n**Fields**\n\n- **n**: a number"
    )


def test_what_a_site_loads_from_elsewhere_is_found(tmp_path):
    check = tool("check")
    (tmp_path / "page.html").write_text(
        '<link rel="canonical" href="https://a.org/"><a href="https://a.org">a</a><img src="images/a.png">'
        '<script src="https://cdn.org/a.js"></script><link rel="stylesheet" href="//fonts.org/a.css">'
    )
    (tmp_path / "own.css").write_text("a { background: url(https://a.org/b.png) }")
    assert check.loaded_from_elsewhere(tmp_path) == [
        "page.html: https://cdn.org/a.js",
        "page.html: //fonts.org/a.css",
        "own.css: url(http",
    ]


def test_the_reference_has_every_package_that_says_what_is_public():
    """One of names and docstrings is `tools/site/check.py`, which `make docs` runs on what was built."""
    shown = shown_in_reference()
    packages = set(tool("check").public_packages())
    assert packages - shown == set(), (
        "packages without `::: package` in docs/reference and a line in mkdocs.yml"
    )


def test_what_pages_and_examples_import_is_in_the_reference():
    shown = shown_in_reference()
    code = [c for page in PAGES for kind, c in all_blocks(page) if kind == "python"]
    code += [path.read_text() for path in (ROOT / "examples").glob("*.py")]
    used = set(re.findall(r"^from (neuralannot\S*) import ", "\n".join(code), re.M)) - {"neuralannot.demo"}
    assert used - shown == set()


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
    modules = {path.name for path in package.rglob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(modules) > 100
    named = set(re.findall(r"\w+\.py", text))
    assert modules <= named, f"docs/architecture.md does not name {sorted(modules - named)}"
