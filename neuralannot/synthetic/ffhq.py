"""FFHQ's layout: one face an image, cropped as portraits are; FLAME's 73 points as keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.synthetic import kinship, motions, scenery, wardrobe
from neuralannot.synthetic.actors import Actor, moved, posed, shifted
from neuralannot.synthetic.contour import contour_points
from neuralannot.synthetic.painting import Mesh, encode_jpeg, finish, paint, random_light
from neuralannot.synthetic.records import Files, Take, box_of_points, leaf_with_camera
from neuralannot.synthetic.settings import Settings
from neuralannot.synthetic.viewpoints import Viewpoint, look_at

FOLDER = "images"  # of the images
_FACE = 0.15  # metres from brows to chin, and some
_SKELETON = 5  # of FLAME's joints, which nobody clicks


def jobs(settings: Settings) -> int:
    """How many images there are; a job is one."""
    return settings.count


def image_name(job: int) -> str:
    """The image's file name; its id is `job + 1`."""
    return f"{job:05d}.jpg"


def take(settings: Settings, job: int) -> Take:
    """One portrait."""
    rng = settings.rng(job)
    camera = _camera(rng, settings)
    in_world = _head(rng, settings)
    complexion = wardrobe.random_complexion(rng)
    colours = wardrobe.bare(rng, "flame", complexion, folder=settings.body_models, side=None)
    meshes = [Mesh(in_world.vertices, in_world.body.faces, colours, owner=0)]
    if settings.body_models is None:
        vertices, faces = kinship.rest_of_body(in_world, arms_down=True)
        meshes.append(Mesh(vertices, faces, wardrobe.dressed(rng, "smplx", complexion, folder=None)))
    indoors = rng.random() < 0.5
    kinds = (scenery.out_of_focus, scenery.room if indoors else scenery.outdoors)
    background = kinds[rng.random() < 0.4](rng, camera)
    picture = paint(meshes, camera, background, random_light(rng, indoors=indoors))
    actor = moved(in_world, camera.R, camera.t)
    record = {
        "job": job,
        "size": camera.size,
        "annotation": _annotation(settings.rng(job, 1), settings, camera, actor),
        "truth": leaf_with_camera(actor, camera),
    }
    return Take({image_name(job): encode_jpeg(finish(picture.image, rng), rng)}, record)


def files(settings: Settings, records: Sequence[dict[str, Any]]) -> Files:
    """FFHQ.json as Hand4Whole's loader reads it, and the truth."""
    images, annotations, truth = [], [], {}
    for record in records:
        id_, (width, height) = record["job"] + 1, record["size"]
        images.append({"id": id_, "file_name": image_name(record["job"]), "width": width, "height": height})
        annotations.append({"id": id_, "image_id": id_, **record["annotation"]})
        truth[str(id_)] = record["truth"]
    noted, fitted = "annotations/FFHQ.json", "truth/FFHQ_FLAME_NeuralAnnot.json"
    category = {"id": 1, "name": "face", "supercategory": "person"}
    content = {
        fitted: truth,
        noted: {"images": images, "annotations": annotations, "categories": [category]},
    }
    left_out = () if settings.body_models is None else ("shoulders below the faces: of the open body only",)
    return Files(content, (noted,), (fitted,), left_out=left_out)


def _camera(rng: np.random.Generator, settings: Settings) -> Viewpoint:
    """A portrait lens in front of the origin, on the side of -y."""
    assert settings.image_size is not None
    size = settings.image_size
    focal = rng.uniform(1.5, 4.0) * min(size)
    distance = focal * _FACE / (rng.uniform(0.33, 0.5) * min(size))
    position = np.array([0.0, -distance, 0.0])
    # A floor is where it would be, well below, for the backgrounds.
    lift = np.array([0.0, 0.0, _EYE_HEIGHT])
    R, t = look_at(position + lift, rng.normal(0, 0.006, 3) + lift, roll=rng.normal(0, 0.03))
    return Viewpoint(R, t, np.full(2, focal), np.array(size) / 2 + rng.normal(0, 0.004, 2) * size, size)


_EYE_HEIGHT = 1.6  # metres


def _head(rng: np.random.Generator, settings: Settings) -> Actor:
    """A head that looks more or less at the camera, its face's middle at eye height over the origin."""
    yaw, pitch, roll = rng.normal(0, (0.42, 0.16, 0.1)).clip((-1.0, -0.45, -0.3), (1.0, 0.45, 0.3))
    facing = Rotation.from_euler("x", 90, degrees=True)  # FLAME faces +z with y up; here z is up
    turn = Rotation.from_euler("z", yaw) * Rotation.from_euler("y", roll) * Rotation.from_euler("x", pitch)
    params = {
        "global_orient": (turn * facing).as_rotvec(),
        "jaw_pose": motions.jaw_pose(rng),
        "expression": motions.codes(rng),
        "betas": motions.codes(rng),
        "transl": np.zeros(3),
    }
    actor = posed("flame", params, folder=settings.body_models)
    middle = actor.joints[_SKELETON:].mean(axis=0)
    return shifted(actor, np.array([0.0, 0.0, _EYE_HEIGHT]) - middle)


def _annotation(
    rng: np.random.Generator, settings: Settings, camera: Viewpoint, actor: Actor
) -> dict[str, Any]:
    """Box and keypoints: FLAME's 5 skeleton joints (never valid), 51 landmarks, 17 of the outline."""
    head = Rotation.from_rotvec(actor.params["global_orient"]).as_matrix()
    outline = contour_points(actor, head, np.zeros(3))
    known = np.ones(_SKELETON + 51 + 17, bool)
    known[:_SKELETON] = False
    if outline is None:
        known[-17:], outline = False, np.zeros((17, 3), np.float32)
    pixels = camera.project(np.concatenate([actor.joints, outline]))
    box = box_of_points(pixels[known], camera.size)
    known[known] = ((pixels[known] >= 0) & (pixels[known] <= np.array(camera.size) - 1)).all(axis=1)
    known &= rng.random(len(known)) >= settings.missing
    noisy = pixels + settings.noise * rng.normal(0, 1, pixels.shape)
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "area": round(box[2] * box[3], 2),
        "keypoints": np.where(known[:, None], noisy, 0.0).ravel().round(4).tolist(),
        "keypoints_valid": known.astype(int).tolist(),
    }
