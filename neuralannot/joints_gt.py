"""What the data sets themselves annotate: keypoints, boxes, and the MoCap data sets' 3D joints."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import simdjson

from neuralannot.boxes import boxes_from_joints
from neuralannot.cameras import Camera
from neuralannot.columns import TableStack
from neuralannot.json_chunks import explain_bad_chunk, json_chunks
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import SIDES
from neuralannot.store import cached_table

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

_JOINT_SETS_WORLD = {
    "Human3.6M": "human36m-17",
    "MPI-INF-3DHP": "mpi-inf-3dhp-17",
    "InterHand2.6M": "interhand-21",
}
_HAND_BOX_SCALE = 1.5
KEYPOINT_SETS = {17: "coco-17", 133: "coco-wholebody-133", 16: "mpii-16", 14: "crowdpose-14"}
# Where the face and the hands are among COCO-WholeBody's 133.
_WHOLE_BODY_PARTS = {"face": slice(23, 91), "left": slice(91, 112), "right": slice(112, 133)}
_COUNTS = {"Human3.6M": 17, "MPI-INF-3DHP": 17, "InterHand2.6M": 42}


def keypoints(gt: PseudoGT) -> np.ndarray | None:
    """(N, K, 3) x, y px and visibility; None where there are none. See `PseudoGT.joints_2d`."""
    if "ann/keypoints" not in gt.view:
        return None
    points = gt.view.column("ann/keypoints")
    if points.shape[1] != 133 or gt.model not in ("mano", "flame"):
        return points
    if gt.model == "flame":
        return points[:, _WHOLE_BODY_PARTS["face"]]
    hands = {side: points[:, _WHOLE_BODY_PARTS[side]] for side in SIDES}
    assert gt.side is not None
    return np.where((gt.side == "right")[:, None, None], hands["right"], hands["left"])


def keypoint_set(gt: PseudoGT) -> str | None:
    """The joint set of `keypoints`, where it has a name."""
    points = keypoints(gt[:0])
    if points is None:
        return None
    if points.shape[1] == 68:
        return "coco-wholebody-face-68"
    if points.shape[1] == 21:
        return _of_side(gt, "coco-wholebody-hand-21")
    return KEYPOINT_SETS.get(points.shape[1])


def joint_set_world(gt: PseudoGT) -> str | None:
    """The joint set of `joints_world`, where there is one."""
    name = _JOINT_SETS_WORLD.get(gt.catalogued.data_set)
    return _of_side(gt, name) if name == "interhand-21" else name


def _of_side(gt: PseudoGT, name: str) -> str:
    """The set of the rows' side. Rows of both sides take the right's; the left's is in the same order."""
    sides = set() if gt.side is None else set(gt.side.tolist())
    return f"{name}-{sides.pop() if len(sides) == 1 else 'right'}"


def boxes(gt: PseudoGT) -> np.ndarray:
    """(N, 4) raw boxes px. See `PseudoGT.box_xywh`."""
    if gt.catalogued.data_set == "InterHand2.6M" and gt.joined:
        joints, camera = joints_world(gt), world_camera(gt)
        pixels = camera.project(camera.world_to_camera(joints))
        found, _ = boxes_from_joints(pixels, np.isfinite(pixels).all(axis=-1), scale=_HAND_BOX_SCALE)
        return found
    if not gt.joined:
        return gt._annotation("ann/box", "boxes")  # says what to pass
    if gt.catalogued.data_set == "MSCOCO" and gt.model == "flame":
        return gt._annotation("ann/box_face", "'face_box'; use coco_wholebody_train_v1.0.json")
    if gt.model == "mano":
        hint = "'righthand_box' and 'lefthand_box'; use coco_wholebody_train_v1.0.json"
        right = gt._annotation("ann/box_right_hand", hint)
        left = gt._annotation("ann/box_left_hand", hint)
        assert gt.side is not None
        return np.where((gt.side == "right")[:, None], right, left)
    return gt._annotation("ann/box", "boxes")


def world_camera(gt: PseudoGT) -> Camera:
    """The files' cameras, from the world; those of rows that were moved into their space stand at the origin.

    Raises ValueError that names the companion file where there are none.
    """
    column = gt.view.column
    for prefix in ("cam/", "ann/"):
        if f"{prefix}R" in gt.view:
            return Camera(*(column(f"{prefix}{name}") for name in ("focal", "princpt", "R", "t")))
    return gt.require_camera()


