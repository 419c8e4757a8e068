"""Move a clip of the CMU motion capture library (ASF skeleton, AMC motion) onto an SMPL-layout body.

    python -m tools.retarget_cmu 02.asf 02_01.amc walk.npz

The clips are at http://mocap.cs.cmu.edu (free for all uses; the database was created with funding from
NSF EIA-0196217). `make_mocap_sample.py` uses the functions below.

The limbs of the result point exactly where the limbs of the ASF skeleton point; the spine, neck and head take
over its rotations. Wrists and fingers stay in line with the forearm: CMU's hands hold three markers and come
out over-extended.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import lsq_linear
from scipy.spatial.transform import Rotation

from neuralannot.body_models import BodyModel, load_body_model

OPEN_BODIES = Path(__file__).resolve().parent.parent / "neuralannot" / "body_models" / "open"
FRAMES_PER_SECOND = 120
INCH = 0.0254

# SMPL joint -> the ASF bone whose rotation it takes over
SOURCE_BONE = {
    0: "root",
    1: "lfemur",
    2: "rfemur",
    3: "lowerback",
    4: "ltibia",
    5: "rtibia",
    6: "upperback",
    7: "lfoot",
    8: "rfoot",
    9: "thorax",
    10: "ltoes",
    11: "rtoes",
    12: "lowerneck",
    13: "lclavicle",
    14: "rclavicle",
    15: "head",
    16: "lhumerus",
    17: "rhumerus",
    18: "lradius",
    19: "rradius",
}
# SMPL joint that starts a limb bone -> the joint that ends it. Toes have no end joint and follow the foot's
# rest.
LIMB_END = {1: 4, 2: 5, 4: 7, 5: 8, 7: 10, 8: 11, 16: 18, 17: 19, 18: 20, 19: 21}
INNER_BONES = (4, 5, 7, 8, 18, 19)  # limb bones whose parent is one
# Bone lengths that a body shape is fitted to: SMPL joints at the two ends, ASF bones in between
LENGTHS = {
    (1, 4): ("lfemur",),
    (2, 5): ("rfemur",),
    (4, 7): ("ltibia",),
    (5, 8): ("rtibia",),
    (16, 18): ("lhumerus",),
    (17, 19): ("rhumerus",),
    (18, 20): ("lradius", "lwrist"),
    (19, 21): ("rradius", "rwrist"),
}
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


@dataclass(frozen=True)
class Bone:
    """One ASF bone at rest: `direction` (3,), `length` in metres, frame `axis` (3, 3), channels `dof`."""

    name: str
    parent: str
    direction: np.ndarray
    length: float
    axis: np.ndarray
    dof: tuple[str, ...]


@dataclass(frozen=True)
class Motion:
    """SMPL parameters of F frames: `global_orient` (F, 3), `body_pose` (F, 23, 3), `transl` (F, 3).

    Radians and metres; `betas` (10,) is one shape for the clip. As retargeted, y is up.
    """

    global_orient: np.ndarray
    body_pose: np.ndarray
    transl: np.ndarray
    betas: np.ndarray


def _euler(degrees: np.ndarray) -> np.ndarray:
    """ASF angles (..., 3) about the fixed x, y and z axes, in that order, as matrices (..., 3, 3)."""
    flat = np.asarray(degrees, dtype=np.float64).reshape(-1, 3)
    turns: np.ndarray = Rotation.from_euler("xyz", flat, degrees=True).as_matrix()
    return turns.reshape(*np.shape(degrees)[:-1], 3, 3)


def read_asf(path: str | Path) -> dict[str, Bone]:
    """Read an ASF skeleton: bone name -> bone, parents first.

    The first is the root, which has no direction; its `length` is that of one unit of its channels.

    Raises ValueError where a section is missing or angles are not in degrees.
    """
    sections: dict[str, list[list[str]]] = {}
    name = ""
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0].startswith(":"):
            name = words[0][1:]
            sections[name] = []
        elif name:
            sections[name].append(words)
    missing = {"units", "bonedata", "hierarchy"} - set(sections)
    if missing:
        raise ValueError(f"{path}: no :{min(missing)} section; is it an ASF file?")
    units = {words[0]: words[1] for words in sections["units"]}
    if units.get("angle") != "deg":
        raise ValueError(f"{path}: angles must be in degrees (deg), got {units.get('angle')}")
    metres = INCH / float(units["length"])

    parents = {child: w[0] for w in sections["hierarchy"] if len(w) > 1 for child in w[1:]}
    read: dict[str, Bone] = {}
    entry: dict[str, list[str]] = {}
    for words in sections["bonedata"]:
        if words[0] == "begin":
            entry = {}
        elif words[0] == "end":
            direction = np.array(entry["direction"], dtype=np.float64)
            read[entry["name"][0]] = Bone(
                name=entry["name"][0],
                parent=parents[entry["name"][0]],
                direction=direction / np.linalg.norm(direction),
                length=float(entry["length"][0]) * metres,
                axis=_euler(np.array(entry["axis"][:3], dtype=np.float64)),
                dof=tuple(entry.get("dof", ())),
            )
        else:
            entry[words[0]] = words[1:]

    root_dof = ("tx", "ty", "tz", "rx", "ry", "rz")
    bones = {"root": Bone("root", "", np.zeros(3), metres, np.eye(3), root_dof)}
    for child in parents:  # the hierarchy section lists parents before children
        bones[child] = read[child]
    return bones


def read_amc(path: str | Path, bones: dict[str, Bone]) -> dict[str, np.ndarray]:
    """Read an AMC motion: bone name -> (F, channels), in the skeleton's order, degrees (the root: lengths
    first).

    Raises ValueError where a line does not fit the skeleton or frames differ in the bones they hold.
    """
    values: dict[str, list[list[float]]] = {}
    frames = 0
    for number, line in enumerate(Path(path).read_text(encoding="latin-1").splitlines(), 1):
        words = line.split()
        if not words or words[0][0] in "#:":
            continue
        if len(words) == 1:
            frames += 1
            continue
        if words[0] not in bones or len(words) - 1 != len(bones[words[0]].dof):
            raise ValueError(
                f"{path}:{number}: {words[0]} with {len(words) - 1} values is not in the skeleton"
            )
        values.setdefault(words[0], []).append([float(word) for word in words[1:]])
    ragged = [name for name, rows in values.items() if len(rows) != frames]
    if ragged:
        raise ValueError(f"{path}: {ragged[0]} has {len(values[ragged[0]])} rows for {frames} frames")
    return {name: np.array(rows) for name, rows in values.items()}


def pose_skeleton(
    bones: dict[str, Bone], motion: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Forward kinematics: bone name -> global rotation (F, 3, 3), and -> position of its end (F, 3), metres.

    A bone's rotation is `parent . C . M . C^-1`: C its axis frame, M its angles of the frame.
    """
    frames = len(motion["root"])
    turned: dict[str, np.ndarray] = {}
    ends: dict[str, np.ndarray] = {}
    for name, bone in bones.items():
        angles = np.zeros((frames, 3))
        for column, channel in enumerate(bone.dof):
            if channel.startswith("r"):
                angles[:, "xyz".index(channel[1])] = motion[name][:, column]
        local = bone.axis @ _euler(angles) @ bone.axis.T
        if name == "root":
            turned[name] = local
            ends[name] = motion["root"][:, :3] * bone.length
        else:
            turned[name] = turned[bone.parent] @ local
            ends[name] = ends[bone.parent] + turned[name] @ (bone.direction * bone.length)
    return turned, ends


