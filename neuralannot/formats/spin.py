"""SPIN's fits (npz, npy) as annotations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.formats.eft import first_of_ids
from neuralannot.formats.foreign import crop_camera, find_annotations, in_memory
from neuralannot.formats.hmr import BOX_SCALE
from neuralannot.formats.keypoint_orders import OPENPOSE_OF_SMPL, SPIN_OF_SMPL
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.safe_pickle import load_npy, load_npz

__all__ = ["read_spin"]

_FEWEST = 4  # joints that place a body
_SHAPES = {"center": (2,), "scale": (), "part": (24, 3), "openpose": (25, 3)}


def read_spin(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    annotations: Any = None,
    release: str = "mscoco-smpl",
    all_fits: bool = False,
    body_models: str | os.PathLike[str] | None = None,
    within: float = 0.02,
) -> PseudoGT:
    """SPIN's fits as SMPL fits that compare with a release's by annotation id.

    `path`: an npz with `pose` (N, 72), `betas` or `shape` (N, 10) and a flag `valid_fit` or `has_smpl` (N,),
    or an npy (N, 82). `images`: SPIN's training npz in whose order the fits are (`imgname`, `center`,
    `scale`, `part`, `openpose`), needed where `path` has not those keys itself. Ids: `annotation_id`, which
    `write_hmr` adds; else found in `annotations`, the COCO-format file, by image and box (`within`: see
    `find_annotations`). Fits whose flag is 0 are left out unless `all_fits`.

    SPIN keeps no translation: `trans_cam` of `write_hmr` is taken where it is; else the body is placed by
    least squares so that its joints project on the file's keypoints through the crop's camera (focal length
    5000 px at 224 px), as SPIN itself does. Where fewer than four joints are seen its box places it; a
    warning counts them.

    Raises ValueError that names the array for what is not SPIN's layout.
    """
    path = Path(path)
    content = _content(path)
    about = dict(_content(Path(images))) if images is not None else dict(content)
    pose = _array(path, content, "pose", (72,))
    count = len(pose)
    betas = _array(path, content, "betas" if "betas" in content else "shape", (10,), count)
    if "imgname" not in about:
        raise ValueError(
            f"{path}: says no images; give images= (--images-file) SPIN's training npz in whose order the "
            "fits are, such as coco_2014_train.npz"
        )
    place = path if images is None else Path(images)
    names = np.asarray(about["imgname"]).astype(str)
    if len(names) != count:
        raise ValueError(f"{place}: {len(names)} images for {count} fits of {path}; they must go together")
    crop = {
        name: _array(place, about, name, shape, count) for name, shape in _SHAPES.items() if name in about
    }
    for name in ("center", "scale"):
        if name not in crop:
            raise ValueError(f"{place}: no {name!r}, as SPIN's training files have it")
    ids = _ids(path, content, names, crop["center"], annotations, release, within)
    flag = next((content[name] for name in ("valid_fit", "has_smpl") if name in content), None)
    if flag is not None and not all_fits:
        ids = np.where(np.asarray(flag).reshape(-1).astype(bool), ids, -1)
    kept = first_of_ids(ids, path, by_image=annotations is not None)
    params = {
        "global_orient": pose[kept, :3],
        "body_pose": pose[kept, 3:],
        "betas": betas[kept],
        "transl": np.zeros((len(kept), 3), np.float32),
    }
    if "trans_cam" in content and "cam_int" in content:
        params["transl"] = _array(path, content, "trans_cam", (3,), count)[kept]
        K = _array(path, content, "cam_int", (3, 3), count)[kept]
        focal, princpt = np.stack([K[:, 0, 0], K[:, 1, 1]], axis=1), K[:, :2, 2]
        return in_memory(release, params, ids=ids[kept], focal=focal, princpt=princpt)
    focal, princpt = crop_camera(crop["center"][kept], crop["scale"][kept])
    unplaced = in_memory(release, params, ids=ids[kept], focal=focal, princpt=princpt)
    params["transl"] = _placed(unplaced, {n: v[kept] for n, v in crop.items()}, path, body_models)
    return in_memory(release, params, ids=ids[kept], focal=focal, princpt=princpt)


def _content(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npy":
        both = np.asarray(load_npy(path))
        if both.ndim != 2 or both.shape[1] != 82:
            raise ValueError(f"{path}: SPIN's fits are (N, 82), pose and shape; got {both.shape}")
        return {"pose": both[:, :72], "shape": both[:, 72:]}
    return load_npz(path)


def _array(
    path: Path, content: Mapping[str, Any], name: str, shape: tuple[int, ...], count: int | None = None
) -> np.ndarray:
    if name not in content:
        raise ValueError(
            f"{path}: no {name!r}, as SPIN's fits have it; it has {', '.join(map(str, content))}"
        )
    values = np.asarray(content[name])
    wanted = f"({'N' if count is None else count}, {', '.join(map(str, shape))})"
    if values.dtype.kind not in "biuf" or values.shape[1:] != shape or count not in (None, len(values)):
        raise ValueError(f"{path}: {name} must be {wanted} numbers, got {values.shape} of {values.dtype}")
    if not np.isfinite(values.astype(np.float64)).all():
        raise ValueError(f"{path}: {name} must be finite")
    return values.astype(np.float32)


def _ids(
    path: Path,
    content: Mapping[str, Any],
    names: np.ndarray,
    centers: np.ndarray,
    annotations: Any,
    release: str,
    within: float,
) -> np.ndarray:
    if annotations is not None:
        return find_annotations(names, centers, annotations, release, within=within)
    if "annotation_id" in content:
        return np.asarray(content["annotation_id"], np.int64)
    raise ValueError(
        f"{path}: SPIN's fits have no annotation ids; give annotations= (--annotations) the COCO-format file "
        "of the same images"
    )


def _placed(
    gt: PseudoGT, crop: Mapping[str, np.ndarray], path: Path, body_models: str | os.PathLike[str] | None
) -> np.ndarray:
    """(N, 3) translations that put the bodies' joints on the file's keypoints."""
    smpl = JOINT_SETS["smpl"].joints
    sources = (("openpose", OPENPOSE_OF_SMPL), ("part", SPIN_OF_SMPL))
    pairs = [(name, k, smpl.index(joint)) for name, of in sources if name in crop for k, joint in of.items()]
    camera, out, rough = gt.require_camera(), np.zeros((len(gt), 3)), 0
    first = 0
    for bodies in gt.forward_batches(want="joints", body_models=body_models, batch_size=1024):
        rows = slice(first, first + len(bodies))
        first += len(bodies)
        joints = bodies.joints.numpy().astype(np.float64)
        out[rows] = _by_box(joints, crop["scale"][rows], camera.focal[rows, 0])
        if not pairs:
            rough += len(joints)
            continue
        points = np.stack([crop[name][rows, k] for name, k, _ in pairs], axis=1).astype(np.float64)
        model = joints[:, [j for _, _, j in pairs]]
        found = _least_squares(
            model, points[..., :2] - camera.princpt[rows, None], points[..., 2], camera.focal[rows]
        )
        sure = ((points[..., 2] > 0).sum(axis=1) >= _FEWEST) & np.isfinite(found).all(axis=1)
        sure &= found[:, 2] + joints[..., 2].min(axis=1) > 0
        out[rows][sure] = found[sure]
        rough += int((~sure).sum())
    if rough:
        warnings.warn(
            f"{path.name}: {rough} of {len(gt)} bodies are placed by their boxes, since fewer than {_FEWEST} "
            "of their joints are seen",
            stacklevel=3,
        )
    return out.astype(np.float32)


def _least_squares(
    joints: np.ndarray, pixels: np.ndarray, weight: np.ndarray, focal: np.ndarray
) -> np.ndarray:
    """(N, 3): `f (X + t) = u (Z + t_z)` for joints (N, K, 3) and centred pixels, weighted."""
    n, k = weight.shape
    f = np.repeat(focal[:, None].astype(np.float64), k, axis=1)
    A = np.zeros((n, k, 2, 3))
    A[..., 0, 0], A[..., 1, 1], A[..., 2] = f[..., 0], f[..., 1], -pixels
    b = pixels * joints[..., 2:] - f * joints[..., :2]
    A, b = (A * weight[..., None, None]).reshape(n, -1, 3), (b * weight[..., None]).reshape(n, -1, 1)
    square = A.transpose(0, 2, 1) @ A
    sure = np.linalg.cond(square) < 1e12
    found = np.full((n, 3), np.nan)
    found[sure] = np.linalg.solve(square[sure], (A.transpose(0, 2, 1) @ b)[sure])[..., 0]
    return found


def _by_box(joints: np.ndarray, scale: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """(N, 3): the joints' middle in the crop's, as large as the box without its margin."""
    low, high = joints.min(axis=1), joints.max(axis=1)
    side = 200.0 * scale / BOX_SCALE
    depth = focal * (high - low)[:, :2].max(axis=1) / side
    return np.concatenate([-(low + high)[:, :2] / 2, depth[:, None]], axis=1)