def joints_world(gt: PseudoGT) -> np.ndarray:
    """(N, K, 3) metres, NaN where invalid. See `PseudoGT.joints_world`."""
    data_set, companions = gt.catalogued.data_set, gt.companions
    if companions.joints is None or data_set not in _COUNTS:
        raise ValueError(f"{gt.release}: {data_set} has no 3D joint file")
    files = companions.find(companions.joints)
    if files is None:
        places = ", ".join(map(str, companions.folders))
        raise FileNotFoundError(f"{companions.lacking(companions.joints)}: not in {places}")
    subjects = tuple(int(g["subject"]) if "subject" in g else None for g in companions.groups)
    stamps = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    stack, index = _joint_stack(stamps, subjects, data_set, companions.cache)
    rows = index.first(gt.view.column("key"))
    joints = stack.gather("joint/world", rows)
    if data_set != "InterHand2.6M":
        return joints
    assert gt.side is not None
    if "ann/joint_valid" in gt.view:
        joints = np.where(gt.view.column("ann/joint_valid")[..., None], joints, np.float32(np.nan))
    return np.where((gt.side == "right")[:, None, None], joints[:, :21], joints[:, 21:])


@functools.lru_cache(maxsize=4)
def _joint_stack(
    stamps: tuple[tuple[Path, int, int], ...], subjects: tuple[int | None, ...], data_set: str, cache: bool
) -> tuple[TableStack, KeyIndex]:
    """The joints of all files and the look-up of their frames, kept: one row may be asked for at a time."""
    tables = []
    for (file, _, _), subject in zip(stamps, subjects, strict=True):
        read = functools.partial(_read_joints, file, data_set, subject)
        tables.append(cached_table(file, read, key="joints", cache=cache))
    stack = TableStack(tuple(tables), "joint/key")
    return stack, KeyIndex(stack.gather("joint/key"))


def _read_joints(
    file: Path, data_set: str, subject: int | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return read_joints(file, data_set, subject), {}


def read_joints(path: Path, data_set: str, subject: int | None) -> dict[str, np.ndarray]:
    """A released `*_joint_3d.json` -> `joint/key` (F, K) int64 and `joint/world` (F, J, 3) float32 metres.

    Files hold millimetres. Joints that InterHand2.6M flags invalid, which are dummies, are NaN. Raises
    ValueError that names the file and the frame for anything that is not the layout.
    """
    count = _COUNTS[data_set]
    lead = (subject,) if subject is not None else ()
    depth = {"Human3.6M": 3, "MPI-INF-3DHP": 3, "InterHand2.6M": 2}[data_set]
    keys: list[tuple[int, ...]] = []
    arrays: list[np.ndarray] = []
    for chunk in json_chunks(path, depth):
        try:
            document: Any = simdjson.Parser().parse(chunk.text)
        except (ValueError, RuntimeError):
            raise explain_bad_chunk(path, chunk, "frame") from None
        for text in document:
            name = "/".join((*chunk.prefix, text))
            arrays.append(_joints(path, name, document[text], count))
            try:
                keys.append((*lead, *(int(k) for k in chunk.prefix), int(text)))
            except ValueError:
                raise ValueError(f"{path}: key {name!r} is not a frame's numbers") from None
    width = len(keys[0]) if keys else depth + len(lead)
    return {
        "joint/key": np.array(keys, np.int64).reshape(len(keys), width),
        "joint/world": np.array(arrays, np.float32).reshape(-1, count, 3) / np.float32(1000),  # file: mm
    }


def _joints(path: Path, name: str, entry: Any, count: int) -> np.ndarray:
    points: Any = entry
    flags: Any = None
    if isinstance(entry, simdjson.Object):  # InterHand2.6M
        points, flags = entry.get("world_coord"), entry.get("joint_valid")
    try:
        world = np.frombuffer(points.as_buffer(of_type="d")).reshape(count, 3).astype(np.float32)
        if flags is not None:
            # Released as [[true], [false], ...], which has no buffer, and as numbers.
            world[np.asarray(flags.as_list(), float).reshape(count) <= 0] = np.nan
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{path}: frame {name}: expected {count} joints of 3 numbers") from None
    return world
