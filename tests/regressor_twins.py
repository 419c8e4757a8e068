"""Samples of Pose2Pose, Hand4Whole and Pose2Mesh made slowly: smplx, OpenCV and raw files, by no code of the
library, in the words of their written conventions."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from layouts import Row, Written, joints_of
from smplx.vertex_ids import vertex_ids
from smplx_layers import arguments_of, open_arrays, open_layer, plain_forward


def _words(text: str) -> list[str]:
    return text.split()


SMPL_JOINTS = _words(
    "Pelvis L_Hip R_Hip Torso L_Knee R_Knee Spine L_Ankle R_Ankle Chest L_Foot R_Foot Neck L_Collar R_Collar "
    "Head L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand"
)
BODY = _words(
    "Pelvis L_Hip R_Hip L_Knee R_Knee L_Ankle R_Ankle Neck L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist "
    "R_Wrist L_Index_1 L_Middle_1 L_Ring_1 L_Pinky_1 R_Index_1 R_Middle_1 R_Ring_1 R_Pinky_1 Nose L_Eye "
    "R_Eye L_Ear R_Ear L_Big_toe L_Small_toe L_Heel R_Big_toe R_Small_toe R_Heel"
)
BODY_FLIPS = (
    *((1, 2), (3, 4), (5, 6), (8, 9), (10, 11), (12, 13), (14, 18), (15, 19), (16, 20), (17, 21)),
    *((23, 24), (25, 26), (27, 30), (28, 31), (29, 32)),
)
BODY_POSE_FLIPS = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23))
FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")
HAND = ["Wrist", *(f"{finger}_{k}" for finger in FINGERS for k in (1, 2, 3, 4))]
MANO_JOINTS = [
    "Wrist",
    *(f"{f}_{k}" for f in ("Index", "Middle", "Pinky", "Ring", "Thumb") for k in (1, 2, 3)),
]
FACE_FLIPS = (
    *((3, 4), (5, 14), (6, 13), (7, 12), (8, 11), (9, 10), (19, 23), (20, 22)),
    *((24, 33), (25, 32), (26, 31), (27, 30), (28, 35), (29, 34), (36, 42), (37, 41), (38, 40), (43, 47)),
    *((44, 46), (48, 52), (49, 51), (53, 55), *((56 + k, 72 - k) for k in range(8))),
)
# Hand4Whole's 137 are these of smplx's 127 joints, and 17 of the contour.
WHOLE_INDEX = [
    *(0, 1, 2, 4, 5, 7, 8, 12, 16, 17, 18, 19, 20, 21, 60, 61, 62, 63, 64, 65, 59, 58, 57, 56, 55),
    *(37, 38, 39, 66, 25, 26, 27, 67, 28, 29, 30, 68, 34, 35, 36, 69, 31, 32, 33, 70),
    *(52, 53, 54, 71, 40, 41, 42, 72, 43, 44, 45, 73, 49, 50, 51, 74, 46, 47, 48, 75),
    *(22, 15, 57, 56, *range(76, 127)),
]
WHOLE_FLIPS = (
    *((1, 2), (3, 4), (5, 6), (8, 9), (10, 11), (12, 13), (14, 17), (15, 18), (16, 19), (20, 21), (22, 23)),
    *((25 + k, 45 + k) for k in range(20)),
    *((67, 68), (69, 78), (70, 77), (71, 76), (72, 75), (73, 74), (83, 87), (84, 86), (88, 97), (89, 96)),
    *((90, 95), (91, 94), (92, 99), (93, 98), (100, 106), (101, 105), (102, 104), (107, 111), (108, 110)),
    *((112, 116), (113, 115), (117, 119), *((120 + k, 136 - k) for k in range(8))),
)
COCO = _words(
    "Nose L_Eye R_Eye L_Ear R_Ear L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hip R_Hip L_Knee "
    "R_Knee L_Ankle R_Ankle"
)
HUMAN36M = _words(
    "Pelvis R_Hip R_Knee R_Ankle L_Hip L_Knee L_Ankle Torso Neck Head Head_top L_Shoulder L_Elbow L_Wrist "
    "R_Shoulder R_Elbow R_Wrist"
)
MPI = _words(
    "Head_top Neck R_Shoulder R_Elbow R_Wrist L_Shoulder L_Elbow L_Wrist R_Hip R_Knee R_Ankle L_Hip L_Knee "
    "L_Ankle Pelvis Torso Head"
)
INTERHAND = [*(f"{finger}_{k}" for finger in FINGERS for k in (4, 3, 2, 1)), "Wrist"]


# --- pictures


def processed_box(box, width, height, aspect):
    """The annotated box, clipped, made of an aspect ratio, a quarter larger."""
    x, y, w, h = (float(v) for v in box)
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(width - 1, x1 + max(0, w - 1)), min(height - 1, y1 + max(0, h - 1))
    w, h = x2 - x1, y2 - y1
    cx, cy = x1 + w / 2, y1 + h / 2
    if w > aspect * h:
        h = w / aspect
    else:
        w = h * aspect
    return np.array([cx - w * 1.25 / 2, cy - h * 1.25 / 2, w * 1.25, h * 1.25])


def affine_of(cx, cy, w, h, out_w, out_h, rotation):
    """Centre, middle of the lower and of the right edge of the turned box go to those of the crop."""
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = [np.zeros(2), turn @ [0, h / 2], turn @ [w / 2, 0]]
    target = [np.zeros(2), np.array([0, out_h / 2]), np.array([out_w / 2, 0])]
    source = np.add(source, (cx, cy))
    target = np.add(target, (out_w / 2, out_h / 2))
    return cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))


def crop(image, box, shape, augmentation):
    """The picture (h, w, 3) as the image's type, and the affine from pixels of the mirrored image."""
    x, y, w, h = box
    cx = x + w / 2 + w * augmentation.shift[0]
    cy = y + h / 2 + h * augmentation.shift[1]
    if augmentation.flip:
        image = image[:, ::-1].copy()
        cx = image.shape[1] - cx - 1
    scale = augmentation.scale
    affine = affine_of(cx, cy, w * scale, h * scale, shape[1], shape[0], augmentation.rotation)
    return cv2.warpAffine(image, affine, shape[::-1], flags=cv2.INTER_LINEAR), affine


