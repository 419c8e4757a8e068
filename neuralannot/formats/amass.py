"""AMASS-style npz: a sequence a file, in the world, z up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from neuralannot.exports import write_npz
from neuralannot.formats.hand_means import flat_hand_poses
from neuralannot.formats.lost import check_leave_out, refuse_hand_joints, without_expression
from neuralannot.formats.pictured import body_valid, require_model
from neuralannot.key_index import KeyIndex
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.transforms import rigid_parameters, rotation_about_axis

__all__ = ["write_amass"]

# Frames a second of the recordings, where one number holds for all of a data set, and which axis is up.
_RATES = {"Human3.6M": 50.0}
_UP = {"Human3.6M": 2, "MPI-INF-3DHP": 1}
_SHAPES = 16  # AMASS's betas
_SAME_SHAPE = 1e-4  # codes that differ less move no vertex by a hundredth of a millimetre


def write_amass(
    gt: PseudoGT,
    folder: str | os.PathLike[str],
    *,
    fps: float | None = None,
    shape: str = "same",
    leave_out: Collection[str] = (),
    body_models: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write world-space SMPL or SMPL-X fits as AMASS-style sequences; returns the paths.

    A file for each run of equally spaced frames: `<key>_poses.npz`, `1-14-1_poses.npz`; where frames are
    missing in between, one for each run, the first frame in its name. All have `trans` (T, 3) metres, z up,
    `betas` (16,), the last 6 zero, `gender`, `mocap_framerate`, and, beyond AMASS's keys, `frame` (T,).
    SMPL's have `poses` (T, 156) as AMASS's first release: root and 21 body joints, then SMPL-H's hands, flat;
    `surface_model_type` says `smpl`, for the body is SMPL's, not SMPL-H's. SMPL-X's have `poses` (T, 165)
    about the flat hand as AMASS's SMPL-X release, with `root_orient`, `pose_body`, `pose_jaw`, `pose_eye`,
    `pose_hand`, `mocap_frame_rate`, and the validity of hands and face.

    `fps`: frames a second of the recording whose frames the keys count; known for Human3.6M alone. `shape`:
    `same` refuses fits whose shape changes within a sequence; `mean` writes their mean, the pelvis where it
    was. `leave_out`: `expression`, and SMPL's `hand-joints`, which are refused otherwise.

    Raises ValueError for these, other models, camera-space fits, and data sets without sequences.
    """
    check_leave_out(leave_out)
    target = "AMASS's npz"
    require_model(gt, ("smpl", "smplx"), target)
    name = gt.catalogued.data_set
    if name not in _UP or gt.space != "world":
        raise ValueError(
            f"{gt.release}: AMASS holds sequences in the world, "
            + ("these fits were moved into cameras" if name in _UP else f"{name}'s have no frame numbers")
            + "; use --to parquet or humandata"
        )
    if shape not in ("same", "mean"):
        raise ValueError(f"shape must be 'same' or 'mean', got {shape!r}")
    rate = _RATES.get(name) if fps is None else fps
    if rate is None or not rate > 0:
        given = "not all of its recordings have one rate" if fps is None else f"got {fps}"
        raise ValueError(f"{gt.release}: frames a second are needed: {given}; give --fps (fps=)")
    gt = without_expression(gt, target, leave_out)
    if gt.model == "smpl":
        refuse_hand_joints(gt, target, leave_out)
    if not body_valid(gt).all():
        raise ValueError(f"{gt.release}: rows without a fitted body, which AMASS cannot mark; select others")
    runs = _runs(gt)
    count = Counter(label for label, _, _ in runs)
    paths = []
    for label, rows, step in runs:
        one = gt.rows(rows)
        stem = f"{label}-{one.keys[0][-1]}" if count[label] > 1 else label
        arrays = _sequence(one, rate / step, shape, body_models)
        paths.append(write_npz(Path(folder) / f"{stem}_poses.npz", arrays))
    return paths


