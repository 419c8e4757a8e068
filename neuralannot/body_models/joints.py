"""Joint regressors: K joints as weighted sums of a posed mesh's vertices."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.joint_sets import JOINT_SETS
from neuralannot.safe_pickle import load_npy

if TYPE_CHECKING:
    from neuralannot.body_models.model import BodyModel

_OPEN_FILE = Path(__file__).parent / "open" / "regressors.npz"

# InterHand2.6M's fingertips on official MANO (its authors' loaders); smplx's own tips are 744, 320, 443, 554,
# 671. On the open body smplx's are the tips.
_INTERHAND_TIPS = {"thumb": 745, "index": 317, "middle": 445, "ring": 556, "pinky": 673}
_NAMES = ("human36m-17", "coco-17", "mpi-inf-3dhp-17", "interhand-21")


@dataclass(frozen=True, eq=False)
class JointRegressor:
    """`weights`: (K, V) float32, joints = weights @ vertices; `names`: K joint names; `body`: the topology
    that it is for, `official` or `open`. Equal where all three are. Raises ValueError where shapes do not fit
    or weights are not finite.
    """

    weights: np.ndarray
    names: tuple[str, ...]
    body: str = "official"

    def __post_init__(self) -> None:
        weights = np.array(self.weights, np.float32)  # a copy: the digest is of what it holds now
        weights.flags.writeable = False
        if weights.ndim != 2 or len(weights) != len(self.names):
            raise ValueError(
                f"a regressor of {len(self.names)} joints must be ({len(self.names)}, V), got {weights.shape}"
            )
        if not np.isfinite(weights).all():
            raise ValueError("a regressor's weights must be finite")
        if self.body not in ("official", "open"):
            raise ValueError(f"body must be 'official' or 'open', got {self.body!r}")
        object.__setattr__(self, "weights", weights)

    @functools.cached_property
    def digest(self) -> str:
        """What tells these weights from others."""
        content = f"{self.weights.shape}{self.names}{self.body}".encode()
        return hashlib.blake2b(content + self.weights.tobytes(), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JointRegressor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def joint_regressor(regressor: Any, model: BodyModel) -> JointRegressor:
    """The regressor asked for, checked against the model that it will be applied to.

    `regressor`: a `JointRegressor`; a (K, V) array; an .npy file of one; K vertex numbers, (K,) integers, for
    those vertices as joints; or a name. Names (`human36m-17`, `coco-17`, `mpi-inf-3dhp-17`, `interhand-21`)
    mean, on the open body, the regressors that ship with it; on official models only `interhand-21` is there,
    made from MANO's own: the others are the data sets' files.

    Raises ValueError for the wrong number of vertices, vertices that are not there, and for arrays, files and
    official regressors on the open body, whose vertices are others.
    """
    if isinstance(regressor, JointRegressor):
        found = regressor
    elif isinstance(regressor, str) and regressor in (*_NAMES, *JOINT_SETS):
        found = _named(regressor, model)
    elif isinstance(regressor, (str, os.PathLike)):
        found = _from_file(*_stamped(Path(regressor)))
    else:
        weights = np.asarray(regressor)
        if weights.ndim == 1 and weights.dtype.kind in "iu":
            weights = _of_vertices(weights, model.num_vertices)
        if weights.ndim != 2:
            raise ValueError(f"a regressor must be (K, {model.num_vertices}), got {weights.shape}")
        found = JointRegressor(weights, _numbered(len(weights)))
    if found.weights.shape[1] != model.num_vertices:
        raise ValueError(
            f"a regressor for {model.model} must be (K, {model.num_vertices}), got {found.weights.shape}"
        )
    if model.is_open != (found.body == "open"):
        if model.is_open:
            raise ValueError(
                "regressors of the official topology are garbage on the open body, whose vertices are other "
                f"ones; use one of {', '.join(_NAMES)}, or give body_models= the folder of official files "
                "(one made for the open body: JointRegressor(weights, names, body='open'))"
            )
        raise ValueError(f"a regressor of the open body is garbage on {model.source}, an official model")
    return found


def _of_vertices(vertices: np.ndarray, count: int) -> np.ndarray:
    """(K,) vertex numbers -> (K, count) weights that pick them."""
    outside = vertices[(vertices < 0) | (vertices >= count)]
    if len(outside):
        raise ValueError(f"vertex {outside[0]} is not there; vertices are 0 to {count - 1}")
    weights = np.zeros((len(vertices), count), np.float32)
    weights[np.arange(len(vertices)), vertices] = 1
    return weights


def _stamped(path: Path) -> tuple[Path, int, int]:
    """The file with its time and size: one that was replaced is read again."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such regressor file; nor is it one of the names {', '.join(_NAMES)}"
        )
    stat = path.stat()
    return path.resolve(), stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=8)
def _from_file(path: Path, mtime_ns: int, size: int) -> JointRegressor:
    weights = np.asarray(load_npy(path))
    if weights.ndim != 2:
        raise ValueError(f"{path}: a regressor must be (K, V), got {weights.shape}")
    return JointRegressor(weights, _numbered(len(weights)))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"joint_{k}" for k in range(count))


def _named(name: str, model: BodyModel) -> JointRegressor:
    if name == "interhand-21":
        name = f"interhand-21-{model.side or 'right'}"
    if model.is_open:
        return _open_regressor(name, model.model)
    if name.startswith("interhand-21") and model.model == "mano":
        return interhand_regressor(model)
    raise ValueError(
        f"no {name} regressor ships for official {model.model}; pass the data set's file "
        f"((K, {model.num_vertices}) .npy) as regressor="
    )


@functools.lru_cache(maxsize=8)
def _open_regressor(name: str, model: str) -> JointRegressor:
    with np.load(_OPEN_FILE, allow_pickle=False) as archive:
        key = f"{name}/{model}"
        if key not in archive:
            there = [k.split("/")[0] for k in archive.files if k.endswith(f"/{model}")]
            raise ValueError(
                f"no {name} regressor for the open {model}; there are {', '.join(there) or 'none'}"
            )
        weights = archive[key]
    return JointRegressor(weights, JOINT_SETS[name].joints, body="open")


def interhand_regressor(model: BodyModel) -> JointRegressor:
    """InterHand2.6M's 21 joints of a MANO hand, as its authors take them from the posed mesh.

    The wrist and finger joints by MANO's own regressor, tips as the vertices 745, 317, 445, 556, 673 (on the
    open body: the shipped regressor). Raises ValueError for a model that is not MANO.
    """
    if model.model != "mano":
        raise ValueError(f"interhand-21 is a hand's; got {model.model}")
    if model.is_open:
        return _open_regressor(f"interhand-21-{model.side}", "mano")
    names = JOINT_SETS[f"interhand-21-{model.side}"].joints
    own = model.J_regressor.cpu().numpy()
    weights = np.zeros((len(names), model.num_vertices), np.float32)
    for row, name in enumerate(names):
        if name in model.joint_names[: len(own)]:
            weights[row] = own[model.joint_names.index(name)]
        else:
            weights[row, _INTERHAND_TIPS[name.split("_")[1]]] = 1
    return JointRegressor(weights, names)
