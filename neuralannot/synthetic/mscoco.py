"""MSCOCO's layout with COCO-WholeBody: people anywhere, one to three an image, cut off at times."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralannot.joint_sets import JOINT_SETS, map_joints
from neuralannot.parameters import SIDES
from neuralannot.synthetic import kinship, motions, scenery, wardrobe
from neuralannot.synthetic.actors import Actor, moved, posed, shifted
from neuralannot.synthetic.contour import contour_points
from neuralannot.synthetic.painting import (
    Mesh,
    Picture,
    Stage,
    cast_shadow,
    encode_jpeg,
    finish,
    paint,
    random_light,
)
from neuralannot.synthetic.records import (
    Files,
    Take,
    box_of_mask,
    box_of_points,
    leaf_with_camera,
)
from neuralannot.synthetic.settings import Settings
from neuralannot.synthetic.viewpoints import Viewpoint, look_at

FOLDER = "images"  # of the images; their paths begin with train2017
_SIZES = ((640, 480), (640, 427), (640, 426), (480, 640), (427, 640), (500, 375), (640, 640))
_SET = "coco-wholebody-133"
_PARTS = {
    "keypoints": slice(0, 17),
    "foot_kpts": slice(17, 23),
    "face_kpts": slice(23, 91),
    "lefthand_kpts": slice(91, 112),
    "righthand_kpts": slice(112, 133),
}
_CONTOUR = slice(23, 40)
# How deep below the surface a joint that is seen may lie, metres.
_DEPTHS = {
    "keypoints": 0.16,
    "foot_kpts": 0.08,
    "face_kpts": 0.03,
    "lefthand_kpts": 0.04,
    "righthand_kpts": 0.04,
}
# A hand or a face is annotated where this share of its joints is seen, and its box is as wide as this, px.
_SHARE_SEEN, _SMALLEST_BOX = 0.4, 8.0
_LEAST_VISIBLE, _LEAST_JOINTS, _TRIES = 0.35, 5, 50
_HEAD = 15


def jobs(settings: Settings) -> int:
    """How many images there are; a job is one."""
    return settings.count


def image_name(job: int) -> str:
    """The image's file name; its id is `job + 1`."""
    return f"{job + 1:012d}.jpg"


def take(settings: Settings, job: int) -> Take:
    """One image with the people that can be seen in it."""
    rng = settings.rng(job)
    for _ in range(_TRIES):
        camera, people, picture = _compose(rng, settings)
        if people:
            break
    else:
        raise RuntimeError(f"image {job}: nobody in view after {_TRIES} tries; use a larger image_size")
    joints = [_joints(settings, actor) for actor in people]
    noise = settings.rng(job, 1)
    annotations = [
        _annotation(noise, settings, camera, picture, number, actor, points)
        for number, (actor, points) in enumerate(zip(people, joints, strict=True))
    ]
    truth = [_truth(settings, actor, camera) for actor in people]
    image = finish(picture.image, rng)
    return Take(
        {f"train2017/{image_name(job)}": encode_jpeg(image, rng)},
        {"job": job, "size": camera.size, "annotations": annotations, "truth": truth},
    )


def files(settings: Settings, records: Sequence[dict[str, Any]]) -> Files:
    """The annotations twice, as both of the data set's files have them, and the truth of every part."""
    images: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    truth: dict[str, dict[str, Any]] = {"smplx": {}, "mano": {}, "flame": {}}
    for record in records:
        image_id = record["job"] + 1
        width, height = record["size"]
        images.append(
            {"id": image_id, "file_name": image_name(record["job"]), "width": width, "height": height}
        )
        for ann, fits in zip(record["annotations"], record["truth"], strict=True):
            id_ = len(whole) + 1
            whole.append({"id": id_, "image_id": image_id, **ann})
            truth["smplx"][str(id_)] = fits["smplx"]
            if "mano" in fits:
                seen = {side: ann[f"{side}hand_valid"] for side in SIDES}
                truth["mano"][str(id_)] = {s: fits["mano"][s] if seen[s] else None for s in SIDES}
                if ann["face_valid"]:
                    truth["flame"][str(id_)] = fits["flame"]
    content: dict[str, Any] = {"truth/MSCOCO_train_SMPLX_all_NeuralAnnot.json": truth["smplx"]}
    left_out: tuple[str, ...] = ()
    if settings.body_models is None:
        content["truth/MSCOCO_train_MANO_NeuralAnnot.json"] = truth["mano"]
        content["truth/MSCOCO_train_FLAME_NeuralAnnot.json"] = truth["flame"]
    else:
        left_out = (
            "MANO and FLAME truth: official files do not say which of SMPL-X's vertices are the hands' and "
            "the face's; the SMPL-X truth holds their poses",
        )
    fitted = tuple(content)
    names = (
        "annotations/coco_wholebody_train_v1.0.json",
        "annotations/person_keypoints_train2017.json",
    )
    body = [{k: v for k, v in ann.items() if k in _BODY_FIELDS} for ann in whole]
    for name, listed in zip(names, (whole, body), strict=True):
        content[name] = {"images": images, "annotations": listed, "categories": [_category()]}
    return Files(content, names, fitted, left_out=left_out)