def _runs(gt: PseudoGT) -> list[tuple[str, np.ndarray, int]]:
    """The sequence's name, its rows in order and the step between its frames, for each unbroken run."""
    keys = gt.view.column("key")
    once = np.sort(np.unique(KeyIndex(keys).first(keys)))  # of the cameras that see a fit the first
    keys = keys[once]
    runs = []
    for sequence in np.unique(keys[:, :-1], axis=0):
        mine = np.flatnonzero((keys[:, :-1] == sequence).all(axis=1))
        mine = mine[np.argsort(keys[mine, -1], kind="stable")]
        gaps = np.diff(keys[mine, -1])
        # Of one frame alone no step can be known, nor does it move: the recording's own rate.
        step = int(np.bincount(gaps).argmax()) if len(gaps) else 1
        label = "-".join(map(str, sequence.tolist()))
        runs += [(label, once[part], step) for part in np.split(mine, np.flatnonzero(gaps != step) + 1)]
    return runs


def _sequence(
    gt: PseudoGT, rate: float, shape: str, body_models: str | os.PathLike[str] | None
) -> dict[str, np.ndarray]:
    n, params = len(gt), gt.params
    root, trans, betas = _placed(gt, shape, body_models)
    gender = np.unique(gt.gender)
    if len(gender) > 1:
        raise ValueError(f"{gt.release}: a sequence of {' and '.join(gender)} bodies; AMASS holds one gender")
    arrays = {
        "trans": trans,
        "betas": np.concatenate([betas, np.zeros(_SHAPES - len(betas), np.float32)]),
        "gender": np.array(str(gender[0])),
        "mocap_framerate": np.array(float(rate)),
        "frame": gt.view.column("key")[:, -1],
        "surface_model_type": np.array(gt.model),
    }
    body = params["body_pose"][:, :21].reshape(n, 63)
    if gt.model == "smpl":
        hands = np.zeros((n, 90), np.float32)
        return arrays | {"poses": np.concatenate([root, body, hands], axis=1)}
    flat = flat_hand_poses(gt, body_models)
    hands = np.concatenate([flat["left"], flat["right"]], axis=1)
    jaw, eyes = params["jaw_pose"], np.zeros((n, 6), np.float32)
    arrays |= {f"{part}_valid": gt.valid[part] for part in gt.valid if part != "body"}
    return arrays | {
        "poses": np.concatenate([root, body, jaw, eyes, hands], axis=1),
        "root_orient": root,
        "pose_body": body,
        "pose_jaw": jaw,
        "pose_eye": eyes,
        "pose_hand": hands,
        "num_betas": np.array(_SHAPES),
        "mocap_frame_rate": np.array(float(rate)),
    }


def _placed(
    gt: PseudoGT, shape: str, body_models: str | os.PathLike[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root rotations and translations with z up, and the one shape."""
    root, trans, betas = gt.params["global_orient"], gt.params["transl"], gt.params["betas"]
    one, spread = betas[0], np.ptp(betas, axis=0).max()
    sure = spread <= _SAME_SHAPE
    if not sure:
        if shape == "same":
            raise ValueError(
                f"{gt.release}: the shape changes within a sequence, its codes by up to {spread:.2g}; AMASS "
                "holds one shape a file: write the mean with --shape mean (shape='mean')"
            )
        one = betas.mean(axis=0, dtype=np.float64).astype(np.float32)
    up = _UP[gt.catalogued.data_set]
    if sure and up == 2:
        return root, trans, one
    before = gt.rest_root(body_models)
    after = before if sure else _rest_root_of(gt, one, body_models)
    trans = trans + before - after
    if up == 1:  # a quarter turn about x brings y to z
        R = np.tile(rotation_about_axis(np.pi / 2, 0), (len(gt), 1, 1))
        root, trans = rigid_parameters(root, trans, after, R, np.zeros((len(gt), 3)))
    return root, trans.astype(np.float32), one


def _rest_root_of(gt: PseudoGT, betas: np.ndarray, body_models: str | os.PathLike[str] | None) -> np.ndarray:
    same = gt.view.overlaid({"param/betas": np.tile(betas, (len(gt), 1))})
    return PseudoGT(same, gt.release, space=gt.space, companions=gt.companions).rest_root(body_models)
