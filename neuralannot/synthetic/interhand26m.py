"""InterHand2.6M's layout: hands, one or two, in a dark dome of calibrated cameras; 42 joints in the world."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.parameters import SIDES
from neuralannot.synthetic import kinship, motions, scenery, wardrobe
from neuralannot.synthetic.actors import Actor, posed, shifted
from neuralannot.synthetic.painting import Mesh, encode_jpeg, finish, paint, random_light
from neuralannot.synthetic.records import Files, Take, box_of_points, leaf, numbers, place
from neuralannot.synthetic.settings import Settings
from neuralannot.synthetic.viewpoints import Viewpoint, dome_of_cameras

SPLIT = "train"
FOLDER = "images"  # of the images; their paths begin with the split
_CAPTURES = 5
_FRAMES_WANTED = 8  # of a sequence
_SEQUENCES = ("0000_neutral_relaxed", "0001_neutral_rigid", "0390_dh_touchROM", "0007_thumbup_normal")
_FIRST_CAMERA = 400002
_FIRST_FRAME, _FRAME_STEP = 1000, 3
_DUMMY = 1.0  # mm: what the data set writes for joints that are not valid
_FRAME, _CAMERAS, _LOOKS, _NOISE, _PERSON = range(5)  # streams of random numbers
# MANO's fingers at rest point away from the body: to -x on the right hand.
_FINGERS = {"right": np.array([-1.0, 0, 0]), "left": np.array([1.0, 0, 0])}


def jobs(settings: Settings) -> int:
    """How many frames there are; a job is one with all its views."""
    return settings.count // settings.views


def key_of(settings: Settings, job: int) -> tuple[int, int]:
    """Capture and frame of a job."""
    frames = jobs(settings)
    each = -(-frames // min(_CAPTURES, frames))
    return job // each, _FIRST_FRAME + _FRAME_STEP * (job % each)


def take(settings: Settings, job: int) -> Take:
    """One frame: the hands posed, seen by all cameras of the capture."""
    capture, frame = key_of(settings, job)
    rng = settings.rng(_FRAME, capture, frame)
    looks = settings.rng(_LOOKS, capture)
    complexion = wardrobe.random_complexion(looks)
    light = random_light(looks, indoors=True)
    hands = _hands(rng, settings, motions.codes(settings.rng(_PERSON, capture)))
    meshes = []
    for number, actor in enumerate(hands):
        colours = wardrobe.bare(rng, "mano", complexion, folder=settings.body_models, side=actor.side)
        meshes.append(Mesh(actor.vertices, actor.body.faces, colours, owner=number))
        if settings.body_models is None:
            meshes.append(_arm(rng, actor, complexion))
    sequence = _SEQUENCES[(frame - _FIRST_FRAME) // _FRAME_STEP // _FRAMES_WANTED % len(_SEQUENCES)]
    jpegs, images = {}, []
    points = np.concatenate([actor.vertices for actor in hands])
    for number, camera in enumerate(cameras_of(settings, capture)):
        picture = paint(meshes, camera, scenery.dark_studio(rng, camera), light)
        cam = _FIRST_CAMERA + number
        name = f"Capture{capture}/{sequence}/cam{cam}/image{frame}.jpg"
        jpegs[f"{SPLIT}/{name}"] = encode_jpeg(finish(picture.image, rng), rng)
        images.append((cam, name, box_of_points(camera.project(camera.see(points)), camera.size)))
    noise = settings.rng(_NOISE, capture, frame)
    joints, valid = np.full((42, 3), _DUMMY), np.zeros(42, bool)
    for actor in hands:
        rows = slice(0, 21) if actor.side == "right" else slice(21, 42)
        joints[rows] = actor.regressed("interhand-21").astype(np.float64) * 1000
        valid[rows] = True
    joints += settings.noise * noise.normal(0, 1, joints.shape)
    valid &= noise.random(42) >= settings.missing
    joints[~valid] = _DUMMY
    record = {
        "key": (capture, frame),
        "sequence": sequence,
        "images": images,
        "joints_mm": joints,
        "valid": valid,
        "leaves": {actor.side: leaf(actor) for actor in hands},
    }
    return Take(jpegs, record)


def files(settings: Settings, records: Sequence[dict[str, Any]]) -> Files:
    """The split's files as released."""
    width, height = settings.image_size or (0, 0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    joints: dict[str, Any] = {}
    fits: dict[str, Any] = {}
    for record in records:
        capture, frame = record["key"]
        leaves, valid = record["leaves"], record["valid"]
        hand_type = "interacting" if len(leaves) == 2 else next(iter(leaves))
        place(fits, record["key"], {side: leaves.get(side) for side in SIDES})
        entry = {
            "world_coord": numbers(record["joints_mm"]),
            "joint_valid": [[bool(flag)] for flag in valid],
            "hand_type": hand_type,
            "hand_type_valid": True,
        }
        place(joints, record["key"], entry)
        for cam, name, box in record["images"]:
            id_ = len(images) + 1
            images.append(
                {
                    "id": id_,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "capture": capture,
                    "subject": capture,
                    "seq_name": record["sequence"],
                    "camera": str(cam),
                    "frame_idx": frame,
                }
            )
            annotations.append(
                {
                    "id": id_,
                    "image_id": id_,
                    "bbox": box,
                    "joint_valid": [[int(flag)] for flag in valid],
                    "hand_type": hand_type,
                    "hand_type_valid": 1,
                }
            )
    cameras: dict[str, Any] = {}
    for capture in sorted({record["key"][0] for record in records}):
        for number, camera in enumerate(cameras_of(settings, capture)):
            values = {"campos": camera.position * 1000, "camrot": camera.R}
            values |= {"focal": camera.focal, "princpt": camera.princpt}
            for field, value in values.items():
                place(cameras, (capture, field, _FIRST_CAMERA + number), numbers(value))
    stem = f"InterHand2.6M_{SPLIT}"
    truth = f"truth/{stem}_MANO_NeuralAnnot.json"
    camera_file, joint_file = f"annotations/{stem}_camera.json", f"annotations/{stem}_joint_3d.json"
    noted = f"annotations/{stem}_data.json"
    content = {
        truth: fits,
        camera_file: cameras,
        joint_file: joints,
        noted: {"images": images, "annotations": annotations},
    }
    left_out = () if settings.body_models is None else ("the arms behind the hands: of the open body only",)
    return Files(content, (noted,), (truth,), (camera_file,), (joint_file,), left_out)


@functools.lru_cache(maxsize=8)
def cameras_of(settings: Settings, capture: int) -> tuple[Viewpoint, ...]:
    """A capture's cameras."""
    assert settings.image_size is not None
    return tuple(dome_of_cameras(settings.rng(_CAMERAS, capture), settings.views, settings.image_size))


def _hands(rng: np.random.Generator, settings: Settings, betas: np.ndarray) -> list[Actor]:
    """One hand in the middle, or two that face each other or nearly so. Right comes first."""
    kind = rng.choice(3, p=[0.33, 0.33, 0.34])
    sides = (("right",), ("left",), SIDES)[kind]
    apart = np.zeros(3)
    if len(sides) == 2:
        apart = motions.any_rotation(rng).astype(np.float64)
        apart *= rng.uniform(0.05, 0.1) / max(float(np.linalg.norm(apart)), 1e-6)
    hands = []
    for side, way in zip(sides, (1, -1), strict=False):
        root = motions.any_rotation(rng)
        # Of two hands neither reaches through the other: fingers point inwards, arms lead away.
        while len(sides) == 2 and Rotation.from_rotvec(root).apply(_FINGERS[side]) @ (way * apart) > 0:
            root = motions.any_rotation(rng)
        params = {
            "global_orient": root,
            "hand_pose": motions.hand_pose(rng, side),
            "betas": betas,
            "transl": np.zeros(3),
        }
        actor = posed("mano", params, folder=settings.body_models, side=side)
        middle = way * apart + rng.normal(0, 0.01, 3)
        hands.append(shifted(actor, middle - actor.vertices.mean(axis=0)))
    return hands


def _arm(rng: np.random.Generator, hand: Actor, complexion: wardrobe.Complexion) -> Mesh:
    """The forearm that a hand is on, straight: not part of any truth."""
    vertices, faces = kinship.rest_of_body(hand, arms_down=False)
    reach = np.linalg.norm(vertices - hand.joints[0], axis=1)
    faces = faces[(reach[faces] < 0.27).all(axis=1)]
    used, numbered = np.unique(faces, return_inverse=True)
    points, numbered = _closed(vertices[used], numbered.reshape(-1, 3), reach[used] > 0.2)
    along = np.linalg.norm(points - hand.joints[0], axis=1)
    return Mesh(points, numbered, wardrobe.sleeve_or_skin(rng, points - hand.joints[0], complexion, along))


def _closed(points: np.ndarray, faces: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with a lid on the border that lies among the `far` vertices."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    border = edges[first[count == 1]]
    border = border[far[border].all(axis=1)]
    if not len(border):
        return points, faces
    middle = points[border].mean(axis=(0, 1))[None]
    lid = np.concatenate([border[:, ::-1], np.full((len(border), 1), len(points))], axis=1)
    return np.concatenate([points, middle]), np.concatenate([faces, lid])
