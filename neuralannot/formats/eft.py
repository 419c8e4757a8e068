"""EFT's fits (JSON) as annotations."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import simdjson

from neuralannot.formats.foreign import CROP, FOCAL, crop_camera, find_annotations, in_memory
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["read_eft"]

_WIDTHS = {"parm_pose": 216, "parm_shape": 10, "parm_cam": 3, "bbox_center": 2}
_ROTATION_TOLERANCE = 1e-2


def read_eft(
    path: str | os.PathLike[str],
    *,
    annotations: Any = None,
    release: str = "mscoco-smpl",
    within: float = 0.1,
) -> PseudoGT:
    """EFT's JSON (`{"ver", "data": [...]}`) as SMPL fits that compare with a release's by annotation id.

    Rotation matrices become axis-angle. EFT's camera is a weak perspective one of the 224 px crop,
    `x = s X + t`; it becomes the perspective one of focal length 5000 px in the crop that agrees with it at
    the body's depth, `transl = (t / s, 2 * 5000 / (224 s))`, 50 m away for a usual crop.

    Ids are `annotId`, COCO's. With `annotations`, a COCO-format file as `load_pseudo_gt` takes it, they are
    found by image and box instead (MPII and LSPet have no ids; `within`: see `find_annotations`). What has no
    annotation is left out with a warning, of two with the same id the first is kept.

    Raises ValueError that names the entry for what is not EFT's layout, and where no fit has an id.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    values, names, ids = _read(path)
    if annotations is not None:
        ids = find_annotations(names, values["bbox_center"], annotations, release, within=within)
    kept = first_of_ids(ids, path, by_image=annotations is not None)
    rotvec = _rotvecs(path, values["parm_pose"][kept].reshape(-1, 3, 3)).reshape(-1, 24, 3)
    scale, shift = values["parm_cam"][kept, :1], values["parm_cam"][kept, 1:]
    if not (scale > 0).all():
        raise ValueError(f"{path}: parm_cam: its scale must be positive, got {scale.min()}")
    transl = np.concatenate([shift / scale, 2 * FOCAL / (CROP * scale)], axis=1)
    focal, princpt = crop_camera(values["bbox_center"][kept], values["bbox_scale"][kept])
    params = {
        "global_orient": rotvec[:, 0],
        "body_pose": rotvec[:, 1:],
        "betas": values["parm_shape"][kept],
        "transl": transl,
    }
    return in_memory(release, params, ids=ids[kept], focal=focal, princpt=princpt)


def first_of_ids(ids: np.ndarray, path: Path, *, by_image: bool) -> np.ndarray:
    """The rows that have an id, the first of each; warns of those that are left out."""
    rows = np.flatnonzero(ids >= 0)
    if not len(rows):
        said = "no fit belongs to any of the annotations" if by_image else "its fits have no annotation ids"
        raise ValueError(
            f"{path}: {said}; give annotations= (--annotations) the COCO-format file of the same images"
        )
    _, first = np.unique(ids[rows], return_index=True)
    kept = rows[np.sort(first)]
    lost, again = len(ids) - len(rows), len(rows) - len(kept)
    if lost or again:
        warnings.warn(
            f"{path.name}: of {len(ids)} fits {lost} have no annotation and {again} a repeated id; left out",
            stacklevel=3,
        )
    return kept


def _read(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    parser = simdjson.Parser()
    try:
        document: Any = parser.load(str(path))
        entries = document["data"]
        count = len(entries)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: not EFT's fits: expected an object with a list 'data', got {error}"
        ) from None
    values = {name: np.zeros((count, width)) for name, width in _WIDTHS.items()}
    scales = np.zeros(count)
    ids = np.full(count, -1, np.int64)
    names = []
    for row, entry in enumerate(entries):
        try:
            if entry.get("smpltype") not in (None, "smpl"):
                raise ValueError(f"smpltype is {entry.get('smpltype')!r}; only SMPL's fits are read")
            for name, width in _WIDTHS.items():
                numbers = _flat(entry[name])
                if numbers.shape != (width,) or not np.isfinite(numbers).all():
                    raise ValueError(f"{name!r} must hold {width} finite numbers, got {len(numbers)}")
                values[name][row] = numbers
            scales[row] = float(entry["bbox_scale"])
            names.append(str(entry["imageName"]))
        except KeyError:
            there = set(entry.keys())
            lacking = [n for n in (*_WIDTHS, "bbox_scale", "imageName") if n not in there]
            raise ValueError(f"{path}: data[{row}]: no {', '.join(lacking)}, as EFT's fits have it") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: data[{row}]: {error}") from None
        known = entry.get("annotId")
        if isinstance(known, int) and not isinstance(known, bool):
            ids[row] = known
    return {**values, "bbox_scale": scales}, np.array(names, str), ids


def _flat(values: Any) -> np.ndarray:
    """All numbers of nested lists, in order; none of what is no list of numbers."""
    if not isinstance(values, simdjson.Array):
        return np.zeros(0)
    return np.frombuffer(values.as_buffer(of_type="d"))


def _rotvecs(path: Path, matrices: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    off = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = np.flatnonzero((off > _ROTATION_TOLERANCE) | (np.linalg.det(matrices) < 0))
    if len(bad):
        raise ValueError(f"{path}: parm_pose: joint {bad[0] % 24} of fit {bad[0] // 24} is no rotation")
    rotvecs: np.ndarray = Rotation.from_matrix(matrices).as_rotvec()
    return rotvecs
