"""Make `neuralannot/synthetic/poses.npz`: real body poses that differ, from clips of the CMU library.

    python -m tools.make_pose_bank CMU_FOLDER [--poses 1200] [--output poses.npz]

Reads every clip in the folder: `01_01.amc` with its subject's `01.asf` beside it, and `.bvh` files with the
joint names of the conversion at cgspeed.com. Each is moved onto the open SMPL-layout body
(`retarget_cmu.py`). The poses kept are those that lie farthest from each other; each comes with its
left-right mirror image.

The clips are at http://mocap.cs.cmu.edu (free for all uses; the database was created with funding from
NSF EIA-0196217).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from neuralannot.body_models import BodyModel
from neuralannot.transforms import mirror_parameters
from tools.retarget_cmu import (
    INCH,
    OPEN_BODIES,
    SMPL_PARENTS,
    Bone,
    fit_shape,
    read_amc,
    read_asf,
    rest_joints,
    retarget,
)

POSES = Path(__file__).resolve().parent.parent / "neuralannot" / "synthetic" / "poses.npz"
BODY_JOINTS = 21  # SMPL's 1 to 21; the two hands stay at rest

# Joint of a cgspeed BVH -> the ASF bone that it turns
BVH_BONE = {
    "Hips": "root",
    "LHipJoint": "lhipjoint",
    "LeftUpLeg": "lfemur",
    "LeftLeg": "ltibia",
    "LeftFoot": "lfoot",
    "LeftToeBase": "ltoes",
    "RHipJoint": "rhipjoint",
    "RightUpLeg": "rfemur",
    "RightLeg": "rtibia",
    "RightFoot": "rfoot",
    "RightToeBase": "rtoes",
    "LowerBack": "lowerback",
    "Spine": "upperback",
    "Spine1": "thorax",
    "Neck": "lowerneck",
    "Neck1": "upperneck",
    "Head": "head",
    "LeftShoulder": "lclavicle",
    "LeftArm": "lhumerus",
    "LeftForeArm": "lradius",
    "LeftHand": "lwrist",
    "RightShoulder": "rclavicle",
    "RightArm": "rhumerus",
    "RightForeArm": "rradius",
    "RightHand": "rwrist",
}
# cgspeed's files have the lengths of the ASF files: inches, divided by 0.45
BVH_UNIT = INCH / 0.45
ROOT_DOF = ("tx", "ty", "tz", "rx", "ry", "rz")
BVH_CHANNELS = ["Zrotation", "Yrotation", "Xrotation"]


def read_bvh(path: str | Path) -> tuple[dict[str, Bone], dict[str, np.ndarray]]:
    """Read a cgspeed BVH as `read_asf` and `read_amc` read their files: bones, and channels per bone.

    The first frame, a T pose that the conversion put there, is left out. Joints of the hands are skipped.

    Raises ValueError where the channels are not positions of the root and rotations about z, y, x.
    """
    lines = [line.split() for line in Path(path).read_text(encoding="latin-1").splitlines() if line.strip()]
    names: list[str] = []
    parents: dict[str, str] = {}
    offsets: dict[str, list[np.ndarray]] = {}  # of a joint's children: where its bone ends
    columns: dict[str, int] = {}
    open_joints: list[str] = []
    width = 0
    for number, words in enumerate(lines):
        if words[0] in ("ROOT", "JOINT"):
            parents[words[1]] = open_joints[-1] if open_joints else ""
            names.append(words[1])
            open_joints.append(words[1])
        elif words[0] == "End":
            open_joints.append("")
        elif words[0] == "OFFSET":
            parent = open_joints[-2] if len(open_joints) > 1 else ""
            offsets.setdefault(parent, []).append(np.array(words[1:4], dtype=np.float64) * BVH_UNIT)
        elif words[0] == "CHANNELS":
            if words[-3:] != BVH_CHANNELS or len(words) not in (5, 8):
                raise ValueError(f"{path}: {open_joints[-1]} must turn about z, y, x, got {words[2:]}")
            columns[open_joints[-1]] = width + int(words[1]) - 3
            width += int(words[1])
        elif words[0] == "}":
            open_joints.pop()
        elif words[0] == "Frame":
            frames = np.array(lines[number + 1 :], dtype=np.float64)[1:]
            break
    else:
        raise ValueError(f"{path}: no MOTION section; is it a BVH file?")
    if frames.shape[1] != width:
        raise ValueError(f"{path}: frames must have {width} values, got {frames.shape[1]}")

    missing = [name for name in BVH_BONE if name not in names]
    if missing:
        raise ValueError(f"{path}: no joint {missing[0]}; only BVH files of the cgspeed conversion are read")
    bones: dict[str, Bone] = {}
    motion: dict[str, np.ndarray] = {}
    for name in names:
        if name not in BVH_BONE:
            continue
        turns = frames[:, columns[name] : columns[name] + 3][:, ::-1]  # x, y, z
        # The conversion gives every joint three channels; a bone ends at its first child that lies away.
        end = next((offset for offset in offsets[name] if np.linalg.norm(offset) > 0), np.zeros(3))
        bone = BVH_BONE[name]
        if bone == "root":
            bones[bone] = Bone("root", "", np.zeros(3), BVH_UNIT, np.eye(3), ROOT_DOF)
            motion[bone] = np.concatenate([frames[:, columns[name] - 3 : columns[name]], turns], axis=1)
            continue
        length = float(np.linalg.norm(end))
        direction = end / length if length else np.array([0.0, -1.0, 0.0])
        bones[bone] = Bone(bone, BVH_BONE[parents[name]], direction, length, np.eye(3), ("rx", "ry", "rz"))
        motion[bone] = turns
    return bones, motion


def read_clips(folder: str | Path, body: BodyModel) -> Iterator[tuple[str, np.ndarray]]:
    """Every clip of the folder, retargeted: its name, and rotations (F, 22, 3) of the root and 21 joints.

    Axis-angle in radians, y up, 120 frames per second. `body`: a loaded SMPL-layout body.
    """
    rest, directions = rest_joints(body)
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == ".amc":
            bones = read_asf(path.with_name(path.stem.split("_")[0] + ".asf"))
            motion = read_amc(path, bones)
        elif path.suffix == ".bvh":
            bones, motion = read_bvh(path)
        else:
            continue
        betas = fit_shape(bones, rest, directions)
        found = retarget(bones, motion, rest + directions @ betas, betas)
        pose = np.concatenate([found.global_orient[:, None], found.body_pose[:, :BODY_JOINTS]], axis=1)
        yield path.stem, pose


def without_heading(root: np.ndarray) -> np.ndarray:
    """Root rotations (N, 3) turned about y so that the body's front, its own z, faces z; axis-angle."""
    turned = Rotation.from_rotvec(root)
    front = turned.apply([0.0, 0.0, 1.0])
    heading = np.arctan2(front[:, 0], front[:, 2])
    turned_back: np.ndarray = (Rotation.from_euler("y", -heading[:, None]) * turned).as_rotvec()
    return turned_back


