"""Which row of the annotations belongs to which of the truth, and where bodies are aligned."""

from __future__ import annotations

import numpy as np

from neuralannot.key_index import KeyIndex
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.samples import Samples

#: A regressor's joint that bodies are aligned at, if it has it; else the skeleton's own root is.
ROOTS = {
    "smpl": ("pelvis",),
    "smplx": ("pelvis",),
    "mano": ("wrist", "right_wrist", "left_wrist"),
    "flame": ("root_flame",),
}
#: Metres up to which the area under the curve of a model's errors is taken: hands as FreiHAND evaluates,
#: bodies as far as MPI-INF-3DHP does. Faces have no such custom.
AUC_LIMIT = {"smpl": 0.15, "smplx": 0.15, "mano": 0.05}
#: Joints that bones meet in, the first of each model's.
SKELETON_SIZE = {"smpl": 24, "smplx": 55, "mano": 16, "flame": 5}


def check_models(gt: PseudoGT, truth: PseudoGT) -> None:
    """Raise ValueError unless both are of one body model, or one of SMPL and the other of SMPL-X."""
    if gt.model != truth.model and {gt.model, truth.model} != {"smpl", "smplx"}:
        raise ValueError(
            f"the annotations are {gt.model}'s, the truth is {truth.model}'s; compare one model, or SMPL and "
            "SMPL-X"
        )


def match_files(gt: PseudoGT, truth: PseudoGT, space: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, 2) rows of both, in the truth's order; the keys that are the truth's or the annotations' alone.

    By annotation id where both have ids, else by frame key; hands by side too. Raises ValueError for models
    that are not compared (`check_models`), where there is nothing to match by, and in camera space where a
    key stands in several rows.
    """
    check_models(gt, truth)
    by_id = all(has_ids(g) for g in (gt, truth))
    if not by_id and not all("key" in g.view for g in (gt, truth)):
        raise ValueError(
            f"{gt.release} and {truth.release} have neither annotation ids nor frame keys in common; "
            "load both joined with annotations"
        )
    mine, other = (with_side(g.ids[:, None] if by_id else g.view.column("key"), g.side) for g in (gt, truth))
    if mine.shape[1] != other.shape[1]:
        raise ValueError(
            f"{gt.release} and {truth.release} have keys of {mine.shape[1]} and {other.shape[1]}"
        )
    if space == "camera" and (has_repeats(mine) or has_repeats(other)):
        raise ValueError(
            f"{gt.release}: a key stands in several rows, each in its own camera's space; load both files "
            "joined with annotations, so that rows have ids"
        )
    return pair_keys(mine, other)


def pair_keys(mine: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, 2) rows of keys (N, K) that both have, in the other's order; the keys of each that only it has.

    In that order: the other's alone, mine alone. Of rows with one key the first counts.
    """
    first, last = (np.sort(np.unique(keys, axis=0, return_index=True)[1]) for keys in (mine, other))
    found = KeyIndex(mine).first(other[last])
    rows = np.stack([found, last], axis=1)[found >= 0]
    extra = first[KeyIndex(other).first(mine[first]) < 0]
    return rows, other[last[found < 0]], mine[extra]


def has_repeats(keys: np.ndarray) -> bool:
    """Whether any of the keys (N, K) stands in several rows."""
    return len(np.unique(keys, axis=0)) < len(keys)


def match_samples(gt: PseudoGT, samples: Samples) -> np.ndarray:
    """(S,) the row of the annotations for each sample, -1 where there is none; as `match_files` matches."""
    hands = samples.side if gt.side is not None else None
    if gt.side is not None and hands is None:
        raise ValueError(f"{gt.release} holds hands, the samples of {samples.data_set} have no sides")
    by_id = has_ids(gt)
    own = with_side(gt.ids[:, None] if by_id else gt.view.column("key"), gt.side)
    wanted = with_side(samples.ids[:, None] if by_id else samples.keys, hands)
    if own.shape[1] != wanted.shape[1]:
        raise ValueError(
            f"{gt.release} is keyed by ({', '.join(gt.catalogued.key_names)}), the samples of "
            f"{samples.data_set} have keys of {samples.keys.shape[1]} numbers; load with annotations="
        )
    return KeyIndex(own).first(wanted)


def has_ids(gt: PseudoGT) -> bool:
    """Whether rows have annotation ids."""
    return "id" in gt.view or gt.joined


def with_side(keys: np.ndarray, side: np.ndarray | None) -> np.ndarray:
    """(N, K) int64 keys; with a side (N, K + 1), 0 right and 1 left."""
    keys = np.asarray(keys, np.int64)
    return keys if side is None else np.column_stack([keys, np.asarray(side) == "left"])


def root_of(model: str, names: tuple[str, ...]) -> int | None:
    """The place of the joint among `names` that a model's bodies are aligned at; None where it is not one."""
    return next((names.index(name) for name in ROOTS[model] if name in names), None)
