"""Human3.6M's layout: a room, calibrated cameras that see every frame, 17 joints in the world."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralannot.synthetic import motions, scenery, wardrobe
from neuralannot.synthetic.actors import Actor, posed, shifted
from neuralannot.synthetic.painting import Mesh, cast_shadow, encode_jpeg, finish, paint, random_light
from neuralannot.synthetic.records import Files, Take, box_of_points, leaf, numbers, place
from neuralannot.synthetic.settings import Settings
from neuralannot.synthetic.viewpoints import Viewpoint, ring_of_cameras

FOLDER = "images"  # of the images
_SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
_SERIALS = ("54138969", "55011271", "58860488", "60457274")
_ACTIONS = {
    2: "Directions",
    3: "Discussion",
    4: "Eating",
    5: "Greeting",
    6: "Phoning",
    7: "Posing",
    8: "Purchases",
    9: "Sitting",
    10: "SittingDown",
    11: "Smoking",
    12: "TakingPhoto",
    13: "Waiting",
    14: "Walking",
    15: "WalkingDog",
    16: "WalkTogether",
}
_SEQUENCES = 2 * len(_ACTIONS)  # of a subject: two a day's work of each action
_FRAMES_WANTED = 4  # of a sequence, before there is another
_FRAME_STEP = 5
_REACH = 0.9  # metres from the room's middle
_PERSON, _FRAME, _CAMERAS, _ROOM, _NOISE, _CLOTHES = range(6)  # streams of random numbers


def jobs(settings: Settings) -> int:
    """How many frames there are; a job is one with all its views."""
    return settings.count // settings.views


def key_of(settings: Settings, job: int) -> tuple[int, int, int, int]:
    """Subject, action, subaction and frame of a job."""
    frames = jobs(settings)
    # A subject's frames come one after another, so that its room is kept while it is drawn.
    each = -(-frames // min(len(_SUBJECTS), frames))
    subject, number = _SUBJECTS[job // each], job % each
    sequences = min(_SEQUENCES, max(1, each // _FRAMES_WANTED))
    sequence, frame = number % sequences, number // sequences
    return (
        subject,
        list(_ACTIONS)[sequence % len(_ACTIONS)],
        sequence // len(_ACTIONS) + 1,
        frame * _FRAME_STEP,
    )


def take(settings: Settings, job: int) -> Take:
    """One frame: posed, seen by all cameras of its subject."""
    subject, action, subaction, frame = key = key_of(settings, job)
    betas = motions.codes(settings.rng(_PERSON, subject))  # one body; clothes of the day
    person = settings.rng(_CLOTHES, subject, action, subaction)
    colours = wardrobe.dressed(
        person, settings.model, wardrobe.random_complexion(person), folder=settings.body_models
    )
    light = random_light(settings.rng(_ROOM, subject), indoors=True)
    rng = settings.rng(_FRAME, *key)
    actor = _on_the_floor(rng, settings, betas)
    mesh = Mesh(actor.vertices, actor.body.faces, colours, owner=0)
    jpegs, images = {}, []
    for number, camera in enumerate(cameras_of(settings, subject), 1):
        background = cast_shadow(_room(settings, subject, number - 1), [mesh], camera, light)
        picture = finish(paint([mesh], camera, background, light).image, rng)
        folder = f"S{subject}_{_ACTIONS[action]}_{subaction}.{_serial(number)}"
        name = f"S{subject}/{folder}/{folder}_{frame + 1:06d}.jpg"
        jpegs[name] = encode_jpeg(picture, rng)
        box = box_of_points(camera.project(camera.see(actor.vertices)), camera.size)
        images.append((number, name, box))
    joints = actor.regressed(settings.regressor or "human36m-17").astype(np.float64)
    joints += settings.rng(_NOISE, *key).normal(0, 1, joints.shape) * settings.noise / 1000
    return Take(jpegs, {"key": key, "images": images, "joints_mm": joints * 1000, "leaf": leaf(actor)})


def files(settings: Settings, records: Sequence[dict[str, Any]]) -> Files:
    """One set of files a subject, as released."""
    model = {"smpl": "SMPL", "smplx": "SMPLX"}[settings.model]
    width, height = settings.image_size or (0, 0)
    data: dict[int, dict[str, list[Any]]] = {}
    fits: dict[int, dict[str, Any]] = {}
    joints: dict[int, dict[str, Any]] = {}
    id_ = 0
    for record in sorted(records, key=lambda r: r["key"]):
        subject, action, subaction, frame = record["key"]
        place(fits.setdefault(subject, {}), (action, subaction, frame), record["leaf"])
        place(joints.setdefault(subject, {}), (action, subaction, frame), numbers(record["joints_mm"]))
        listed = data.setdefault(subject, {"images": [], "annotations": []})
        for number, name, box in record["images"]:
            id_ += 1
            listed["images"].append(
                {
                    "id": id_,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "subject": subject,
                    "action_name": _ACTIONS[action],
                    "action_idx": action,
                    "subaction_idx": subaction,
                    "cam_idx": number,
                    "frame_idx": frame,
                }
            )
            listed["annotations"].append({"id": id_, "image_id": id_, "bbox": box})
    truth = {f"truth/Human36M_subject{s}_{model}_NeuralAnnot.json": fits[s] for s in sorted(fits)}
    cameras = {
        f"annotations/Human36M_subject{s}_camera.json": _camera_file(settings, s) for s in sorted(fits)
    }
    world = {f"annotations/Human36M_subject{s}_joint_3d.json": joints[s] for s in sorted(fits)}
    noted = {f"annotations/Human36M_subject{s}_data.json": data[s] for s in sorted(fits)}
    content = {**truth, **cameras, **world, **noted}
    return Files(content, tuple(noted), tuple(truth), tuple(cameras), tuple(world))


@functools.lru_cache(maxsize=8)
def cameras_of(settings: Settings, subject: int) -> tuple[Viewpoint, ...]:
    """A subject's cameras."""
    assert settings.image_size is not None
    return tuple(ring_of_cameras(settings.rng(_CAMERAS, subject), settings.views, settings.image_size))


