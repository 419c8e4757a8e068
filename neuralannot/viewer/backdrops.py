"""Image planes: of the image that is shown, and of the other cameras of a room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.viewer.cast import Cast
from neuralannot.viewer.colours import error_colours
from neuralannot.viewer.photos import OF_OTHER_CAMERAS, Drawn, Photos, overlay
from neuralannot.viewer.planes import frustum
from neuralannot.viewer.source import Source
from neuralannot.viewer.take import Take
from neuralannot.viewer.things import Plane
from neuralannot.viewer.truth import in_image

__all__ = ["annotated_size", "planes_of"]

_OWN, _OTHERS = (40, 60, 110), (90, 90, 90)
_IN_A_ROOM = 0.13  # of the way to the people: where planes stand in a room of cameras


def annotated_size(source: Source, row: int) -> np.ndarray:
    """(2,) width and height px of a row's image as annotated, 0 where they are not known."""
    one = source.gt.rows([row])
    return one.image_size[0] if one.joined and "ann/image_size" in one.view else np.zeros(2)


def planes_of(take: Take, number: int, photos: Photos, missing: list[str]) -> tuple[Plane, ...]:
    """The planes of the file `number`: the image, and in a room the other cameras of the capture with what
    they saw of the frame. What is not there is said in `missing`."""
    camera = take.stage.camera
    if camera is None or (number and (take.is_room or not take.is_beside)):
        return ()
    near, far = take.depths
    depth = _IN_A_ROOM * (near + far) / 2 if take.is_room else far + 0.1 * (far - near)
    cut = take.is_beside and not take.is_room
    part = take.box if cut or not (take.photo.size > 0).all() else take.photo.box
    pixels = _pixels(take, number, part)
    name = take.source.shots.camera_name(take.row)
    said = f"camera {name}" if take.is_room else ""
    if take.photo.pixels is None:
        said = f"{said}, no image" if said else "no image"
    own = Plane("image", frustum(camera, part, depth), pixels, said, _OWN)
    return (own, *_other_cameras(take, photos, depth, missing)) if take.is_room else (own,)


def _pixels(take: Take, number: int, part: np.ndarray) -> np.ndarray | None:
    """The part of the image, with what is to be drawn on it."""
    wish, photo = take.wish, take.photo
    if not wish.image or photo.pixels is None:
        return None
    if wish.overlay or wish.errors:
        casts = take.casts[number : number + 1] if take.is_beside and not take.is_room else take.casts
        people = [one for cast in casts for one in _drawn(take, cast)]
        photo = replace(photo, pixels=overlay(photo, people, mesh=wish.overlay, joints=wish.errors))
    return photo.cut(part)


def _drawn(take: Take, cast: Cast) -> list[Drawn]:
    """The people of a file as they are drawn on the image; joints of the first alone."""
    camera = take.stage.camera
    assert camera is not None
    own = Camera.from_intrinsics(camera.focal, camera.princpt)
    people = [
        Drawn(take.before(vertices), body.faces, own, cast.colour)
        for body, vertices in zip(cast.bodies, cast.vertices, strict=True)
        if len(vertices)
    ]
    truth = cast.truth
    if truth is None or not people or not len(cast.vertices[0]):
        return people
    tones = error_colours(truth.shown_errors, cast.limit(take.wish, truth.unit))
    annotated = in_image(truth, cast.source.camera(cast.rows[0]))
    return [replace(people[0], joints=truth.pixels, annotated=annotated, tones=tones), *people[1:]]


def _other_cameras(take: Take, photos: Photos, depth: float, missing: list[str]) -> list[Plane]:
    """The other cameras of the capture, with their images of this frame where those are there."""
    source, row = take.source, take.row
    cameras, names = source.shots.cameras(row)
    if cameras is None:
        return []
    rows = {source.shots.camera_name(int(r)): int(r) for r in source.shots.views(row)}
    own = source.shots.camera_name(row)
    planes, lacking = [], []
    for k, name in enumerate(names):
        if name == own:
            continue
        camera = cameras.rows([k])
        size, pixels = take.photo.size, None
        if name in rows:
            path = source.shots.image_path(rows[name])
            seen = photos.photo(path, annotated_size(source, rows[name]), largest=OF_OTHER_CAMERAS)
            size = seen.size
            pixels = seen.pixels if take.wish.image else None
            if seen.pixels is None:
                lacking.append(name)
        if not (size > 0).all():
            size = np.maximum(2 * camera.princpt[0].astype(float), 1)
        shape = frustum(camera, np.array([0, 0, *size], float), depth)
        planes.append(Plane(f"camera{name}", shape, pixels, f"camera {name}", _OTHERS))
    if lacking and not take.photo.problem:
        missing.append(f"images of cameras {', '.join(lacking)}: not in the image folder, or broken")
    return planes
