"""The table of releases: every released file's name, and what it says of the file."""

from __future__ import annotations

import dataclasses
import re

import pytest

from neuralannot.catalog import RELEASES, identify, release_named

# (file names, release, model, space, layout, key names, key around the parameters, camera from), from the
# release's own README and demo scripts.
H36M = ("subject", "action", "subaction", "frame")
MPI = ("subject", "seq", "frame")
FILES = [
    (
        [f"Human36M_subject{s}_SMPL_NeuralAnnot.json" for s in (1, 5, 6, 7, 8, 9, 11)],
        ("human36m-smpl", "smpl", "world", "frames", H36M, None, "companion"),
    ),
    (
        [f"Human36M_subject{s}_SMPLX_NeuralAnnot.json" for s in (1, 5, 6, 7, 8, 9, 11)],
        ("human36m-smplx", "smplx", "world", "frames", H36M, None, "companion"),
    ),
    (
        ["MPI-INF-3DHP_SMPL_NeuralAnnot.json"],
        ("mpi-inf-3dhp-smpl", "smpl", "world", "frames", MPI, None, "companion"),
    ),
    (
        ["MPI-INF-3DHP_SMPLX_NeuralAnnot.json"],
        ("mpi-inf-3dhp-smplx", "smplx", "world", "frames", MPI, None, "companion"),
    ),
    (
        ["MSCOCO_train_SMPL_NeuralAnnot.json"],
        ("mscoco-smpl", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        ["MSCOCO_train_SMPLX_all_NeuralAnnot.json"],
        ("mscoco-smplx", "smplx", "camera", "flat", ("id",), "smplx_param", "leaf"),
    ),
    (
        ["MSCOCO_train_MANO_NeuralAnnot.json"],
        ("mscoco-mano", "mano", "camera", "hands", ("id",), "mano_param", "leaf"),
    ),
    (
        ["MSCOCO_train_FLAME_NeuralAnnot.json"],
        ("mscoco-flame", "flame", "camera", "flat", ("id",), "flame_param", "leaf"),
    ),
    (
        ["MSCOCO_train_SMPL_Three_Recipes.json", "MSCOCO_train_SMPL_ThreeRecipes.json"],
        ("mscoco-smpl-three-recipes", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        ["MSCOCO_train_SMPL_Two_Recipes.json", "MSCOCO_train_SMPL_2Recipes.json"],
        ("mscoco-smpl-two-recipes", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        ["MPII_train_SMPL_NeuralAnnot.json"],
        ("mpii-smpl", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        ["MPII_train_SMPLX_NeuralAnnot.json"],
        ("mpii-smplx", "smplx", "camera", "flat", ("id",), "smplx_param", "leaf"),
    ),
    (
        [f"3DPW_{split}_SMPLX_NeuralAnnot.json" for split in ("train", "validation", "test")],
        ("3dpw-smplx", "smplx", "image", "flat", ("id",), None, "image"),
    ),
    (
        [f"CrowdPose_{split}_SMPL_NeuralAnnot.json" for split in ("train", "val", "test", "trainval")],
        ("crowdpose-smpl", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        ["FFHQ_FLAME_NeuralAnnot.json"],
        ("ffhq-flame", "flame", "camera", "flat", ("id",), "flame_param", "leaf"),
    ),
    (
        ["InstaVariety_train_SMPL_NeuralAnnot.json"],
        ("instavariety-smpl", "smpl", "camera", "flat", ("id",), "smpl_param", "leaf"),
    ),
    (
        [f"InterHand2.6M_{split}_MANO_NeuralAnnot.json" for split in ("train", "test", "val")],
        ("interhand26m-mano", "mano", "world", "hand-frames", ("capture", "frame"), None, "companion"),
    ),
]


@pytest.mark.parametrize(("name", "facts"), [(n, facts) for names, facts in FILES for n in names])
def test_released_names_are_identified(name: str, facts: tuple) -> None:
    for path in (name, f"/data/set.json/{name}"):
        found = identify(path)
        assert found is not None
        r, groups = found
        assert (r.name, r.model, r.space, r.layout, r.key_names, r.leaf_key, r.camera) == facts
        filled = r.files
        for key, value in groups.items():
            filled = filled.replace(f"{{{key}}}", value)
        assert filled == name or "recipes" in r.name


def test_the_table_is_covered_and_consistent() -> None:
    assert {facts[0] for _, facts in FILES} == set(RELEASES)
    for name, r in RELEASES.items():
        assert r.name == name == release_named(name).name
        assert r.page.startswith("https://")
        assert r.licence
        assert r.annotations
        assert (r.camera == "companion") == (r.cameras is not None) == (r.space == "world")
        assert sum(other.match(r.files) is not None for other in RELEASES.values()) <= 1


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Human36M_subject11_SMPL_NeuralAnnot.json", {"subject": "11"}),
        ("3DPW_validation_SMPLX_NeuralAnnot.json", {"split": "validation"}),
        ("CrowdPose_trainval_SMPL_NeuralAnnot.json", {"split": "trainval"}),
        ("FFHQ_FLAME_NeuralAnnot.json", {}),
    ],
)
def test_subject_and_split(name: str, groups: dict[str, str]) -> None:
    found = identify(name)
    assert found is not None
    assert found[1] == groups


@pytest.mark.parametrize(
    "name",
    [
        "",
        "fits.json",
        "MSCOCO_train_SMPL_NeuralAnnot.json.gz",
        "MSCOCO_train_SMPL_NeuralAnnot.json\n",
        "my_MSCOCO_train_SMPL_NeuralAnnot.json",
        "MSCOCO_train_SMPL_NeuralAnnot (1).json",
        "mscoco_train_smpl_neuralannot.json",
        "InterHand2x6M_train_MANO_NeuralAnnot.json",
        "Human36M_subject_SMPL_NeuralAnnot.json",
        "Human36M_subjectX_SMPL_NeuralAnnot.json",
        "3DPW_dev_SMPLX_NeuralAnnot.json",
        "Human36M_subject1_camera.json",
        "person_keypoints_train2017.json",
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert identify(name) is None


def test_unknown_release_is_refused_with_the_nearest() -> None:
    names = re.escape(", ".join(RELEASES))
    with pytest.raises(
        ValueError, match=r"^unknown release 'MSCOCO-SMPLX'; did you mean 'mscoco-smplx'\? expected"
    ):
        release_named("MSCOCO-SMPLX")
    with pytest.raises(ValueError, match=rf"^unknown release 'qqq'; expected one of {names}$"):
        release_named("qqq")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        RELEASES["x"] = release_named("mscoco-smpl")  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        release_named("mscoco-smpl").space = "world"  # type: ignore[misc]
