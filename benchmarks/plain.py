"""Data sets as the release's own loaders are written: lists of dicts from `json.load`, arrays made a sample.

They hand out the same samples as `neuralannot.dataset.PseudoGTDataset`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_PARAMETERS = {"betas": "shape", "transl": "trans"}


class PlainCoco:
    """MSCOCO's SMPL fits, which are in camera space, with their annotations."""

    def __init__(self, fits: Path, annotations: Path) -> None:
        content = json.loads(fits.read_text())
        noted = json.loads(annotations.read_text())
        images = {image["id"]: image for image in noted["images"]}
        by_id = {annotation["id"]: annotation for annotation in noted["annotations"]}
        self.rows = []
        for id_, leaf in content.items():
            annotation = by_id[int(id_)]
            image = images[annotation["image_id"]]
            self.rows.append(
                {
                    "id": int(id_),
                    "path": f"train2017/{image['file_name']}",
                    "size": [image["width"], image["height"]],
                    "bbox": annotation["bbox"],
                    **leaf,
                }
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        pose = np.array(row["smpl_param"]["pose"], dtype=np.float32).reshape(-1, 3)
        return {
            "id": row["id"],
            "gender": "neutral",
            "image_path": row["path"],
            "image_size": np.array(row["size"]),
            "box_xywh": np.array(row["bbox"], dtype=np.float32),
            "params": _params(row["smpl_param"], pose),
            "valid": {"body": True},
            "focal": np.array(row["cam_param"]["focal"], dtype=np.float32),
            "princpt": np.array(row["cam_param"]["princpt"], dtype=np.float32),
            "index": index,
        }


class PlainHuman36M:
    """Human3.6M's SMPL fits, moved from the world into the camera sample by sample, as the demos do it.

    `rest`: (N, 3) metres, the root joints at rest, for which the demos forward every body.
    """

    def __init__(self, fits: Path, rest: np.ndarray) -> None:
        stem = fits.name.partition("_SMPL_")[0]
        content, noted, cameras = (
            json.loads(path.read_text())
            for path in (fits, fits.with_name(f"{stem}_data.json"), fits.with_name(f"{stem}_camera.json"))
        )
        self.rows = []
        for image, annotation, joint in zip(noted["images"], noted["annotations"], rest, strict=True):
            keys = (str(image[f"{name}_idx"]) for name in ("action", "subaction", "frame"))
            leaf = content
            for key in keys:
                leaf = leaf[key]
            self.rows.append(
                {
                    "id": annotation["id"],
                    "path": image["file_name"],
                    "size": [image["width"], image["height"]],
                    "bbox": annotation["bbox"],
                    "smpl_param": leaf,
                    "cam_param": cameras[str(image["cam_idx"])],
                    "rest": joint,
                }
            )

    def __len__(self) -> int:
        return len(self.rows)

    def moved(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(24, 3) pose and (3,) translation in camera space."""
        import cv2

        row = self.rows[index]
        leaf, camera, joint = row["smpl_param"], row["cam_param"], row["rest"]
        R = np.array(camera["R"], dtype=np.float32).reshape(3, 3)
        t = np.array(camera["t"], dtype=np.float32).reshape(3) / 1000  # millimetres in the file
        pose = np.array(leaf["pose"], dtype=np.float32).reshape(-1, 3)
        root, _ = cv2.Rodrigues(pose[0])
        root, _ = cv2.Rodrigues(np.dot(R, root))
        pose[0] = root.reshape(3)
        translation = np.array(leaf["trans"], dtype=np.float32).reshape(3)
        return pose, np.dot(R, translation) + t - joint + np.dot(R, joint)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        pose, translation = self.moved(index)
        return {
            "id": row["id"],
            "gender": "neutral",
            "image_path": row["path"],
            "image_size": np.array(row["size"]),
            "box_xywh": np.array(row["bbox"], dtype=np.float32),
            "params": _params(row["smpl_param"], pose) | {"transl": translation},
            "valid": {"body": True},
            "focal": np.array(row["cam_param"]["f"], dtype=np.float32),
            "princpt": np.array(row["cam_param"]["c"], dtype=np.float32),
            "index": index,
        }


def _params(leaf: dict[str, Any], pose: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters by smplx's names."""
    values = {name: np.array(leaf[field], dtype=np.float32) for name, field in _PARAMETERS.items()}
    return {"global_orient": pose[0], "body_pose": pose[1:], **values}


def check_samples(ours: Any, plain: Any, rows: list[int], limit: float = 1e-4) -> None:
    """Raise ValueError where samples of two data sets differ in keys, or in a number by more than `limit`."""
    for row in rows:
        one, other = _flat(ours[row]), _flat(plain[row])
        if one.keys() != other.keys():
            raise ValueError(f"row {row}: only one side has {', '.join(sorted(one.keys() ^ other.keys()))}")
        for name, value in one.items():
            if isinstance(value, str):
                same = value == other[name]
            elif name == "params.global_orient":
                same = _turned(value, other[name]) < 100 * limit  # float32 near half a turn
            else:
                same = bool(np.abs(np.subtract(value, other[name], dtype=np.float64)).max() < limit)
            if not same:
                raise ValueError(f"row {row}: {name} is {value} here, {other[name]} there")


def _turned(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.spatial.transform import Rotation

    return float((Rotation.from_rotvec(one).inv() * Rotation.from_rotvec(other)).magnitude())


def _flat(sample: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in sample.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
