"""What a format cannot hold: refused, or left out where the caller says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from neuralannot.pseudo_gt import PseudoGT

#: What may be left out, and the parameters that it means.
LEAVABLE: Mapping[str, tuple[str, ...]] = {"expression": ("expression",), "hand-joints": ("body_pose",)}
_SMPL_HANDS = slice(21, 23)  # of body_pose: SMPL's last two joints, which no other model has


def check_leave_out(leave_out: Collection[str]) -> None:
    """Raise ValueError for a name that is not of `LEAVABLE`."""
    for name in leave_out:
        if name not in LEAVABLE:
            raise ValueError(f"leave_out takes {', '.join(LEAVABLE)}, got {name!r}")


def without_expression(gt: PseudoGT, target: str, leave_out: Collection[str]) -> PseudoGT:
    """SMPL-X rows without the expression, which `target` has no place for; other models as they are.

    Zeroed rather than passed over: the pelvis at rest depends on it. Raises ValueError where rows have one
    and `leave_out` does not name it.
    """
    if "expression" not in gt.params:
        return gt
    has = (gt.params["expression"] != 0).any(axis=1)
    if has.any() and "expression" in leave_out:
        view = gt.view.overlaid({"param/expression": np.zeros_like(gt.params["expression"])})
        return PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
    if has.any():
        raise ValueError(
            f"{gt.release}: {int(has.sum())} of {len(gt)} rows have an expression, which {target} has no "
            "place for; leave it out with --leave-out expression (leave_out=['expression']), or use "
            "--to humandata, coco, webdataset or parquet"
        )
    return gt


def refuse_hand_joints(gt: PseudoGT, target: str, leave_out: Collection[str]) -> None:
    """Raise ValueError where SMPL's own hand joints are turned, which `target` has no place for."""
    if "hand-joints" in leave_out:
        return
    turned = np.asarray(gt.params["body_pose"])[:, _SMPL_HANDS].any(axis=(1, 2))
    if turned.any():
        raise ValueError(
            f"{gt.release}: {int(turned.sum())} of {len(gt)} rows turn SMPL's hand joints, which {target} "
            "has no place for; leave them out with --leave-out hand-joints (leave_out=['hand-joints']), or "
            "convert to SMPL-X first"
        )