def least_rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) by the smallest angle that takes direction `start` (3,) to `end` (3,).

    Lengths do not matter. Raises ValueError for opposite directions.
    """
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-9:
        raise ValueError("start and end point in opposite directions; the least rotation is not unique")
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: np.ndarray = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return turn


def fit_shape(
    bones: dict[str, Bone], joints: np.ndarray, directions: np.ndarray, *, stiffness: float = 0.03
) -> np.ndarray:
    """Betas (10,), each within 2.5, whose limbs are about as long as the skeleton's.

    `joints` (24, 3): the body's rest joints at zero betas, metres. `directions` (24, 3, 10): their change per
    beta. `stiffness`: what one unit of a beta costs, in metres of bone length. Lengths are linear in the
    betas to first order.
    """
    rows, wanted = [], []
    for (start, end), names in LENGTHS.items():
        bone = joints[end] - joints[start]
        rest = np.linalg.norm(bone)
        rows.append((bone / rest) @ (directions[end] - directions[start]))
        wanted.append(sum(bones[name].length for name in names) - rest)
    count = directions.shape[-1]
    matrix = np.concatenate([np.array(rows), stiffness * np.eye(count)])
    target = np.concatenate([np.array(wanted), np.zeros(count)])
    betas: np.ndarray = lsq_linear(matrix, target, bounds=(-2.5, 2.5)).x
    return betas


def retarget(
    bones: dict[str, Bone], motion: dict[str, np.ndarray], joints: np.ndarray, betas: np.ndarray
) -> Motion:
    """Give an SMPL-layout body the skeleton's pose in every frame.

    `joints` (24, 3): rest joints of the body with shape `betas`, metres. The root path is scaled by the ratio
    of leg lengths, so that a longer or shorter leg does not make the feet slide.
    """
    turned, ends = pose_skeleton(bones, motion)
    frames = len(motion["root"])

    # What takes SMPL's rest bone to ASF's: nothing for the trunk; for a limb the least rotation on top of its
    # parent's, so that a shin, and a sole under it, keep SMPL's own relation to the thigh where the
    # directions agree.
    aligned: dict[int, np.ndarray] = {}
    for joint, name in SOURCE_BONE.items():
        above = aligned[SMPL_PARENTS[joint]] if joint in INNER_BONES else np.eye(3)
        if joint in LIMB_END:
            rest = joints[LIMB_END[joint]] - joints[joint]
            aligned[joint] = least_rotation(above @ rest, bones[name].direction) @ above
        elif joint in (10, 11):
            aligned[joint] = aligned[SMPL_PARENTS[joint]]
        else:
            aligned[joint] = np.eye(3)

    world: dict[int, np.ndarray] = {
        joint: turned[SOURCE_BONE[joint]] @ aligned[joint] for joint in SOURCE_BONE
    }
    rotvec = np.zeros((frames, 24, 3))
    for joint, matrix in world.items():
        parent = SMPL_PARENTS[joint]
        local = matrix if parent < 0 else np.swapaxes(world[parent], -1, -2) @ matrix
        rotvec[:, joint] = Rotation.from_matrix(local).as_rotvec()

    leg = sum(np.linalg.norm(joints[end] - joints[start]) for start, end in ((1, 4), (2, 5), (4, 7), (5, 8)))
    asf_leg = sum(bones[name].length for name in ("lfemur", "rfemur", "ltibia", "rtibia"))
    # smplx turns the body about its rest pelvis, so the pelvis ends up at rest pelvis + transl
    transl = ends["root"] * (leg / asf_leg) - joints[0]
    return Motion(rotvec[:, 0], rotvec[:, 1:], transl, np.asarray(betas, dtype=np.float64))


def rest_joints(body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    """Rest joints (24, 3) of an SMPL-layout body at zero betas, their change per beta (24, 3, 10); metres."""
    regressor = np.asarray(body.J_regressor, dtype=np.float64)
    template = np.asarray(body.v_template, dtype=np.float64)
    shapedirs = np.asarray(body.shapedirs, dtype=np.float64)[..., :10]
    return regressor @ template, np.einsum("jv,vcs->jcs", regressor, shapedirs)


def retarget_files(asf: str | Path, amc: str | Path, body: BodyModel) -> Motion:
    """Read a clip and retarget it to a loaded SMPL-layout body, shaped like the clip's skeleton."""
    bones = read_asf(asf)
    joints, directions = rest_joints(body)
    betas = fit_shape(bones, joints, directions)
    return retarget(bones, read_amc(amc, bones), joints + directions @ betas, betas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("asf", type=Path)
    parser.add_argument("amc", type=Path)
    parser.add_argument("output", type=Path, help="npz with global_orient, body_pose, transl, betas (y up)")
    arguments = parser.parse_args()
    motion = retarget_files(arguments.asf, arguments.amc, load_body_model("smpl", folder=OPEN_BODIES))
    np.savez(arguments.output, **vars(motion))
    print(f"{arguments.output}: {len(motion.transl)} frames at {FRAMES_PER_SECOND} per second")


if __name__ == "__main__":
    main()
