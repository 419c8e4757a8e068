"""What the package promises: its public names, and an import that costs nothing."""

import importlib
import inspect
import re
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import public_names
import pytest

import neuralannot

ROOT = Path(__file__).parent.parent

PUBLIC = [
    "JOINT_SETS",
    "RELEASES",
    "Bodies",
    "BodyModel",
    "Camera",
    "JointRegressor",
    "PseudoGT",
    "PseudoGTDataset",
    "Release",
    "collate",
    "convert_joints",
    "load_body_model",
    "load_pseudo_gt",
    "render_overlay",
    "save_mesh",
]


def test_public_names_are_these():
    assert neuralannot.__all__ == PUBLIC


def test_names_and_signatures_are_those_on_file():
    """A change of the interface is a line of `public_names.txt` that changes: `make names`, and look."""
    kept, found = public_names.FILE.read_text().splitlines(), public_names.lines()
    assert kept == found, "\n".join(unified_diff(kept, found, "public_names.txt", "now", lineterm="", n=0))


def test_what_pages_and_examples_import_is_public():
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    for path in files:
        for module, names in re.findall(
            r"from (neuralannot[\w.]*) import ([\w, ]+|\([^)]+\))", path.read_text()
        ):
            found = importlib.import_module(module)
            for name in re.findall(r"\w+", names):
                inside = hasattr(found, "__path__") and not hasattr(found, name)
                assert inside or name in getattr(found, "__all__", ()), f"{path.name}: {module}.{name}"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_load_and_are_documented(name):
    value = getattr(neuralannot, name)
    assert name in dir(neuralannot)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__


@pytest.mark.parametrize("cls", ["PseudoGT", "PseudoGTDataset", "Camera", "Bodies"])
def test_public_methods_are_documented(cls):
    for name, member in vars(getattr(neuralannot, cls)).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{cls}.{name}"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'load_pseudo_gtt'"):
        _ = neuralannot.load_pseudo_gtt
    from neuralannot import body_models

    with pytest.raises(AttributeError, match="no attribute 'Layer'"):
        _ = body_models.Layer


def test_importing_does_not_pay_for_torch():
    code = (
        "import sys, neuralannot, neuralannot.loading, neuralannot.train, neuralannot.quality\n"
        "import neuralannot.formats, neuralannot.regressors\n"
        "heavy = {'torch', 'smplx', 'trimesh', 'cv2', 'scipy.spatial'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_importing_writes_and_prints_nothing(tmp_path):
    code = "import neuralannot, neuralannot.bodies, neuralannot.body_models.model, neuralannot.render"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_importing_warns_of_nothing():
    code = "import neuralannot, neuralannot.cli, neuralannot.train, neuralannot.formats"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_core_does_not_import_train():
    package = Path(neuralannot.__file__).parent
    for module in package.rglob("*.py"):
        # The command line and the showcase stand above everything, measuring above training.
        name = module.relative_to(package).as_posix()
        above = name in ("cli.py", "showcase.py") or name.startswith(("quality/", "report/", "viewer/"))
        if "train" not in module.relative_to(package).parts and not above:
            assert "neuralannot.train" not in module.read_text(), module


def test_no_name_of_a_package_is_its_modules_too():
    """`from package import name` would give the module, once anything had imported it."""
    from pathlib import Path

    for init in Path(neuralannot.__file__).parent.rglob("__init__.py"):
        name = ".".join(["neuralannot", *init.parent.relative_to(Path(neuralannot.__file__).parent).parts])
        modules = {path.stem for path in init.parent.iterdir() if path.suffix in ("", ".py")}
        both = modules & set(getattr(importlib.import_module(name), "__all__", ()))
        assert not both, f"{name}: {both}"
