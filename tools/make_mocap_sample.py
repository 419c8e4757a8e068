"""Make `neuralannot/sample/human36m`: a walk in the released Human3.6M layout.

    python -m tools.make_mocap_sample CMU_FOLDER camera-parameters.json
    python -m tools.make_mocap_sample --again

The second keeps the poses and cameras that are there; joints and boxes are those of the body as it is now.

The walker is subject 02 of the CMU motion capture library (clip 02_01), retargeted to the open SMPL-layout
body. He is put in front of the four real cameras of Human3.6M subject 1, as
https://github.com/karfly/human36m-camera-parameters (MIT) gives them. Nothing else is Human3.6M's: no image,
no motion, no joint.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from neuralannot.body_models import BodyModel, load_body_model
from tools.retarget_cmu import FRAMES_PER_SECOND, Motion, retarget_files

PACKAGE = Path(__file__).resolve().parent.parent / "neuralannot"
FOLDER = PACKAGE / "sample" / "human36m"
OPEN_BODIES = PACKAGE / "body_models" / "open"

Released = dict[str, Any]  # a camera as the files have it

SUBJECT, ACTION, SUBACTION = 1, 14, 1  # Human3.6M's actions run from 2, Directions, to 16, WalkTogether
ACTION_NAME = "Walking"
# Human3.6M's video runs at 50 frames per second and every 5th frame is used for training: ten a second.
VIDEO_FRAMES_PER_SECOND, FRAME_STEP, FRAMES = 50, 5, 24
# Camera index -> serial number, image width and height
CAMERAS = {
    1: ("54138969", 1000, 1002),
    2: ("55011271", 1000, 1000),
    3: ("58860488", 1000, 1000),
    4: ("60457274", 1000, 1002),
}
# Where the walk goes, found by trying directions and places for the widest margin to the borders of all four
# images: heading (degrees about z; 0 walks towards -y) and the middle of the path on the floor (metres).
HEADING, MIDDLE = 0.0, (0.4, 0.6)


def read_cameras(path: Path) -> dict[str, Released]:
    """Subject 1's cameras in the released form: camera index -> `R` 3x3, `t` 3 (mm), `f` 2, `c` 2 (px)."""
    given = json.loads(path.read_text())
    cameras = {}
    for index, (serial, _, _) in CAMERAS.items():
        extrinsics = given["extrinsics"][f"S{SUBJECT}"][serial]
        matrix = given["intrinsics"][serial]["calibration_matrix"]
        cameras[str(index)] = {
            "R": extrinsics["R"],
            "t": [row[0] for row in extrinsics["t"]],
            "f": [matrix[0][0], matrix[1][1]],
            "c": [matrix[0][2], matrix[1][2]],
        }
    return cameras


def read_sample() -> tuple[Motion, dict[str, Released]]:
    """Poses and cameras of the sample as it is."""
    released = FOLDER / f"Human36M_subject{SUBJECT}"
    fits = json.loads(released.with_name(f"{released.name}_SMPL_NeuralAnnot.json").read_text())
    frames = list(fits[str(ACTION)][str(SUBACTION)].values())
    pose = np.array([frame["pose"] for frame in frames]).reshape(len(frames), 24, 3)
    transl = np.array([frame["trans"] for frame in frames])
    motion = Motion(pose[:, 0], pose[:, 1:], transl, np.array(frames[0]["shape"]))
    return motion, json.loads(released.with_name(f"{released.name}_camera.json").read_text())