def mirrored(pose: np.ndarray) -> np.ndarray:
    """Rotations (N, 22, 3) of the left-right mirror image."""
    pose = np.asarray(pose, dtype=np.float32)
    sides = mirror_parameters(
        {"global_orient": pose[:, 0], "body_pose": pose[:, 1:]},
        rest_root=np.zeros((len(pose), 3), np.float32),
    )
    return np.concatenate([sides["global_orient"][:, None], sides["body_pose"]], axis=1)


def joint_positions(pose: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Positions (N, 22, 3) in metres of the joints about the root, `rest` (24, 3) being their rest places."""
    local = Rotation.from_rotvec(np.asarray(pose, dtype=np.float64).reshape(-1, 3)).as_matrix()
    local = local.reshape(len(pose), -1, 3, 3)
    turned, places = [local[:, 0]], [np.zeros((len(pose), 3))]
    for joint in range(1, local.shape[1]):
        parent = SMPL_PARENTS[joint]
        places.append(places[parent] + turned[parent] @ (rest[joint] - rest[parent]))
        turned.append(turned[parent] @ local[:, joint])
    return np.stack(places, axis=1)


def farthest_points(points: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Indices (count,) of rows of (N, D) picked one by one, each farthest from those before, from row 0 on.

    Also the distance of the last one from the rows before it: no two of the picked are closer.
    """
    chosen = np.zeros(min(count, len(points)), dtype=np.int64)
    gap = np.linalg.norm(points - points[0], axis=1)
    distance = float("inf")
    for place in range(1, len(chosen)):
        chosen[place] = gap.argmax()
        distance = float(gap[chosen[place]])
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[place]], axis=1))
    return chosen, distance


def main() -> None:
    from neuralannot.body_models import load_body_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="clips of the CMU library")
    parser.add_argument("--poses", type=int, default=1200, help="poses to keep, before mirroring")
    parser.add_argument("--output", type=Path, default=POSES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    body = load_body_model("smpl", folder=OPEN_BODIES)
    names, poses, clips = [], [], []
    for number, (name, pose) in enumerate(read_clips(arguments.folder, body)):
        print(f"{name}: {len(pose)} frames")
        names.append(name)
        poses.append(pose)
        clips.append(np.full(len(pose), number, np.int16))
    pose, clip = np.concatenate(poses), np.concatenate(clips)
    pose[:, 0] = without_heading(pose[:, 0])

    places = joint_positions(pose, rest_joints(body)[0])
    flat = places.reshape(len(places), -1) / np.sqrt(places.shape[1])  # so that distances are per joint
    kept, distance = farthest_points(flat, arguments.poses)
    kept = np.sort(kept)
    both = np.concatenate([pose[kept], mirrored(pose[kept])]).astype(np.float16)
    np.savez_compressed(
        arguments.output,
        global_orient=both[:, 0],
        body_pose=both[:, 1:],
        clip=np.tile(clip[kept], 2),
        names=np.array(names),
    )
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {len(both)} poses, half of them mirror images, {size} bytes")
    print(f"two of a half differ by {1000 * distance:.0f} mm or more, root mean square over the joints")
    for number, name in enumerate(names):
        print(f"  {name}: {np.count_nonzero(clip[kept] == number)}")


if __name__ == "__main__":
    main()
