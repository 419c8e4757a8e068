"""What is handed on: wheel and sdist, and the package installed from the wheel alone, as users have it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = "bench,docs,download,parquet,train,test,view"

pytestmark = pytest.mark.slow

# What another's strict type checker makes of code that uses the package: types that are shown, lines refused.
USER = """
import neuralannot
import torch
from neuralannot import PseudoGTDataset, collate, load_body_model, load_pseudo_gt
from torch.utils.data import DataLoader

gt = load_pseudo_gt("MSCOCO_train_SMPL_NeuralAnnot.json", cache=False)
reveal_type(gt.to_camera_space())  # shown: neuralannot.pseudo_gt.PseudoGT
reveal_type(gt[476384].params["betas"])  # shown: numpy.ndarray[
bodies = gt.forward(want="joints")
reveal_type(bodies.joints)  # shown: torch._tensor.Tensor
reveal_type(bodies.project())  # shown: torch._tensor.Tensor
camera = gt.camera
reveal_type(camera)  # shown: neuralannot.cameras.Camera | None
assert camera is not None
reveal_type(camera.project(bodies.joints))  # shown: torch._tensor.Tensor
reveal_type(camera.project(bodies.joints.numpy()))  # shown: numpy.ndarray[
loader = DataLoader(PseudoGTDataset(gt, joints=True), batch_size=4, collate_fn=collate, num_workers=2)
for batch in loader:
    reveal_type(load_body_model("smpl")(**batch["params"]).vertices)  # shown: torch._tensor.Tensor

load_pseudo_gt(476384)  # refused: arg-type
load_pseudo_gt("a.json", camera="b.json")  # refused: call-arg
gt.camera.project(bodies.joints)  # refused: union-attr
camera.project("joints")  # refused: type-var
gt.forward(ids=[1], wants="mesh")  # refused: call-arg
gt.forward(want="vertices")  # refused: arg-type
bodies.project("mesh")  # refused: arg-type
bodies.vertices.shape  # refused: union-attr
PseudoGTDataset("a.json")  # refused: arg-type
DataLoader(gt)  # refused: arg-type
load_body_model("smpl")(betas=[0.0] * 10)  # refused: arg-type
neuralannot.load_pseudo_gtt("a.json")  # refused: attr-defined
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """What a program says, which must not fail; nothing of these tests' own Python reaches it."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NEURALANNOT"))
    }
    ended = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=own | environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is checked out: building leaves folders in it."""
    out = tmp_path_factory.mktemp("source") / "tree"
    unwanted = shutil.ignore_patterns(
        ".?*", "__pycache__", "build", "dist", "*.egg-info", "*_out", "site", "*.columns.safetensors"
    )
    shutil.copytree(ROOT, out, ignore=unwanted)
    return out


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that is made of it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, cwd=source)
    return out


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """The folder of one, which is not kept: it holds a torch."""
    yield tmp_path / "env"
    shutil.rmtree(tmp_path / "env", ignore_errors=True)


def the_wheel(folder: Path) -> Path:
    (found,) = folder.glob("*.whl")
    return found


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("/")}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_is_the_package_and_nothing_else(source, built):
    wheel = the_wheel(built)
    assert wheel.name.endswith("-py3-none-any.whl")
    held = content(wheel)
    about = {name: data for name, data in held.items() if ".dist-info/" in name}
    assert set(held) - set(about) == {f"neuralannot/{name}" for name in files_of(source / "neuralannot")}
    for name in set(held) - set(about):
        assert held[name] == (source / name).read_bytes(), name
    of = {name.split(".dist-info/")[1]: data.decode() for name, data in about.items()}
    assert "Root-Is-Purelib: true" in of["WHEEL"]
    for name in ("LICENSE", "NOTICE"):
        assert of[f"licenses/{name}"] == (ROOT / name).read_text()
    assert "neuralannot = neuralannot.cli:main" in of["entry_points.txt"]
    said = Parser().parsestr(of["METADATA"])
    assert said["Requires-Python"] == ">=3.10"
    assert set(EXTRAS.split(",")) <= set(said.get_all("Provides-Extra", []))
    assert wheel.stat().st_size < 20_000_000


def test_the_sdist_is_the_tree_and_makes_the_wheel_that_the_tree_makes(source, built, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, cwd=source)
    mine, of_sdist = content(the_wheel(tmp_path)), content(the_wheel(built))
    assert mine == of_sdist
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    wanted = files_of(source)
    assert not {name for name in wanted - held if not name.startswith(("build/", "neuralannot.egg-info/"))}


def test_an_empty_environment_runs_the_demo_and_types_what_users_write(built, environment, tmp_path):
    """Wheels alone, no compiler; another folder than the sources'."""
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python, wheel = environment / "bin" / "python", the_wheel(built)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--only-binary", ":all:")
    run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    run(python.parent / "neuralannot", "demo", "--out", "shown", cwd=tmp_path)
    said = run(python, "-m", "neuralannot.demo", "--check", "shown", cwd=tmp_path)
    assert "files of the demo are there" in said
    assert str(environment) in run(
        python, "-c", "import neuralannot; print(neuralannot.__file__)", cwd=tmp_path
    )
    # Every extra has wheels for this Python; it is not installed.
    run(*pip, "--dry-run", "-c", ROOT / "constraints.txt", f"{wheel}[{EXTRAS}]", cwd=tmp_path)
    check_types(python, tmp_path)


def check_types(python: Path, folder: Path) -> None:
    (folder / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "user.py"]
    said = subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True).stdout
    lines = re.findall(r"^user\.py:(\d+): (error: .*|note: Revealed type is .*)$", said, re.M)
    found = {int(number): text.split(": ", 1) for number, text in lines}
    for number, line in enumerate(USER.splitlines(), 1):
        code, _, wanted = line.partition("  # ")
        kind, text = found.pop(number, ["fine", ""])
        how, _, what = wanted.partition(": ")
        if how == "shown":
            assert (kind, what in text) == ("note", True), f"{code}\n{text}\n{said}"
        elif how == "refused":
            assert (kind, text.endswith(f"[{what}]")) == ("error", True), f"{code}\n{text}\n{said}"
        else:
            assert kind == "fine", f"{code}\n{text}\n{said}"
    assert not found, said