def forward(body: BodyModel, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (F, 6890, 3) and the skeleton's 24 joints (F, 24, 3) of a motion, metres."""
    frames = len(motion.transl)
    with torch.no_grad():
        out = body(
            global_orient=torch.tensor(motion.global_orient, dtype=torch.float32),
            body_pose=torch.tensor(motion.body_pose, dtype=torch.float32),
            betas=torch.tensor(motion.betas, dtype=torch.float32).expand(frames, -1),
            transl=torch.tensor(motion.transl, dtype=torch.float32),
        )
    return out.vertices.numpy().astype(np.float64), out.joints.numpy()[:, :24].astype(np.float64)


def take_frames(motion: Motion) -> Motion:
    """The frames of the clip that fall on the sample's frames, from the clip's first."""
    step = FRAMES_PER_SECOND * FRAME_STEP // VIDEO_FRAMES_PER_SECOND
    rows = slice(0, step * FRAMES, step)
    return Motion(motion.global_orient[rows], motion.body_pose[rows], motion.transl[rows], motion.betas)


def place(body: BodyModel, motion: Motion, *, heading: float, middle: tuple[float, float]) -> Motion:
    """The motion in a z-up world: on the floor z = 0, turned by `heading` (degrees), about `middle` (metres).

    Every frame of a walk has a foot on the ground, so the lowest vertex of every frame goes to z = 0; the
    clip's own floor rises by a few centimetres over the path.
    """
    turn = Rotation.from_euler(
        "xz", [90, heading], degrees=True
    )  # fixed axes: y up to z up, then the heading
    rest = Motion(np.zeros((1, 3)), np.zeros((1, 23, 3)), np.zeros((1, 3)), motion.betas)
    pelvis = forward(body, rest)[1][0, 0]
    root = (turn * Rotation.from_rotvec(motion.global_orient)).as_rotvec()
    moved = turn.apply(motion.transl + pelvis) - pelvis
    turned = Motion(root, motion.body_pose, moved, motion.betas)
    vertices, joints = forward(body, turned)
    shift = np.zeros_like(moved)
    shift[:, :2] = np.array(middle) - (joints[:, 0].min(0) + joints[:, 0].max(0))[:2] / 2
    shift[:, 2] = -vertices[:, :, 2].min(1)
    return Motion(root, motion.body_pose, moved + shift, motion.betas)


def project(points: np.ndarray, camera: Released) -> np.ndarray:
    """World points (..., 3), metres, to pixels (..., 2) of a camera in the released form."""
    seen = points @ np.array(camera["R"]).T + np.array(camera["t"]) / 1000
    pixels: np.ndarray = seen[..., :2] / seen[..., 2:] * np.array(camera["f"]) + np.array(camera["c"])
    return pixels


def rounded(values: np.ndarray, digits: int) -> list[Any]:
    exact = np.asarray(values, dtype=np.float64)
    numbers: list[Any] = (np.round(exact, digits) + 0.0).tolist()  # + 0.0 turns -0.0 into 0.0
    return numbers


def write(name: str, content: Mapping[str, Any]) -> None:
    path = FOLDER / name
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cmu", type=Path, nargs="?", help="folder with 02.asf and 02_01.amc")
    parser.add_argument("cameras", type=Path, nargs="?", help="camera-parameters.json")
    parser.add_argument("--again", action="store_true", help="keep poses and cameras that are there")
    arguments = parser.parse_args()
    if (arguments.cameras is None) != arguments.again:
        parser.error("give CMU_FOLDER and camera-parameters.json, or --again alone")

    body = load_body_model("smpl", folder=OPEN_BODIES)
    if arguments.again:
        motion, cameras = read_sample()
    else:
        motion = retarget_files(arguments.cmu / "02.asf", arguments.cmu / "02_01.amc", body)
        motion = place(body, take_frames(motion), heading=HEADING, middle=MIDDLE)
        cameras = read_cameras(arguments.cameras)
    # What is written is what everything else is made from, so that the files agree to the last digit.
    motion = Motion(*(np.array(rounded(values, 5)) for values in vars(motion).values()))
    vertices, _ = forward(body, motion)
    with np.load(OPEN_BODIES / "regressors.npz") as regressors:
        joints = np.einsum("kv,fvc->fkc", regressors["human36m-17/smpl"].astype(np.float64), vertices)
    frames = [FRAME_STEP * row for row in range(FRAMES)]

    params, joint_3d = {}, {}
    for row, frame in enumerate(frames):
        pose = np.concatenate([motion.global_orient[row], motion.body_pose[row].ravel()])
        params[str(frame)] = {
            "pose": rounded(pose, 5),
            "shape": rounded(motion.betas, 5),
            "trans": rounded(motion.transl[row], 5),
        }
        joint_3d[str(frame)] = rounded(joints[row] * 1000, 2)

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (serial, width, height) in CAMERAS.items():
        corners = project(vertices, cameras[str(index)])
        low, high = corners.min(1), corners.max(1)
        if (low < 0).any() or (high > np.array([width - 1, height - 1])).any():
            raise ValueError(f"the walker leaves the image of camera {index}; change HEADING or MIDDLE")
        folder = f"S{SUBJECT}_{ACTION_NAME}_{SUBACTION}.{serial}"
        for row, frame in enumerate(frames):
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": f"S{SUBJECT}/{folder}/{folder}_{frame + 1:06d}.jpg",
                    "width": width,
                    "height": height,
                    "subject": SUBJECT,
                    "action_name": ACTION_NAME,
                    "action_idx": ACTION,
                    "subaction_idx": SUBACTION,
                    "cam_idx": index,
                    "frame_idx": frame,
                }
            )
            box = np.concatenate([low[row], high[row] - low[row]])
            annotations.append({"id": len(images), "image_id": len(images), "bbox": rounded(box, 2)})

    FOLDER.mkdir(parents=True, exist_ok=True)
    released = f"Human36M_subject{SUBJECT}"
    write(f"{released}_SMPL_NeuralAnnot.json", {str(ACTION): {str(SUBACTION): params}})
    write(f"{released}_camera.json", cameras)
    write(f"{released}_joint_3d.json", {str(ACTION): {str(SUBACTION): joint_3d}})
    write(f"{released}_data.json", {"images": images, "annotations": annotations})


if __name__ == "__main__":
    main()
