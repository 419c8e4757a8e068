"""What SMPL-X's hands and head are as MANO's and FLAME's, and what stands behind a hand or a face alone.

The open hand and face are parts of the open SMPL-X body, vertex by vertex; their shape codes span what its
codes do to those vertices (to some hundredths of a millimetre), and expressions are the same. So a SMPL-X
body's hands and face have MANO and FLAME parameters. Official files do not say which vertices correspond.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.body_models import BodyModel
from neuralannot.body_models.model import OPEN_FOLDER
from neuralannot.synthetic.actors import Actor, model_of, posed, rest_root

_FILE = Path(OPEN_FOLDER) / "correspondence.npz"
_WRISTS = {"left": 20, "right": 21}
_HEAD = 15


@dataclass(frozen=True, eq=False)
class Kin:
    """One part and its place in SMPL-X: `vertices` (V,) SMPL-X's numbers of the part's vertices; `offset`
    (3,) metres from the part's rest place to SMPL-X's; `codes` (10, 10) that take SMPL-X's betas to the
    part's; `rigid` (V,) bool, those that one joint alone moves, and its children, whatever the rest does;
    `beyond` (F, 3) SMPL-X's other faces.
    """

    vertices: np.ndarray
    offset: np.ndarray
    codes: np.ndarray
    rigid: np.ndarray
    beyond: np.ndarray


@functools.lru_cache(maxsize=4)
def kin_of(model: str, side: str | None) -> Kin:
    """How the open MANO (of a side) or FLAME lies in the open SMPL-X."""
    whole, part = model_of("smplx", None), model_of(model, None, side)
    name = "smplx_flame" if model == "flame" else f"smplx_mano_{side}"
    with np.load(_FILE, allow_pickle=False) as archive:
        vertices = archive[name]
    offset = (whole.v_template.numpy()[vertices] - part.v_template.numpy()).mean(axis=0)
    return Kin(
        vertices,
        offset.astype(np.float64),
        _code_map(whole, part, vertices),
        _moved_alike(whole, part, vertices),
        _faces_beyond(whole, vertices),
    )


def _code_map(whole: BodyModel, part: BodyModel, vertices: np.ndarray) -> np.ndarray:
    own = part.shapedirs.numpy()[:, :, :10].reshape(-1, 10).astype(np.float64)
    of_whole = whole.shapedirs.numpy()[vertices, :, :10].reshape(-1, 10).astype(np.float64)
    # Where the part stands is its translation's affair.
    shifts = np.tile(np.eye(3), (len(vertices), 1))
    solution = np.linalg.lstsq(np.concatenate([own, shifts], axis=1), of_whole, rcond=None)[0]
    betas: np.ndarray = solution[:10]
    return betas


def _moved_alike(whole: BodyModel, part: BodyModel, vertices: np.ndarray) -> np.ndarray:
    """Whether both skin a vertex alike: SMPL-X's wrist and neck blend into the arm and the trunk."""
    names = [n for n in part.joint_names[: part.lbs_weights.shape[1]] if n in whole.joint_names]
    weights = whole.lbs_weights.numpy()[vertices]
    inside = [whole.joint_names.index(name) for name in names]
    if part.model == "flame":
        inside = [
            _HEAD,
            *(whole.joint_names.index(n) for n in ("jaw", "left_eye_smplhf", "right_eye_smplhf")),
        ]
    within: np.ndarray = weights[:, inside].sum(axis=1) > 0.99
    return within


def _faces_beyond(whole: BodyModel, vertices: np.ndarray) -> np.ndarray:
    within = np.zeros(whole.num_vertices, bool)
    within[vertices] = True
    outside: np.ndarray = whole.faces[~within[whole.faces].all(axis=1)]
    return outside


def hand_of(body: Actor, side: str) -> Actor:
    """The MANO hand that a posed SMPL-X body has, in the body's space."""
    return _part_of(body, "mano", side, _WRISTS[side], {"hand_pose": body.params[f"{side}_hand_pose"]})


def face_of(body: Actor) -> Actor:
    """The FLAME head that a posed SMPL-X body has, in the body's space. Its neck is straight."""
    return _part_of(
        body,
        "flame",
        None,
        _HEAD,
        {"jaw_pose": body.params["jaw_pose"], "expression": body.params["expression"]},
    )


def _part_of(body: Actor, model: str, side: str | None, joint: int, own: dict[str, np.ndarray]) -> Actor:
    kin = kin_of(model, side)
    params = {
        "global_orient": turned_by(body, joint).as_rotvec(),
        "betas": kin.codes @ body.params["betas"],
        "transl": np.zeros(3),
        **own,
    }
    there = posed(model, params, folder=None, side=side)
    shift = (body.vertices[kin.vertices[kin.rigid]] - there.vertices[kin.rigid]).mean(axis=0)
    return posed(model, {**params, "transl": shift}, folder=None, side=side)


def turned_by(body: Actor, joint: int) -> Rotation:
    """The rotation of a joint of SMPL-X's body in the body's space."""
    parents = body.body.parents.tolist()
    rotation = Rotation.identity()
    while joint > 0:
        rotation = Rotation.from_rotvec(body.params["body_pose"][joint - 1]) * rotation
        joint = parents[joint]
    return Rotation.from_rotvec(body.params["global_orient"]) * rotation


def rest_of_body(part: Actor, *, arms_down: bool) -> tuple[np.ndarray, np.ndarray]:
    """The body that a hand or a face belongs to, without it, as if it were stiff: it stands where the part
    does, turned as it is. `arms_down`: whether arms hang. Returns SMPL-X's vertices (10475, 3) metres in the
    part's space, and faces (F, 3).
    """
    kin = kin_of(part.model, part.side)
    betas = np.linalg.lstsq(kin.codes, part.params["betas"].astype(np.float64), rcond=1e-2)[0]
    pose = np.zeros((21, 3))
    if arms_down:
        pose[15, 2], pose[16, 2] = -1.15, 1.15  # the shoulders
    body = posed("smplx", {"betas": betas.clip(-3, 3), "body_pose": pose}, folder=None)
    still = {n: np.zeros_like(v) for n, v in part.params.items() if n != "betas"}
    at_rest = posed(part.model, {**still, "betas": part.params["betas"]}, folder=None, side=part.side)
    offset = (body.vertices[kin.vertices] - at_rest.vertices)[kin.rigid].mean(axis=0)
    R = Rotation.from_rotvec(part.params["global_orient"].astype(np.float64))
    root = rest_root(part)
    vertices = R.apply(body.vertices - offset - root) + root + part.params["transl"]
    vertices[kin.vertices] = part.vertices  # so that the seam is closed
    return vertices.astype(np.float32), kin.beyond
