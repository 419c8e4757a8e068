"""The table of releases: which files exist, how they are keyed, what stands beside them, whence they come."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

NEURALANNOT_PAGE = "https://github.com/mks0601/NeuralAnnot_RELEASE"
INTERHAND_PAGE = "https://mks0601.github.io/InterHand2.6M/"


@dataclass(frozen=True)
class Release:
    """One released file (or one per subject or split) and everything needed to read it.

    Fields
    ------
    name: the name to pass as `release=`, for instance `mscoco-smpl`.
    data_set: the data set's own name.
    model: `smpl`, `smplx`, `mano` or `flame`.
    files: the file's name, with `{subject}` or `{split}` where there are several.
    layout: `flat` (`[aid]` -> leaf), `hands` (`[aid][side]`), `frames` (numbers -> leaf) or
        `hand-frames` (`[capture][frame][side]`).
    key_names: what the nested keys mean; for Human3.6M the subject comes from the file's name.
    leaf_key: the key around the parameters (`smpl_param`), None where the leaf is the parameters.
    space: `camera` or `world`, the space of the fits; `image`: world where the image's camera has extrinsics.
    camera: `leaf`, `companion` (a camera file) or `image` (`cam_param` of the annotation file's images).
    annotations, cameras, joints: companion file names, most preferred first.
    image_folder: prefix of image paths, relative to the data set's image folder.
    page, licence: where the file is to be had, and on what terms.
    """

    name: str
    data_set: str
    model: str
    files: str
    layout: str
    key_names: tuple[str, ...]
    leaf_key: str | None
    space: str
    camera: str
    annotations: tuple[str, ...]
    cameras: str | None = None
    joints: str | None = None
    image_folder: str = ""
    page: str = NEURALANNOT_PAGE
    licence: str = "the data set's own terms; no licence stated for the pseudo ground truth"

    def match(self, file_name: str) -> dict[str, str] | None:
        """The `{subject}` / `{split}` in `file_name` as a dict, or None where the name is another's."""
        found = re.fullmatch(_pattern(self.files), file_name)
        return found.groupdict() if found else None


_GROUPS = {
    "{subject}": r"(?P<subject>\d+)",
    "{split}": r"(?P<split>train|validation|trainval|val|test)",
    "{three}": r"(?:Three|3)[-_ ]?Recipes",
    "{two}": r"(?:Two|2)[-_ ]?Recipes",
}


def _pattern(files: str) -> str:
    pattern = re.escape(files).replace(r"\{", "{").replace(r"\}", "}")
    for placeholder, group in _GROUPS.items():
        pattern = pattern.replace(placeholder, group)
    return pattern


_FRAMES_H36M = ("subject", "action", "subaction", "frame")
_FRAMES_MPI = ("subject", "seq", "frame")
_COCO = ("coco_wholebody_train_v1.0.json", "person_keypoints_train2017.json")
_COCO_BODY = ("person_keypoints_train2017.json", "coco_wholebody_train_v1.0.json")


def _in_the_wild(
    name: str,
    data_set: str,
    model: str,
    files: str,
    annotations: tuple[str, ...],
    *,
    layout: str = "flat",
    image_folder: str = "",
    page: str = NEURALANNOT_PAGE,
) -> Release:
    leaf_key = f"{model}_param"
    return Release(
        name,
        data_set,
        model,
        files,
        layout,
        ("id",),
        leaf_key,
        "camera",
        "leaf",
        annotations,
        image_folder=image_folder,
        page=page,
    )


def _mocap(data_set: str, model: str, files: str) -> Release:
    if data_set == "Human3.6M":
        return Release(
            f"human36m-{model}",
            data_set,
            model,
            files,
            "frames",
            _FRAMES_H36M,
            None,
            "world",
            "companion",
            ("Human36M_subject{subject}_data.json",),
            "Human36M_subject{subject}_camera.json",
            "Human36M_subject{subject}_joint_3d.json",
        )
    return Release(
        f"mpi-inf-3dhp-{model}",
        data_set,
        model,
        files,
        "frames",
        _FRAMES_MPI,
        None,
        "world",
        "companion",
        ("MPI-INF-3DHP_1k.json",),
        "MPI-INF-3DHP_camera_1k.json",
        "MPI-INF-3DHP_joint_3d.json",
    )


_RELEASES = (
    _mocap("Human3.6M", "smpl", "Human36M_subject{subject}_SMPL_NeuralAnnot.json"),
    _mocap("Human3.6M", "smplx", "Human36M_subject{subject}_SMPLX_NeuralAnnot.json"),
    _mocap("MPI-INF-3DHP", "smpl", "MPI-INF-3DHP_SMPL_NeuralAnnot.json"),
    _mocap("MPI-INF-3DHP", "smplx", "MPI-INF-3DHP_SMPLX_NeuralAnnot.json"),
    _in_the_wild(
        "mscoco-smpl",
        "MSCOCO",
        "smpl",
        "MSCOCO_train_SMPL_NeuralAnnot.json",
        _COCO_BODY,
        image_folder="train2017",
    ),
    _in_the_wild(
        "mscoco-smplx",
        "MSCOCO",
        "smplx",
        "MSCOCO_train_SMPLX_all_NeuralAnnot.json",
        _COCO,
        image_folder="train2017",
    ),
    _in_the_wild(
        "mscoco-mano",
        "MSCOCO",
        "mano",
        "MSCOCO_train_MANO_NeuralAnnot.json",
        _COCO,
        layout="hands",
        image_folder="train2017",
    ),
    _in_the_wild(
        "mscoco-flame",
        "MSCOCO",
        "flame",
        "MSCOCO_train_FLAME_NeuralAnnot.json",
        _COCO,
        image_folder="train2017",
    ),
    _in_the_wild(
        "mscoco-smpl-three-recipes",
        "MSCOCO",
        "smpl",
        "MSCOCO_train_SMPL_{three}.json",
        _COCO_BODY,
        image_folder="train2017",
    ),
    _in_the_wild(
        "mscoco-smpl-two-recipes",
        "MSCOCO",
        "smpl",
        "MSCOCO_train_SMPL_{two}.json",
        _COCO_BODY,
        image_folder="train2017",
    ),
    _in_the_wild("mpii-smpl", "MPII", "smpl", "MPII_train_SMPL_NeuralAnnot.json", ("train.json",)),
    _in_the_wild("mpii-smplx", "MPII", "smplx", "MPII_train_SMPLX_NeuralAnnot.json", ("train.json",)),
    Release(
        "3dpw-smplx",
        "3DPW",
        "smplx",
        "3DPW_{split}_SMPLX_NeuralAnnot.json",
        "flat",
        ("id",),
        None,
        "image",
        "image",
        ("3DPW_{split}.json",),
    ),
    _in_the_wild(
        "crowdpose-smpl",
        "CrowdPose",
        "smpl",
        "CrowdPose_{split}_SMPL_NeuralAnnot.json",
        ("crowdpose_{split}.json",),
    ),
    _in_the_wild("ffhq-flame", "FFHQ", "flame", "FFHQ_FLAME_NeuralAnnot.json", ("FFHQ.json",)),
    _in_the_wild(
        "instavariety-smpl",
        "InstaVariety",
        "smpl",
        "InstaVariety_train_SMPL_NeuralAnnot.json",
        ("insta_train_db.pt",),
    ),
    Release(
        "interhand26m-mano",
        "InterHand2.6M",
        "mano",
        "InterHand2.6M_{split}_MANO_NeuralAnnot.json",
        "hand-frames",
        ("capture", "frame"),
        None,
        "world",
        "companion",
        ("InterHand2.6M_{split}_data.json",),
        "InterHand2.6M_{split}_camera.json",
        "InterHand2.6M_{split}_joint_3d.json",
        image_folder="{split}",
        page=INTERHAND_PAGE,
        licence="CC-BY-NC 4.0",
    ),
)

#: Name -> release: every file that was released, and what belongs to it.
RELEASES: Mapping[str, Release] = MappingProxyType({r.name: r for r in _RELEASES})


def release_named(name: str) -> Release:
    """The release called `name`. Raises ValueError that lists the names and suggests the nearest."""
    if name in RELEASES:
        return RELEASES[name]
    near = difflib.get_close_matches(name.lower(), RELEASES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown release {name!r}; {hint}expected one of {', '.join(RELEASES)}")


def identify(path: str | Path) -> tuple[Release, dict[str, str]] | None:
    """The release whose file name `path` bears, with the subject or split in it; None for any other name."""
    for release in _RELEASES:
        groups = release.match(Path(path).name)
        if groups is not None:
            return release, groups
    return None