def in_plane(rotation):
    angle = np.deg2rad(-rotation)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


# --- joints


def bodies(written: Written, row: Row, model: str):
    """Mesh (V, 3) and smplx's joints (J, 3) of a row in the camera's space, metres."""
    mesh, joints = plain_forward(open_layer(model, row.side), arguments_of(model, [row.leaf]))
    return to_camera(row, mesh[0]), to_camera(row, joints[0])


def to_camera(row: Row, points):
    if row.camera.R is None:
        return points
    return points @ np.array(row.camera.R).T + np.array(row.camera.t).reshape(3) / row.camera.unit


def project(row: Row, points):
    return points[:, :2] / points[:, 2:] * row.camera.focal + row.camera.princpt


@functools.cache
def interhand_weights(side):
    path = open_layer.__wrapped__.__globals__["OPEN_FOLDER"] / "regressors.npz"
    with np.load(path) as archive:
        return archive[f"interhand-21-{side}/mano"]


def part_joints(written: Written, row: Row, model: str):
    """The part's joints (J, 3) in the camera's space and which there are on the open body."""
    mesh, joints = bodies(written, row, model)
    if model == "flame":
        return np.concatenate([joints[:56], np.zeros((17, 3))]), np.arange(73) < 56
    if model == "mano":
        own = interhand_weights(row.side) @ mesh
        return np.stack([own[INTERHAND.index(name)] for name in HAND]), np.ones(21, bool)
    regressed = open_arrays("smpl")["J_regressor"] @ mesh
    ids = {"Nose": "nose", "L_Eye": "leye", "R_Eye": "reye", "L_Ear": "lear", "R_Ear": "rear"}
    ids |= {"L_Big_toe": "LBigToe", "L_Small_toe": "LSmallToe", "L_Heel": "LHeel"}
    ids |= {"R_Big_toe": "RBigToe", "R_Small_toe": "RSmallToe", "R_Heel": "RHeel"}
    out, there = np.zeros((33, 3)), np.ones(33, bool)
    for k, name in enumerate(BODY):
        if name in SMPL_JOINTS:
            out[k] = regressed[SMPL_JOINTS.index(name)]
        elif name in ids:
            out[k] = mesh[vertex_ids["smplh"][ids[name]]]
        else:
            there[k] = False
    return out, there


