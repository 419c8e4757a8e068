"""How other people's data set classes read their files: the same keys, the same steps, bodies by smplx."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import smplx
import torch
from smplx_layers import open_arrays, open_layer


@functools.cache
def flat_handed() -> torch.nn.Module:
    """smplx's SMPL-X as AMASS and BEDLAM call it: hands about the flat hand."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "SMPLX_NEUTRAL.npz"
        np.savez(path, **open_arrays("smplx"))
        return smplx.SMPLX(str(path), use_face_contour=False, use_pca=False, flat_hand_mean=True)


def posed(layer: torch.nn.Module, **parameters) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of a layer."""
    with torch.no_grad():
        out = layer(**{k: torch.tensor(np.asarray(v, np.float32)) for k, v in parameters.items()})
    return out.vertices.numpy(), out.joints.numpy()


def smpl_posed(pose, shape, transl):
    return posed(
        open_layer("smpl"), global_orient=pose[:, :3], body_pose=pose[:, 3:72], betas=shape, transl=transl
    )


class Spin:
    """SPIN's BaseDataset: what its constructor and `__getitem__` take from the npz."""

    def __init__(self, path):
        self.data = np.load(path)
        self.imgname, self.scale, self.center = (self.data[k] for k in ("imgname", "scale", "center"))
        self.pose = self.data["pose"].astype(float)
        self.betas = self.data["shape"].astype(float)
        self.has_smpl = self.data["has_smpl"] if "has_smpl" in self.data else np.ones(len(self.imgname))
        self.pose_3d = self.data.get("S")
        self.keypoints = np.concatenate([self.data["openpose"], self.data["part"]], axis=1)
        if "gender" in self.data:
            self.gender = np.array([0 if str(g) == "m" else 1 for g in self.data["gender"]]).astype(np.int32)
        else:
            self.gender = -1 * np.ones(len(self.imgname)).astype(np.int32)
        n = self.scale.shape[0]
        assert self.pose.shape == (n, 72)
        assert self.betas.shape == (n, 10)
        assert self.keypoints.shape == (n, 49, 3)
        assert self.center.shape == (n, 2)
        assert self.scale.shape == self.has_smpl.shape == (n,)
        assert self.pose_3d is None or self.pose_3d.shape == (n, 24, 4)


class Hmr2:
    """4D-Humans' ImageDataset."""

    def __init__(self, path):
        data = np.load(path, allow_pickle=True)
        self.imgname, self.center = data["imgname"], data["center"]
        self.scale = data["scale"].reshape(len(self.center), -1) / 200.0
        if self.scale.shape[1] == 1:
            self.scale = np.tile(self.scale, (1, 2))
        assert self.scale.shape == (len(self.center), 2)
        self.body_pose = data["body_pose"].astype(np.float32)
        self.has_body_pose = data["has_body_pose"].astype(np.float32)
        self.betas, self.has_betas = data["betas"].astype(np.float32), data["has_betas"].astype(np.float32)
        self.keypoints_2d = np.concatenate((data["body_keypoints_2d"], data["extra_keypoints_2d"]), axis=1)
        self.keypoints_3d = np.concatenate((data["body_keypoints_3d"], data["extra_keypoints_3d"]), axis=1)
        self.data = data
        n = len(self.imgname)
        assert self.body_pose.shape == (n, 72)
        assert self.keypoints_2d.shape == (n, 44, 3)
        assert self.keypoints_3d.shape == (n, 44, 4)
        assert self.has_body_pose.shape == self.has_betas.shape == (n,)


class HumanData(dict):
    """MMHuman3D's HumanData: `load`, its checks of types and shapes, and taking keypoints apart again."""

    SUPPORTED: ClassVar = {
        "image_path": (list, None),
        "bbox_xywh": (np.ndarray, (-1, 5)),
        "config": (str, None),
        "keypoints2d": (np.ndarray, (-1, -1, 3)),
        "keypoints3d": (np.ndarray, (-1, -1, 4)),
        "smpl": (dict, None),
        "smplx": (dict, None),
        "meta": (dict, None),
        "keypoints2d_mask": (np.ndarray, (-1,)),
        "keypoints2d_convention": (str, None),
        "keypoints3d_mask": (np.ndarray, (-1,)),
        "keypoints3d_convention": (str, None),
    }

    def __init__(self, path):
        attributes = {}
        with np.load(path, allow_pickle=True) as file:
            for key, value in dict(file).items():
                if value.ndim == 0:
                    value = value.item()
                elif key in self.SUPPORTED and type(value) is not self.SUPPORTED[key][0]:
                    value = self.SUPPORTED[key][0](value)
                if key in ("__key_strict__", "__temporal_len__", "__keypoints_compressed__"):
                    attributes[key] = value
                else:
                    self[key] = value
        self.count, self.compressed = attributes["__temporal_len__"], attributes["__keypoints_compressed__"]
        for key, value in self.items():
            kind, shape = self.SUPPORTED.get(key, (None, None))
            if kind is not None:
                assert type(value) is kind, key
            if shape is not None:
                assert len(value.shape) == len(shape), key
                assert all(want < 0 or want == got for want, got in zip(shape, value.shape, strict=True)), key
                if not key.endswith("_mask"):
                    assert len(value) == self.count, key
        assert len(self["image_path"]) == self.count

    def whole(self, key):
        """Its `__add_zero_pad__`."""
        value, mask = self[key], np.asarray(self[f"{key}_mask"])
        assert self.compressed
        assert mask.sum() == value.shape[1]
        out = np.zeros((len(value), len(mask), value.shape[2]), value.dtype)
        out[:, np.where(mask == 1)[0], :] = value
        return out


class Bedlam:
    """BEDLAM's DatasetHMR: 66 of the pose for CLIFF, hands for the whole body."""

    def __init__(self, path):
        data = self.data = np.load(path, allow_pickle=True)
        self.imgname, self.scale, self.center = data["imgname"], data["scale"], data["center"]
        self.pose_cam = data["pose_cam"].astype(float)
        self.betas = data["shape"].astype(float)
        if self.betas.shape[-1] == 10:
            self.betas = np.hstack((self.betas, np.zeros((self.betas.shape[0], 1))))
        self.keypoints = data["gtkps"][:, :24]
        self.focal = np.stack([data["cam_int"][:, 0, 0], data["cam_int"][:, 1, 1]], 1)
        self.translation = data["cam_ext"][:, :, 3].copy()
        self.translation[:, :3] += data["trans_cam"]
        n = len(self.imgname)
        assert self.betas.shape == (n, 11)
        assert self.keypoints.shape == (n, 24, 3)
        assert data["cam_int"].shape == (n, 3, 3)
        assert data["cam_ext"].shape == (n, 4, 4)
        assert (data["cam_ext"][:, 3] == [0, 0, 0, 1]).all()

    def bodies(self, pose, transl):
        """As its preparation poses them, without the camera's own translation."""
        if pose.shape[1] == 72:
            return smpl_posed(pose, self.betas[:, :10], transl)
        return posed(
            flat_handed(),
            betas=self.betas[:, :10],
            global_orient=pose[:, :3],
            body_pose=pose[:, 3:66],
            jaw_pose=pose[:, 66:69],
            leye_pose=pose[:, 69:72],
            reye_pose=pose[:, 72:75],
            left_hand_pose=pose[:, 75:120],
            right_hand_pose=pose[:, 120:165],
            expression=np.zeros((len(pose), 10)),
            transl=transl,
        )
