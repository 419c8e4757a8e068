"""Files of the released layouts, of any size, from random numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def write_coco_like(path: Path, count: int, seed: int = 0) -> None:
    """`count` annotations in the layout of MSCOCO_train_SMPL_NeuralAnnot.json, ids in no order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(coco_ids(count))

    def numbers(size: int, spread: float = 1, centre: float = 0) -> list[float]:
        return [float(v) for v in rng.normal(centre, spread, size).astype(np.float32)]

    leaves = (
        {
            "smpl_param": {"pose": numbers(72), "shape": numbers(10), "trans": numbers(3)},
            "cam_param": {
                "focal": [abs(v) + 1 for v in numbers(2, 900, 5000)],
                "princpt": numbers(2, 99, 300),
            },
        }
        for _ in ids
    )
    with path.open("w") as file:
        file.write("{")
        for place, (id_, leaf) in enumerate(zip(ids, leaves, strict=True)):
            file.write(f'{", " if place else ""}"{id_}": {json.dumps(leaf)}')
        file.write("}")


def coco_ids(count: int) -> np.ndarray:
    """(N,) the ids of `count` annotations."""
    return np.arange(1, 9 * count, 9)


def write_coco_annotations(path: Path, count: int, seed: int = 0) -> None:
    """The annotations that those fits belong to, in the layout of person_keypoints_train2017.json."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(20, 200, (count, 4)).tolist()
    images, annotations = [], []
    for id_, box in zip(coco_ids(count).tolist(), boxes, strict=True):
        if id_ % 2:  # two people an image
            images.append({"id": id_, "file_name": f"{id_:012d}.jpg", "width": 640, "height": 480})
        annotation = {"id": id_, "image_id": images[-1]["id"], "category_id": 1, "iscrowd": 0, "bbox": box}
        annotations.append(annotation | {"keypoints": [0] * 51})
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def write_human36m_like(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` annotations of subject 1 in the layout of Human3.6M's, four cameras a frame; the fits' path.

    Beside the fits stand the annotations and the cameras; translations of these in millimetres.
    """
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    cameras = range(1, 5)
    fits: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    images = []
    for number in range(count):
        action, place = 2 + number // len(cameras) // 1000, number // len(cameras) % 1000
        frames = fits.setdefault(str(action), {}).setdefault("1", {})
        if str(place) not in frames:
            pose = rng.normal(0, 0.3, 72)
            pose[:3] = Rotation.random(random_state=rng).as_rotvec()
            frames[str(place)] = {
                "pose": pose.tolist(),
                "shape": rng.normal(0, 1, 10).tolist(),
                "trans": rng.uniform(-1, 1, 3).tolist(),
            }
        image = {"id": number + 1, "file_name": f"S1/s_{number + 1:06d}.jpg", "width": 1000, "height": 1002}
        image |= {"subject": 1, "action_idx": action, "subaction_idx": 1, "frame_idx": place}
        images.append(image | {"cam_idx": number % len(cameras) + 1})
    annotations = [
        {"id": image["id"], "image_id": image["id"], "bbox": [200.0, 150.0, 300.0, 600.0]} for image in images
    ]
    views = {
        str(camera): {
            "R": Rotation.random(random_state=rng).as_matrix().tolist(),
            "t": [0.0, 0.0, 5000.0 + 100 * camera],
            "f": [1145.0, 1144.0],
            "c": [512.0, 515.0],
        }
        for camera in cameras
    }
    stem = "Human36M_subject1"
    for name, content in (
        (f"{stem}_data.json", {"images": images, "annotations": annotations}),
        (f"{stem}_camera.json", views),
        (f"{stem}_SMPL_NeuralAnnot.json", fits),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder / f"{stem}_SMPL_NeuralAnnot.json"