def own_joints(written: Written, row: Row, model: str):
    """What the data set annotates: names, px (K, 2), metres about the root (K, 3), valid (K,), whether 3D."""
    if written.joints is not None:
        names = HUMAN36M if "human36m" in written.release else MPI if "mpi" in written.release else INTERHAND
        world = joints_of(written, row)
        valid = np.isfinite(world).all(1)
        points = to_camera(row, np.nan_to_num(world, nan=1.0))
        root = names.index("Wrist" if model == "mano" else "Pelvis")
        return names, project(row, points), points - points[root], valid & valid[root], True
    ann = row.annotation
    fields = {"smpl": "keypoints", "flame": "face_kpts", "mano": f"{row.side}hand_kpts"}
    flat = np.array(ann.get(fields[model]) or ann["keypoints"], float).reshape(-1, 3)
    names = COCO
    if model == "mano":
        names = HAND
    elif model == "flame":
        names = [*(f"Face_{k}" for k in range(56, 73)), *(f"Face_{k}" for k in range(5, 56))]
    else:
        hips = flat[[COCO.index("L_Hip"), COCO.index("R_Hip")]]
        pelvis = [*hips[:, :2].mean(0), hips[0, 2] * hips[1, 2]]
        flat, names = np.concatenate([flat, [pelvis]]), [*COCO, "Pelvis"]
    return names, flat[:, :2], np.zeros((len(flat), 3)), flat[:, 2] > 0, False


def heatmap(image, relative, valid, affine, width, augmentation, flips, part):
    """Joints in the heatmap's units, metres, valid and inside: mirrored, turned, cropped."""
    shape, heat, depth = part
    image, relative, valid = image.copy(), relative.copy(), valid.copy()
    if augmentation.flip:
        image[:, 0] = width - 1 - image[:, 0]
        relative[:, 0] = -relative[:, 0]
        for a, b in flips:
            for values in (image, relative, valid):
                values[[a, b]] = values[[b, a]]
    place = image @ affine[:, :2].T + affine[:, 2]
    out = np.zeros((len(image), 3))
    out[:, 0] = place[:, 0] / shape[1] * heat[2]
    out[:, 1] = place[:, 1] / shape[0] * heat[1]
    out[:, 2] = (relative[:, 2] / (depth / 2) + 1) / 2 * heat[0]
    inside = valid & (out >= 0).all(1) & (out < [heat[2], heat[1], heat[0]]).all(1)
    return (
        out * valid[:, None],
        (relative @ in_plane(augmentation.rotation).T) * valid[:, None],
        valid,
        inside,
    )


def turned_pose(pose, augmentation, flips):
    """Axis-angle (J, 3), root first, as the picture shows it."""
    pose = np.array(pose, float).reshape(-1, 3)
    if augmentation.flip:
        for a, b in flips:
            pose[[a, b]] = pose[[b, a]]
        pose[:, 1:] *= -1
    root = in_plane(augmentation.rotation) @ cv2.Rodrigues(pose[0])[0]
    pose[0] = cv2.Rodrigues(root)[0][:, 0]
    return pose.reshape(-1)


def camera_root(row: Row, root):
    if row.camera.R is None:
        return np.array(root, float)
    return cv2.Rodrigues(np.array(row.camera.R) @ cv2.Rodrigues(np.array(root, float))[0])[0][:, 0]
