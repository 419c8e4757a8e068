"""Moving bodies by their parameters alone: world to camera, in-plane rotation of a crop, mirroring.

A model forwarded from the transformed parameters gives the transformed mesh, to float32's precision; the
mirrored one as far as the model itself is symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuralannot.cameras import Camera

__all__ = ["camera_space_columns", "mirror_parameters", "rigid_parameters", "rotation_about_axis"]

_CHUNK = 1 << 16  # rows at a time: the work is in float64

# SMPL's and SMPL-X's body joints after the root, left and right swapped (index into body_pose).
_BODY_MIRROR = (1, 0, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11, 13, 12, 14, 16, 15, 18, 17, 20, 19, 22, 21)
_MIRROR_SIGN = np.array([1, -1, -1], np.float32)


def rigid_parameters(
    global_orient: np.ndarray, transl: np.ndarray, rest_root: np.ndarray, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Root rotation and translation of the bodies moved by `X' = R X + t`, exactly.

    `global_orient` (N, 3) axis-angle, `transl` (N, 3) and `rest_root` (N, 3) metres: the root joint J0 of the
    shaped body at rest, about which the root turns (`BodyModel.rest_root`); `R` (N, 3, 3), `t` (N, 3) metres.
    Returns (N, 3), (N, 3) float32: `root' = log(R exp(root))`, `transl' = R (J0 + transl) + t - J0`.
    Raises ValueError where shapes do not fit.
    """
    from scipy.spatial.transform import Rotation

    n = len(global_orient)
    shapes = {"global_orient": (n, 3), "transl": (n, 3), "rest_root": (n, 3), "R": (n, 3, 3), "t": (n, 3)}
    given = {"global_orient": global_orient, "transl": transl, "rest_root": rest_root, "R": R, "t": t}
    for name, shape in shapes.items():
        if given[name].shape != shape:
            raise ValueError(f"{name} must be {shape}, got {given[name].shape}")
    root_out, transl_out = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
    for first in range(0, n, _CHUNK):
        rows = slice(first, first + _CHUNK)
        root, offset, j0, rot, shift = (np.asarray(v[rows], np.float64) for v in given.values())
        root_out[rows] = (Rotation.from_matrix(rot) * Rotation.from_rotvec(root)).as_rotvec()
        transl_out[rows] = np.einsum("nij,nj->ni", rot, j0 + offset) + shift - j0
    return root_out, transl_out


def camera_space_columns(
    params: Mapping[str, np.ndarray], rest_root: np.ndarray, camera: Camera
) -> dict[str, np.ndarray]:
    """The columns of world-space fits that change in their cameras' space: the root's, and the cameras'.

    `params`: `global_orient` and `transl` (N, 3); `rest_root` (N, 3) as of `rigid_parameters`.
    """
    root, transl = rigid_parameters(params["global_orient"], params["transl"], rest_root, camera.R, camera.t)
    own = Camera.from_intrinsics(camera.focal, camera.princpt)
    columns = {"param/global_orient": root, "param/transl": transl, "focal": own.focal}
    return {**columns, "princpt": own.princpt, "R": own.R, "t": own.t}


def rotation_about_axis(angle: np.ndarray | float, axis: int = 2) -> np.ndarray:
    """Angles in radians, (N,) or one -> (N, 3, 3) rotations about x, y or z (axis 0, 1, 2).

    About the camera's z a positive angle turns the picture clockwise: x is to the right, y down.
    """
    angle = np.atleast_1d(np.asarray(angle, np.float64))
    R = np.tile(np.eye(3), (len(angle), 1, 1))
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    R[:, i, i] = R[:, j, j] = np.cos(angle)
    R[:, j, i] = np.sin(angle)
    R[:, i, j] = -np.sin(angle)
    return R


def mirror_parameters(params: Mapping[str, np.ndarray], rest_root: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of the bodies mirrored left to right (x -> -x in their space), in smplx's names.

    `params`: name -> (N, ...) arrays of one model; `rest_root` (N, 3) as in `rigid_parameters`. Left and
    right change places, rotations keep x and negate y and z. MANO's parameters become those of the other
    hand, whose model is taken to be the mirror image, its rest root too. Shape and expression codes stay:
    exact only for a model that is symmetric in them.
    """
    swapped = {"left_hand_pose": "right_hand_pose", "right_hand_pose": "left_hand_pose"}
    flip = np.array([-1, 1, 1], np.float32)
    new_root = flip * rest_root if "hand_pose" in params else rest_root
    mirrored = {}
    for name, value in params.items():
        value = params[swapped.get(name, name)]
        if name == "body_pose":
            value = value[:, list(_BODY_MIRROR[: value.shape[1]])]
        if name == "transl":
            mirrored[name] = (flip * (rest_root + value) - new_root).astype(np.float32)
        elif name in ("betas", "expression"):
            mirrored[name] = np.array(value)
        else:
            mirrored[name] = value * _MIRROR_SIGN
    return mirrored
