"""`Pose2MeshDataset`: the samples of Pose2Mesh's data set classes: a 2D pose in, mesh and joints out.

Conventions of github.com/hongsukchoi/Pose2Mesh_RELEASE (Choi et al., ECCV 2020).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralannot.bodies import model_on
from neuralannot.body_models import JointRegressor, joint_regressor
from neuralannot.boxes import apply_affine, crop_affine
from neuralannot.formats.pictured import require_model
from neuralannot.joint_sets import JOINT_SETS, mirror_index
from neuralannot.joints_gt import world_camera
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.regressors.crop import turned
from neuralannot.regressors.own_joints import own_joints
from neuralannot.regressors.part_joints import HAND
from neuralannot.regressors.pose2pose import FAR_SHAPE
from neuralannot.regressors.pose_noise import NormalErrors, coco_errors
from neuralannot.regressors.rows import RegressorRows

__all__ = ["INPUT_SHAPE", "Pose2MeshDataset"]

#: Height and width of the crop that a 2D pose is brought to before it is normalised.
INPUT_SHAPE = (384, 288)
_FIT_PIXELS = 3.0  # a fit further than this from COCO's keypoints, in a crop of 64 px, is not learnt from
_FIT_METRES = 0.025  # the same of the MoCap data sets' 3D joints
_COCO, _HUMAN36M = "coco-17", "human36m-17"
_MANO_TIPS = {"thumb": 745, "index": 317, "middle": 444, "ring": 556, "pinky": 673}


class Pose2MeshDataset(RegressorRows):
    """SMPL or MANO annotations as Pose2Mesh, and the PoseNet before it, take them.

    `input_joints`: `coco` (19: COCO's 17, pelvis, neck) or `human36` (17) of bodies, `mano` (21) of hands,
    which left ones are mirrored for. `network`: `pose2mesh_net` or `posenet`. `noise`: made-up errors on the
    2D pose: `True` for `coco`; for `human36` the `error_distribution` of Pose2Mesh's
    data/Human36M/noise_stats.py. `detections`: (N, J, 2) px of the image, 2D poses in place of those of the
    fits. `flip`, `rotate_factor`: Pose2Mesh's augmentation, which is posenet's alone: there is no mirrored
    mesh. `human36`, `coco`: the regressors of those joints, names on the open body, the data set's (K, 6890)
    .npy files on official models. `body_models`, `joints`, `seed`: as of `Pose2PoseDataset`; without `joints`
    no fit is held against the data set's.

    Samples of pose2mesh_net are `inputs, targets, meta`, of posenet `pose2d, joints, valid`;
    docs/regressors.md lists them. Raises ValueError for another model, joints that are not the model's, a
    detection that is missing, and options that do not go together.
    """

    def __init__(
        self,
        gt: PseudoGT,
        *,
        input_joints: str | None = None,
        network: str = "pose2mesh_net",
        noise: bool | Sequence[Mapping[str, Any]] = False,
        detections: np.ndarray | None = None,
        flip: bool = False,
        rotate_factor: float = 0.0,
        body_models: str | os.PathLike[str] | None = None,
        human36: Any = _HUMAN36M,
        coco: Any = _COCO,
        joints: bool = True,
        seed: int | None = None,
        cache: bool = True,
    ) -> None:
        require_model(gt, ("smpl", "mano"), "Pose2Mesh")
        gt.require_camera()
        self.network, self.input_joints = network, input_joints or ("mano" if gt.model == "mano" else "coco")
        self._flip, self._rotate = flip, rotate_factor
        self._check(gt)
        self._noise = _noise_of(noise, self.input_joints)
        beside: dict[str, np.ndarray] = {}
        if detections is not None:
            beside["detection"] = _checked_detections(detections, len(gt), self._count)
        self._own: str | None = None
        if joints and gt.model == "smpl":
            beside |= self._columns_of_own(gt)
        super().__init__(
            _of_mean_shape_where_far(gt),
            fields=("gender", "params", "valid", "camera", *(("side",) if gt.model == "mano" else ())),
            body_models=body_models,
            beside=beside,
            seed=seed,
            cache=cache,
        )
        self._human36, self._coco = human36, coco
        if len(gt):
            self._joints_of(
                self._model_of("neutral", "right" if gt.model == "mano" else None)
            )  # raises early

    @property
    def _count(self) -> int:
        return {"coco": 19, "human36": 17, "mano": 21}[self.input_joints]

    def _check(self, gt: PseudoGT) -> None:
        allowed = ("mano",) if gt.model == "mano" else ("coco", "human36")
        if self.input_joints not in allowed:
            raise ValueError(
                f"input_joints of {gt.model} must be {' or '.join(map(repr, allowed))}, got "
                f"{self.input_joints!r}"
            )
        if self.network not in ("pose2mesh_net", "posenet"):
            raise ValueError(f"network must be 'pose2mesh_net' or 'posenet', got {self.network!r}")
        changed = self._flip or self._rotate != 0
        if changed and (self.network == "pose2mesh_net" or self.input_joints == "mano"):
            raise ValueError(
                "flip and rotate_factor change the 2D pose and the lifted joints but not the mesh: they are "
                "for network='posenet' of bodies"
            )

    def _columns_of_own(self, gt: PseudoGT) -> dict[str, np.ndarray]:
        if gt.joint_set_world == _HUMAN36M:
            names = JOINT_SETS[_HUMAN36M].joints
            self._own = _HUMAN36M
        elif gt.joint_set_world is None and gt.joints_2d is not None:
            names, self._own = JOINT_SETS[_COCO].joints, _COCO
        else:
            return {}
        own = own_joints(gt, names, "pelvis")
        columns = {"own_image": own.image, "own_valid": own.valid}
        if own.relative is None:
            return columns
        world = np.nan_to_num(gt.joints_world).astype(np.float32)
        return {**columns, "own_camera": world_camera(gt).world_to_camera(world)}

    def _model_of(self, gender: str, side: str | None) -> Any:
        return model_on(self._model, self._body_models, gender, side)

    def _joints_of(self, model: Any) -> tuple[JointRegressor, JointRegressor] | None:
        """The regressors of the h36m and the COCO joints; None for hands."""
        if model.model == "mano":
            return None
        found = []
        for option, regressor, joint_set in (
            ("human36", self._human36, _HUMAN36M),
            ("coco", self._coco, _COCO),
        ):
            try:
                one = joint_regressor(regressor, model)
            except ValueError as error:
                raise ValueError(f"{option}=: {error}") from None
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{option}=: {error}") from None
            _require_joints(option, one, joint_set)
            found.append(one)
        return found[0], found[1]

    def __getitem__(self, index: int) -> Any:
        sample = self._sample(index)
        rng = self._generator(index)
        posed = self._hand(sample) if self._model == "mano" else self._body(sample)
        seen = bool(np.isfinite(posed["image"]).all())
        if not seen:  # behind the camera: nothing to learn from
            posed = {
                name: np.zeros_like(value) if isinstance(value, np.ndarray) else False
                for name, value in posed.items()
            }
        turn, flip = self._drawn(rng)
        pose2d = posed["image"].astype(np.float32)
        if seen:
            pose2d = self._pose2d(posed["image"], turn, flip=flip, rng=rng)
        if self.network == "posenet":
            lifted = turned(posed["lifted"], turn)
            if flip:
                lifted = lifted[_mirror(self.input_joints)] * np.array([-1, 1, 1], np.float32)
            return pose2d, lifted.astype(np.float32), _flags(len(lifted), posed["lifted_valid"])
        targets = {
            "mesh": posed["mesh"],
            "lift_pose3d": posed["lifted"],
            "reg_pose3d": posed["regressed"],
        }
        meta = {
            "mesh_valid": _flags(len(posed["mesh"]), posed["mesh_valid"]),
            "lift_pose3d_valid": _flags(len(posed["lifted"]), posed["lifted_valid"]),
            "reg_pose3d_valid": _flags(len(posed["regressed"]), posed["regressed_valid"]),
        }
        return {"pose2d": pose2d}, targets, meta

    # --- bodies and hands in the camera's space

    def _body(self, sample: dict[str, Any]) -> dict[str, Any]:
        model = self._model_of(sample["gender"], None)
        mesh = self._posed(sample["params"], sample["gender"]).vertices[0].numpy()
        regressors = self._joints_of(model)
        assert regressors is not None
        human36, coco = (regressor.weights @ mesh for regressor in regressors)
        coco = _with_pelvis_and_neck(coco)
        fitted = bool(sample["valid"]["body"])
        own, kept = human36, True
        if self._own == _HUMAN36M and sample["own_valid"].all():
            own = sample["own_camera"]
            kept = _distance_3d(human36, own) <= _FIT_METRES
        image = _project(coco if self.input_joints == "coco" else own, sample)
        if self._own == _COCO:
            kept = not _distance_2d(image, _project(coco[:17], sample), sample) > _FIT_PIXELS
        if "detection" in sample:
            image = sample["detection"]
        joints = coco - coco[17] if self.input_joints == "coco" else own - own[0]
        measured = own is not human36
        # Human3.6M's own joints stand whatever the fit is worth.
        return {
            "image": image,
            "mesh": _kept(mesh - own[0], fitted),
            "lifted": _kept(joints * 1000, fitted or (measured and self.input_joints == "human36")),
            "regressed": _kept((own - own[0]) * 1000, fitted or measured),
            "mesh_valid": fitted and kept,
            "lifted_valid": (fitted and kept) or (measured and self.input_joints == "human36"),
            "regressed_valid": (fitted and kept) or measured,
        }

    def _hand(self, sample: dict[str, Any]) -> dict[str, Any]:
        side = sample["side"]
        model = self._model_of(sample["gender"], side)
        out = self._posed(sample["params"], sample["gender"], side)
        mesh, skeleton = out.vertices[0].numpy(), out.joints[0].numpy()
        joints = _hand_joints(model, mesh, skeleton)
        image = sample.get("detection", _project(joints, sample))
        mesh, joints = mesh - joints[0], (joints - joints[0]) * 1000
        if side == "left":
            flip = np.array([-1, 1, 1], np.float32)
            mesh, joints, image = mesh * flip, joints * flip, image * flip[:2]
        fitted = bool(sample["valid"][f"{side}_hand"])
        return {
            "image": image,
            "mesh": _kept(mesh, fitted),
            "lifted": _kept(joints, fitted),
            "regressed": _kept(joints, fitted),
            "mesh_valid": fitted,
            "lifted_valid": fitted,
            "regressed_valid": fitted,
        }

    # --- the 2D pose

    def _drawn(self, rng: np.random.Generator) -> tuple[float, bool]:
        """Degrees and whether mirrored, as Pose2Mesh draws them."""
        flip = self._flip and bool(rng.random() <= 0.5)
        limit = 2 * self._rotate
        turn = float(np.clip(rng.normal() * self._rotate, -limit, limit))
        return (0.0 if rng.random() <= 0.5 else turn), flip

    def _pose2d(self, image: np.ndarray, turn: float, *, flip: bool, rng: np.random.Generator) -> np.ndarray:
        """(J, 2) float32 of mean 0 and deviation 1 in x and in y."""
        height, width = INPUT_SHAPE
        box = _tight_box(image, width / height)
        affine = crop_affine(box, (width, height), rotation=np.deg2rad(turn))
        points = apply_affine(affine, image)
        if flip:
            points[:, 0] = width - 1 - points[:, 0]
            points = points[_mirror(self.input_joints)]
        if isinstance(self._noise, NormalErrors):
            points = self._noise(points, INPUT_SHAPE, rng)
        elif self._noise:
            points[:17] = coco_errors(points[:17], height * width, rng)
        spread = points.std(axis=0)
        found: np.ndarray = ((points - points.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(
            np.float32
        )
        return found


def _of_mean_shape_where_far(gt: PseudoGT) -> PseudoGT:
    """The rows with the mean shape where their own is far out: Pose2Mesh poses those so."""
    far = (np.abs(gt.params["betas"]) > FAR_SHAPE).any(axis=1)
    if not far.any():
        return gt
    codes = np.where(far[:, None], np.float32(0), gt.params["betas"])
    view = gt.view.overlaid({"param/betas": codes})
    return PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)


def _noise_of(noise: bool | Sequence[Mapping[str, Any]], input_joints: str) -> bool | NormalErrors:
    if noise is False:
        return False
    if input_joints == "human36":
        if noise is True:
            raise ValueError(
                "noise of the joints 'human36' is measured: pass noise=error_distribution, of Pose2Mesh's "
                "data/Human36M/noise_stats.py"
            )
        return NormalErrors.of(noise)
    if input_joints == "mano":
        raise ValueError("there are no made-up errors of hands: noise must be False; give detections=")
    if noise is not True:
        raise ValueError("noise of the joints 'coco' must be True or False, which kind there is is known")
    return True


def _checked_detections(detections: np.ndarray, rows: int, joints: int) -> np.ndarray:
    points = np.asarray(detections, np.float32)
    if points.ndim != 3 or points.shape[:2] != (rows, joints) or points.shape[2] not in (2, 3):
        raise ValueError(f"detections must be ({rows}, {joints}, 2) px, got {points.shape}")
    bad = ~np.isfinite(points[..., :2]).all(axis=(1, 2))
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {rows} detections are not finite, row {int(np.flatnonzero(bad)[0])} first; "
            "leave those rows out: gt.rows(...)"
        )
    return np.ascontiguousarray(points[..., :2])


def _require_joints(option: str, regressor: JointRegressor, joint_set: str) -> None:
    """Raise ValueError for joints of another set, as far as a regressor says which its joints are."""
    wanted, got = JOINT_SETS[joint_set].joints, regressor.names
    if len(got) != len(wanted) or (got != wanted and set(got) & set(wanted)):
        raise ValueError(
            f"{option}= must give the {len(wanted)} joints of {joint_set}, in its order; got {len(got)}: "
            f"{', '.join(got[:4])}, ..."
        )


def _with_pelvis_and_neck(coco: np.ndarray) -> np.ndarray:
    """COCO's 17 and the middles of its hips and shoulders."""
    return np.concatenate([coco, coco[11:13].mean(axis=0)[None], coco[5:7].mean(axis=0)[None]])


def _hand_joints(model: Any, mesh: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    """(21, 3): the skeleton's joints and the tips, which manopth takes for vertices."""
    names = [name.removeprefix("right_").removeprefix("left_") for name in model.joint_names]
    places = dict(zip(names, skeleton, strict=True))
    if model.is_open:
        regressor = joint_regressor("interhand-21", model)
        tips = dict(zip(regressor.names, regressor.weights @ mesh, strict=True))
        places |= {finger: tips[f"{model.side}_{finger}"] for finger in _MANO_TIPS}
    else:
        places |= {finger: mesh[vertex] for finger, vertex in _MANO_TIPS.items()}
    return np.stack([places[name] for name in HAND.joints])


def _project(points: np.ndarray, sample: dict[str, Any]) -> np.ndarray:
    """(J, 3) metres in the camera's space -> (J, 2) px, NaN behind the camera."""
    depth = np.where(points[:, 2:] > 0, points[:, 2:], np.nan)
    found: np.ndarray = points[:, :2] / depth * sample["focal"] + sample["princpt"]
    return found


def _tight_box(points: np.ndarray, aspect: float) -> np.ndarray:
    """Pose2Mesh's box of a pose: the joints' own, a pixel less in width and height, brought to an aspect."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low - 1
    centre = low + extent / 2
    extent = np.maximum(extent, 1e-6)
    wide, tall = max(extent[0], extent[1] * aspect), max(extent[1], extent[0] / aspect)
    return np.array([centre[0] - wide / 2, centre[1] - tall / 2, wide, tall])


def _distance_2d(image: np.ndarray, coco: np.ndarray, sample: dict[str, Any]) -> float:
    """Pixels between the fit's COCO joints and the annotated ones in a crop of 64 px; NaN for none."""
    seen = sample["own_valid"]
    if not seen.any():
        return float("nan")
    width = _tight_box(image, 1.0)[2]
    return float(np.linalg.norm(coco[seen] - sample["own_image"][seen], axis=1).mean() * 64 / width)


def _distance_3d(fit: np.ndarray, own: np.ndarray) -> float:
    """Metres between 17 joints whose means are brought together."""
    return float(np.linalg.norm((fit - fit.mean(axis=0)) - (own - own.mean(axis=0)), axis=1).mean())


def _mirror(input_joints: str) -> np.ndarray:
    if input_joints == "human36":
        return mirror_index(_HUMAN36M)
    return np.concatenate([mirror_index(_COCO), [17, 18]])


def _kept(points: np.ndarray, there: bool) -> np.ndarray:
    return np.asarray(points if there else np.zeros_like(points), np.float32)


def _flags(count: int, valid: bool) -> np.ndarray:
    return np.full((count, 1), valid, np.float32)