_BODY_FIELDS = ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "keypoints", "num_keypoints")


def _category() -> dict[str, Any]:
    joints = JOINT_SETS["coco-17"]
    edges = [[a + 1, b + 1] for a, b in joints.skeleton]
    return {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(joints.joints),
        "skeleton": edges,
    }


def _compose(rng: np.random.Generator, settings: Settings) -> tuple[Viewpoint, list[Actor], Picture]:
    """A camera, the people that it sees well enough, in its space, and the picture of them."""
    camera = _camera(rng, settings)
    folder = settings.body_models
    people, meshes = [], []
    for number in range(int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
        stands = np.zeros(2) if number == 0 else rng.uniform((-1.4, -0.5), (1.4, 1.8))
        actor = _person(rng, settings, stands)
        colours = wardrobe.dressed(rng, "smplx", wardrobe.random_complexion(rng), folder=folder)
        people.append(actor)
        meshes.append(Mesh(actor.vertices, actor.body.faces, colours))
    indoors = rng.random() < 0.4
    light = random_light(rng, indoors=indoors)
    background = (scenery.room if indoors else scenery.outdoors)(rng, camera)
    kept = _seen_well(people, meshes, camera)
    meshes = [
        Mesh(meshes[k].vertices, meshes[k].faces, meshes[k].colours, owner=row) for row, k in enumerate(kept)
    ]
    picture = paint(meshes, camera, cast_shadow(background, meshes, camera, light), light)
    return camera, [moved(people[k], camera.R, camera.t) for k in kept], picture


def _camera(rng: np.random.Generator, settings: Settings) -> Viewpoint:
    """An ordinary lens, held by a standing or kneeling person, aimed at somebody at the world's origin."""
    size = settings.image_size or _SIZES[rng.integers(len(_SIZES))]
    width, height = size
    focal = rng.uniform(0.75, 1.5) * max(size)
    share = np.exp(rng.uniform(np.log(0.45), np.log(1.35)))  # of the image's height that a person takes
    distance = max(1.7 * focal / (share * height), 1.2)
    aim = 0.88 if share < 0.85 else rng.uniform(0.7, 1.35)
    sway = rng.normal(0, 0.12) * distance * width / focal
    position = np.array([rng.normal(0, 0.3), -distance, rng.uniform(0.7, 1.9)])
    R, t = look_at(position, np.array([sway, 0.0, aim]), roll=rng.normal(0, 0.05))
    princpt = np.array(size) / 2 + rng.normal(0, 0.01, 2) * size
    return Viewpoint(R, t, np.full(2, focal) * rng.normal(1, 0.003, 2), princpt, size)


def _person(rng: np.random.Generator, settings: Settings, stands: np.ndarray) -> Actor:
    root, pose = motions.body_pose(rng, clips=settings.clips)
    params = {
        "global_orient": root,
        "body_pose": pose,
        "betas": motions.codes(rng),
        "left_hand_pose": motions.hand_pose(rng, "left"),
        "right_hand_pose": motions.hand_pose(rng, "right"),
        "jaw_pose": motions.jaw_pose(rng),
        "expression": motions.codes(rng),
        "transl": np.zeros(3),
    }
    actor = posed("smplx", params, folder=settings.body_models)
    return shifted(actor, np.array([*(stands - actor.joints[0, :2]), -actor.vertices[:, 2].min()]))


def _seen_well(people: list[Actor], meshes: list[Mesh], camera: Viewpoint) -> list[int]:
    """Who is to stay: those of whom the others and the image's border leave enough in view."""
    pixels = [camera.project(camera.see(actor.joints[:22])) for actor in people]  # the body's
    last = np.array(camera.size) - 1
    inside = [int(((p >= 0) & (p <= last)).all(axis=1).sum()) for p in pixels]
    kept = [row for row, count in enumerate(inside) if count >= _LEAST_JOINTS]
    while len(kept) > 1:
        owned = [
            Mesh(meshes[k].vertices, meshes[k].faces, meshes[k].colours, owner=row)
            for row, k in enumerate(kept)
        ]
        together = _counts(owned, camera)
        alone = np.array([_counts([Mesh(m.vertices, m.faces, m.colours, owner=0)], camera)[0] for m in owned])
        share = together / np.maximum(alone, 1)
        worst = int(share.argmin())
        if share[worst] >= _LEAST_VISIBLE:
            break
        kept.pop(worst)
    return kept


def _counts(meshes: list[Mesh], camera: Viewpoint) -> np.ndarray:
    """How much of each owner is seen, in every fourth pixel either way."""
    stage = Stage(meshes, camera)
    x0, y0, x1, y1 = stage.box
    columns, rows = np.meshgrid(np.arange(x0, x1, 4), np.arange(y0, y1, 4))
    if not columns.size:
        return np.zeros(len(meshes), np.int64)
    owners = stage.owners(stage.rays(np.stack([columns.ravel(), rows.ravel()], axis=1)))
    return np.bincount(owners[owners >= 0], minlength=len(meshes))


@functools.lru_cache(maxsize=1)
def _from_model() -> np.ndarray:
    return map_joints("smplx", _SET).index


def _joints(settings: Settings, actor: Actor) -> np.ndarray:
    """(133, 3) metres in the camera's space; NaN for an outline that the model file does not give."""
    index = _from_model()
    joints = np.where((index >= 0)[:, None], actor.joints[index], np.float32(np.nan))
    if actor.body.is_open or settings.regressor:
        joints[:17] = actor.regressed(settings.regressor or "coco-17")
    outline = contour_points(actor, kinship.turned_by(actor, _HEAD).as_matrix(), np.zeros(3))
    if outline is not None:
        joints[_CONTOUR] = outline
    return joints


def _annotation(
    rng: np.random.Generator,
    settings: Settings,
    camera: Viewpoint,
    picture: Picture,
    number: int,
    actor: Actor,
    joints: np.ndarray,
) -> dict[str, Any]:
    """One person as COCO-WholeBody annotates it: 2 for joints that are seen, 1 for hidden, 0 for left out."""
    pixels = camera.project(joints)
    flags = _flags(camera, picture, number, joints, pixels)
    mask = picture.owner == number
    ann: dict[str, Any] = {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box_of_mask(mask),
        "area": float(mask.sum()),
        "foot_valid": bool((flags[_PARTS["foot_kpts"]] > 0).any()),
    }
    for part in ("face", "lefthand", "righthand"):
        rows = _PARTS[f"{part}_kpts"]
        known = np.isfinite(pixels[rows][:, 0])
        box = box_of_points(pixels[rows][known], camera.size) if known.any() else [0.0] * 4
        share = (flags[rows][known] == 2).mean() if known.any() else 0.0
        valid = bool(share >= _SHARE_SEEN and min(box[2:]) >= _SMALLEST_BOX)
        ann[f"{part}_valid"] = valid
        ann[f"{part}_box"] = box if valid else [0.0, 0.0, 0.0, 0.0]
        if not valid:
            flags[rows] = 0
    flags[rng.random(len(flags)) < settings.missing] = 0
    noisy = pixels + settings.noise * rng.normal(0, 1, pixels.shape)
    labelled = np.where((flags > 0)[:, None], noisy, 0.0)
    for field, rows in _PARTS.items():
        ann[field] = np.concatenate([labelled[rows], flags[rows, None]], axis=1).ravel().round(4).tolist()
    ann["num_keypoints"] = int((flags[_PARTS["keypoints"]] > 0).sum())
    return ann


def _flags(
    camera: Viewpoint, picture: Picture, number: int, joints: np.ndarray, pixels: np.ndarray
) -> np.ndarray:
    """(133,) int: 2 seen, 1 behind something or somebody, 0 outside the image or not known."""
    width, height = camera.size
    x, y = pixels.T
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)  # not so where they are NaN
    flags = np.zeros(len(joints), np.int64)
    flags[inside] = 1
    column, row = np.rint(np.where(inside[:, None], pixels, 0)).astype(int).T
    reach = np.concatenate([np.full(s.stop - s.start, _DEPTHS[name]) for name, s in _PARTS.items()])
    in_front = picture.depth[row, column] < joints[:, 2] - reach
    others = (picture.owner[row, column] >= 0) & (picture.owner[row, column] != number)
    others &= picture.depth[row, column] < joints[:, 2]
    flags[inside & ~in_front & ~others] = 2
    return flags


def _truth(settings: Settings, actor: Actor, camera: Viewpoint) -> dict[str, Any]:
    fits: dict[str, Any] = {"smplx": leaf_with_camera(actor, camera)}
    fits["smplx"]["smplx_param"] |= {"lhand_valid": True, "rhand_valid": True, "face_valid": True}
    if settings.body_models is None:
        fits["mano"] = {side: leaf_with_camera(kinship.hand_of(actor, side), camera) for side in SIDES}
        fits["flame"] = leaf_with_camera(kinship.face_of(actor), camera)
    return fits