def _camera_file(settings: Settings, subject: int) -> dict[str, dict[str, list[Any]]]:
    return {
        str(number): {
            "R": numbers(camera.R),
            "t": numbers(camera.t * 1000),
            "f": numbers(camera.focal),
            "c": numbers(camera.princpt),
        }
        for number, camera in enumerate(cameras_of(settings, subject), 1)
    }


@functools.lru_cache(maxsize=16)
def _room(settings: Settings, subject: int, camera: int) -> np.ndarray:
    # The same numbers for all cameras: it is one room.
    return scenery.room(settings.rng(_ROOM, subject, 1), cameras_of(settings, subject)[camera])


def _serial(number: int) -> str:
    return _SERIALS[number - 1] if number <= len(_SERIALS) else str(60457274 + number)


def _on_the_floor(rng: np.random.Generator, settings: Settings, betas: np.ndarray) -> Actor:
    """A body in some pose somewhere near the middle of the room, its lowest point on the floor."""
    root, pose = motions.body_pose(rng, clips=settings.clips)
    if settings.model == "smpl":
        pose = np.concatenate([pose, np.zeros((2, 3), np.float32)])  # the hands
    params = {"global_orient": root, "body_pose": pose, "betas": betas, "transl": np.zeros(3)}
    actor = posed(settings.model, params, folder=settings.body_models)
    angle, radius = rng.uniform(0, 2 * np.pi), _REACH * np.sqrt(rng.random())
    middle = radius * np.array([np.cos(angle), np.sin(angle)])
    return shifted(actor, np.array([*(middle - actor.joints[0, :2]), -actor.vertices[:, 2].min()]))
