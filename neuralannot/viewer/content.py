"""What is shown for a row: meshes, joints, cameras, texts and where to look from, decided without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.quality.ground import UP
from neuralannot.viewer.colours import FIT, OTHER, error_colours, legend
from neuralannot.viewer.facts import (
    Distance,
    distance,
    distance_facts,
    error_facts,
    facts_html,
    row_facts,
)
from neuralannot.viewer.listing import name_of
from neuralannot.viewer.photos import OF_OTHER_CAMERAS, Drawn, Photo, Photos, overlay
from neuralannot.viewer.planes import Eye, Frustum, Placed, beside, eye_through, frustum, turned_beside
from neuralannot.viewer.posing import Body
from neuralannot.viewer.source import Source, Stage, stage_of
from neuralannot.viewer.truth import Truth, in_image

__all__ = ["COLOURS", "LAYOUTS", "VIEWS", "Content", "Wish", "decide"]

#: Where to look from: the camera of the row, the same and only the person, around it, the whole capture.
VIEWS = ("camera", "person", "around", "world")
#: Two files beside each other, or both in one place.
LAYOUTS = ("side by side", "on each other")
#: What meshes are coloured by: the file, or how far the two files' vertices are apart.
COLOURS = ("file", "vertex distance", "vertex distance, roots aligned")
_ALIGNED = COLOURS[2]
_AHEAD = 8


@dataclass(frozen=True)
class Wish:
    """What a user asks to see.

    `row` of the first file; `view` of `VIEWS`; `mesh`, `joints`, `errors` (joint errors), `overlay` (the
    projection drawn on the image), `image`; `layout` of `LAYOUTS`; `colours` of `COLOURS`; `opacity` of
    meshes; `limit`: where the colours of errors end, mm or px, None for 100 mm (hands and faces 20), 20 px.
    Raises ValueError for a view, layout or colours that are none.
    """

    row: int
    view: str = "camera"
    mesh: bool = True
    joints: bool = False
    errors: bool = False
    overlay: bool = False
    image: bool = True
    layout: str = LAYOUTS[0]
    colours: str = COLOURS[0]
    opacity: float = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("view", VIEWS), ("layout", LAYOUTS), ("colours", COLOURS)):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, got {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class Mesh:
    """`vertices` (V, 3) metres, `faces` (F, 3), `colours`: (3,) or (V, 3) uint8 RGB."""

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    opacity: float


@dataclass(frozen=True, eq=False)
class Dots:
    """`points` (N, 3) metres, `colours` (N, 3) uint8 RGB, `size` metres."""

    name: str
    points: np.ndarray
    colours: np.ndarray
    size: float


@dataclass(frozen=True, eq=False)
class Strokes:
    """`ends` (N, 2, 3) metres, `colours` (N, 2, 3) uint8 RGB, `size` metres."""

    name: str
    ends: np.ndarray
    colours: np.ndarray
    size: float


@dataclass(frozen=True, eq=False)
class Plane:
    """A camera's frustum, the `pixels` on its plane (None: only its outline), and its `text`."""

    name: str
    frustum: Frustum
    pixels: np.ndarray | None
    text: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Group:
    """Things of one file, moved together by `placed`."""

    name: str
    placed: Placed
    meshes: tuple[Mesh, ...] = ()
    dots: tuple[Dots, ...] = ()
    strokes: tuple[Strokes, ...] = ()
    planes: tuple[Plane, ...] = ()
    texts: tuple[tuple[str, np.ndarray], ...] = ()


@dataclass(frozen=True, eq=False)
class Floor:
    """The plane where the coordinate `axis` is `height`, metres, drawn about `centre` (3,)."""

    axis: int
    height: float
    centre: np.ndarray


@dataclass(frozen=True, eq=False)
class Content:
    """All that is shown: `groups`, one a file; `facts` and `legend` as HTML; `missing`, sentences."""

    groups: tuple[Group, ...]
    eye: Eye
    up: np.ndarray
    floor: Floor | None
    facts: str
    legend: str
    missing: tuple[str, ...]


@dataclass(eq=False)
class _Cast:
    """The people of one file on the stage."""

    source: Source
    colour: tuple[int, int, int]
    rows: list[int]
    bodies: list[Body]
    vertices: list[np.ndarray]
    truth: Truth | None = None
    tones: dict[int, np.ndarray] = field(default_factory=dict)


def decide(sources: tuple[Source, ...], photos: Photos, wish: Wish) -> Content:
    """What is shown of one file, or of two that are compared, the row being the first's.

    What cannot be shown is left out and said in `missing`. Raises IndexError for a row that is not there.
    """
    missing: list[str] = []
    first = sources[0]
    stage = stage_of(first, wish.row)
    casts = [_cast(first, wish.row, stage, FIT, missing)]
    if len(sources) > 1:
        row = sources[1].same_row(first, wish.row)
        if row is None:
            missing.append(f"{name_of(first.gt, wish.row)} is not in {sources[1].name}")
        else:
            casts.append(_cast(sources[1], row, stage, OTHER, missing))
    view = _view(wish, stage, first, missing)
    photo = photos.photo(first.shots.image_path(wish.row), _annotated_size(first, wish.row))
    if photo.problem:
        missing.append(f"image: {photo.problem}")
    if first.truths.problem:
        missing.append(f"joint errors: {first.truths.problem}")
    for cast in casts:
        cast.truth = cast.source.truths.of(cast.rows[0])
    box = _box(wish, stage, photo, casts)
    notes = _distances(casts, wish, missing)
    groups = _groups(wish, view, stage, photos, photo, box, casts, missing)
    facts = row_facts(first, wish.row, np.array(casts[0].rows)) + error_facts(casts[0].truth)
    if len(casts) > 1:
        facts += [(f"{casts[1].source.name}: {n}", said) for n, said in error_facts(casts[1].truth)]
    eye = _eye(view, stage, box, casts, groups, wish)
    floor = _floor(first, wish.row, casts)
    return Content(
        groups,
        eye,
        stage.up,
        floor,
        facts_html(facts + notes, missing),
        _legend(wish, casts),
        tuple(missing),
    )


def _cast(source: Source, row: int, stage: Stage, colour: tuple[int, int, int], missing: list[str]) -> _Cast:
    """`row` and the others of its image, those that can be placed."""
    people = [row, *(int(r) for r in source.shots.people(row) if r != row)]
    timeline = source.shots.timeline(row)
    ahead = None
    if timeline is not None:
        at = np.flatnonzero(timeline.rows == row)
        ahead = timeline.rows[at[0] + 1 : at[0] + 1 + _AHEAD] if len(at) else None
    found = _Cast(source, colour, [], [], [])
    for r, body in zip(people, source.bodies(np.array(people), ahead), strict=True):
        try:
            vertices = source.staged(body.vertices, r, stage)
        except ValueError as error:
            missing.append(f"{name_of(source.gt, r)} of {source.name}: {error}")
            continue
        if not np.isfinite(vertices).all():
            missing.append(
                f"{name_of(source.gt, r)} of {source.name}: its parameters or place are no numbers"
            )
            continue
        found.rows.append(r)
        found.bodies.append(body)
        found.vertices.append(vertices)
    if not found.rows or found.rows[0] != row:
        found.rows.insert(0, row)
        found.bodies.insert(0, source.bodies(np.array([row]))[0])
        found.vertices.insert(0, np.zeros((0, 3), np.float32))
    return found


def _view(wish: Wish, stage: Stage, source: Source, missing: list[str]) -> str:
    if stage.camera is None:
        missing.append(f"cameras: {source.gt.camera_problem}")
        return "around" if wish.view in ("camera", "person") else wish.view
    return "around" if wish.view == "world" and stage.space == "camera" else wish.view


def _annotated_size(source: Source, row: int) -> np.ndarray:
    one = source.gt.rows([row])
    return one.image_size[0] if one.joined and "ann/image_size" in one.view else np.zeros(2)


# --- places


def _all_points(casts: list[_Cast]) -> np.ndarray:
    points = np.concatenate([v for cast in casts for v in cast.vertices])
    return points if len(points) else np.zeros((1, 3), np.float32)


def _before(stage: Stage, points: np.ndarray) -> np.ndarray:
    """Points of the stage in its camera's frame."""
    assert stage.camera is not None
    return stage.camera.world_to_camera(points[None])[0]


def _box(wish: Wish, stage: Stage, photo: Photo, casts: list[_Cast]) -> np.ndarray:
    """(4,) px of the image that is shown: all of it, or the person and what is around it."""
    if stage.camera is None:
        return np.array([0.0, 0, 1, 1])
    size = photo.size if (photo.size > 0).all() else 2 * stage.camera.princpt[0].astype(float)
    whole = np.array([0, 0, *np.maximum(size, 1)], float)
    if wish.view == "camera":
        return whole
    seen = [_before(stage, cast.vertices[0]) for cast in casts if len(cast.vertices[0])]
    pixels = stage.camera.project(np.concatenate(seen)[None])[0] if seen else np.zeros((0, 2))
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels):
        return whole
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = 0.12 * (high - low).max()
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, whole[2:])
    if (high - low < 2).any():
        return whole
    return photo.snapped(np.array([*low, *(high - low)], float))


def _depths(stage: Stage, casts: list[_Cast]) -> tuple[float, float]:
    """The nearest and the farthest of the people before the camera, metres."""
    depth = _before(stage, _all_points(casts))[:, 2]
    depth = depth[depth > 0]
    return (float(depth.min()), float(depth.max())) if len(depth) else (1.0, 2.0)


def _plane_depth(view: str, stage: Stage, casts: list[_Cast]) -> float:
    """Behind the people where one looks at them through the camera; near the camera in a room of them."""
    near, far = _depths(stage, casts)
    if stage.space == "world" and view in ("around", "world"):
        return 0.13 * (near + far) / 2
    return far + 0.1 * (far - near)


def _extent(casts: list[_Cast]) -> float:
    """How large the shown person is, metres."""
    vertices = next((cast.vertices[0] for cast in casts if len(cast.vertices[0])), np.zeros((1, 3)))
    return max(float(np.ptp(vertices, axis=0).max()), 1e-3)


def _floor(source: Source, row: int, casts: list[_Cast]) -> Floor | None:
    height = source.floor(row)
    if height is None:
        return None
    axis = UP[source.gt.catalogued.data_set]
    centre = _all_points(casts).mean(axis=0).astype(float)
    centre[axis] = height
    return Floor(axis, height, np.round(centre))


# --- colours


def _limit(wish: Wish, cast: _Cast, unit: str) -> float:
    if wish.limit is not None:
        return wish.limit
    return 20.0 if unit == "px" or cast.source.gt.model in ("mano", "flame") else 100.0


def _distances(casts: list[_Cast], wish: Wish, missing: list[str]) -> list[tuple[str, str]]:
    """Colours of both files' meshes by their distance, and what is said of it."""
    if len(casts) < 2:
        if wish.colours != COLOURS[0]:
            missing.append("vertex distances: there is no second file to compare with")
        return []
    first, second = casts
    facts: list[tuple[str, str]] = []
    problem = ""
    for k, row in enumerate(first.rows):
        other = second.source.same_row(first.source, row)
        if other is None or other not in second.rows:
            continue
        found = distance(first.source, row, second.source, other)
        if not isinstance(found, Distance):
            problem = found
            continue
        if k == 0:
            facts = distance_facts(second.source.name, found)
        if wish.colours != COLOURS[0]:
            values = found.aligned if wish.colours == _ALIGNED else found.placed
            tones = error_colours(1000 * values, _limit(wish, first, "mm"))
            first.tones[row] = second.tones[other] = tones
    if problem:
        missing.append(problem)
    return facts


def _legend(wish: Wish, casts: list[_Cast]) -> str:
    strips = []
    if wish.colours != COLOURS[0] and casts[0].tones:
        strips.append(legend(wish.colours, _limit(wish, casts[0], "mm"), "mm"))
    truth = casts[0].truth
    if wish.errors and truth is not None:
        strips.append(legend("joint error", _limit(wish, casts[0], truth.unit), truth.unit))
    return f'<div style="font-size:.8em;padding:0 .75em">{"".join(strips)}</div>' if strips else ""


# --- groups


def _groups(
    wish: Wish,
    view: str,
    stage: Stage,
    photos: Photos,
    photo: Photo,
    box: np.ndarray,
    casts: list[_Cast],
    missing: list[str],
) -> tuple[Group, ...]:
    apart = len(casts) > 1 and wish.layout == LAYOUTS[0]
    groups = []
    for k, cast in enumerate(casts):
        group = _people(cast, wish, stage, f"file{k + 1}", named=len(casts) > 1)
        if stage.camera is not None and (k == 0 or apart):
            shown = casts if not apart else [cast]
            group = replace(
                group, planes=_planes(wish, view, stage, photos, photo, box, shown, casts, k, missing)
            )
        if apart:
            group = replace(group, placed=_apart(view, stage, box, casts, 2 * k - 1))
        groups.append(group)
    return tuple(groups)


def _apart(view: str, stage: Stage, box: np.ndarray, casts: list[_Cast], side: int) -> Placed:
    if stage.camera is not None and (stage.space == "camera" or view in ("camera", "person")):
        return turned_beside(stage.camera, box, side)
    right = _right(stage, casts)
    width = float(np.ptp(_all_points(casts) @ right))
    return beside(right, 1.15 * width, side)


def _right(stage: Stage, casts: list[_Cast]) -> np.ndarray:
    """(3,) across what is seen from around, level."""
    right = np.cross(-_outward(stage, casts), stage.up)
    return right / np.linalg.norm(right)


def _outward(stage: Stage, casts: list[_Cast]) -> np.ndarray:
    """(3,) unit: from the people to where one looks at them from around, off the camera and a little above."""
    up = stage.up
    toward = np.array([0.3, -1.0, 0.2]) - np.dot([0.3, -1.0, 0.2], up) * up
    if stage.camera is not None:
        apex = frustum(stage.camera, np.array([0, 0, 1, 1]), 1.0).apex
        level = apex - _all_points(casts).mean(axis=0)
        level = level - level @ up * up
        toward = level if np.linalg.norm(level) > 1e-3 else toward
    toward = toward / np.linalg.norm(toward)
    angle = np.radians(32)
    level = toward * np.cos(angle) + np.cross(up, toward) * np.sin(angle)
    return level * np.cos(np.radians(14)) + up * np.sin(np.radians(14))


def _people(cast: _Cast, wish: Wish, stage: Stage, group: str, *, named: bool) -> Group:
    size = _extent([cast])
    meshes, dots, strokes, texts = [], [], [], []
    for k, (row, body, vertices) in enumerate(zip(cast.rows, cast.bodies, cast.vertices, strict=True)):
        if not len(vertices):
            continue
        # Those who are only on the same image are paler.
        colour = np.array(cast.colour if k == 0 else _paler(cast.colour), np.uint8)
        if wish.mesh:
            opacity = wish.opacity if not (wish.joints or wish.errors) else min(wish.opacity, 0.55)
            meshes.append(Mesh(f"mesh{k}", vertices, body.faces, cast.tones.get(row, colour), opacity))
        if wish.joints:
            joints = cast.source.staged(body.joints, row, stage)
            dark = (colour * 0.55).astype(np.uint8)
            dots.append(Dots(f"joints{k}", joints, np.tile(dark, (len(joints), 1)), 0.012 * size))
            ends = joints[np.array(body.edges)]
            strokes.append(Strokes(f"bones{k}", ends, np.tile(dark, (len(ends), 2, 1)), 0.005 * size))
        top = vertices[np.argmax(vertices @ stage.up)] + 0.06 * size * stage.up
        text = name_of(cast.source.gt, row)
        texts.append((f"{text}, {cast.source.name}" if named else text, top))
    if wish.errors and cast.truth is not None:
        found = _error_marks(cast, wish, stage, size)
        dots += found[0]
        strokes += found[1]
    return Group(group, Placed.still(), tuple(meshes), tuple(dots), tuple(strokes), (), tuple(texts))


def _paler(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple((2 * c + 3 * 215) // 5 for c in colour)  # type: ignore[return-value]


def _error_marks(cast: _Cast, wish: Wish, stage: Stage, size: float) -> tuple[list[Dots], list[Strokes]]:
    """The annotated joints in the colours of their errors, each with a line to the fit's."""
    truth = cast.truth
    assert truth is not None
    tones = error_colours(truth.shown_errors, _limit(wish, cast, truth.unit))
    posed = cast.source.staged(truth.posed, cast.rows[0], stage)
    if not truth.in_world:
        known = np.isfinite(posed).all(axis=1) & ~np.isnan(truth.errors)
        return [Dots("errors", posed[known], tones[known], 0.016 * size)], []
    points = truth.points
    if stage.space == "camera":
        points = _before(stage, points)
    there = np.isfinite(points).all(axis=1)
    both = there & np.isfinite(posed).all(axis=1)
    ends = np.stack([points[both], posed[both]], axis=1)
    colours = np.repeat(tones[both][:, None], 2, axis=1)
    strokes = [Strokes("errors", ends, colours, 0.008 * size)] if both.any() else []
    bones = np.array([e for e in truth.edges if there[list(e)].all()], int).reshape(-1, 2)
    if len(bones):
        tone = np.full((len(bones), 2, 3), (40, 130, 60), np.uint8)
        strokes.append(Strokes("annotated", points[bones], tone, 0.004 * size))
    return [Dots("errors", points[there], tones[there], 0.016 * size)], strokes


def _planes(
    wish: Wish,
    view: str,
    stage: Stage,
    photos: Photos,
    photo: Photo,
    box: np.ndarray,
    drawn: list[_Cast],
    casts: list[_Cast],
    k: int,
    missing: list[str],
) -> tuple[Plane, ...]:
    """The image's plane; in a room of cameras also theirs, with what they saw of the frame."""
    assert stage.camera is not None
    source, row = casts[0].source, casts[0].rows[0]
    depth = _plane_depth(view, stage, casts)
    room = stage.space == "world" and view in ("around", "world")
    if room and k:
        return ()
    cut = len(casts) > 1 and wish.layout == LAYOUTS[0] and not room and wish.view != "camera"
    part = box if cut else _whole(photo, stage.camera)
    number = source.shots.camera_name(row)
    own = Plane(
        "image",
        frustum(stage.camera, part, depth),
        _pixels(wish, stage, photo, part, drawn),
        "" if photo.pixels is not None else f"no image{', camera ' + number if number else ''}",
        (40, 60, 110),
    )
    return (own, *_other_cameras(wish, photos, source, row, photo, depth, missing)) if room else (own,)


def _whole(photo: Photo, camera: Camera) -> np.ndarray:
    if (photo.size > 0).all():
        return photo.box
    return np.array([0, 0, *np.maximum(2 * camera.princpt[0].astype(float), 1)])


def _pixels(
    wish: Wish, stage: Stage, photo: Photo, part: np.ndarray, drawn: list[_Cast]
) -> np.ndarray | None:
    if not wish.image or photo.pixels is None:
        return None
    shown = photo
    if wish.overlay or wish.errors:
        assert stage.camera is not None
        camera = stage.camera
        people = []
        for cast in drawn:
            for n, (body, vertices) in enumerate(zip(cast.bodies, cast.vertices, strict=True)):
                if not len(vertices):
                    continue
                one = Drawn(_before(stage, vertices), body.faces, _at_origin(camera), cast.colour)
                truth = cast.truth
                if n == 0 and truth is not None:
                    tones = error_colours(truth.shown_errors, _limit(wish, cast, truth.unit))
                    annotated = in_image(truth, cast.source.camera(cast.rows[0]))
                    one = replace(one, joints=truth.pixels, annotated=annotated, tones=tones)
                people.append(one)
        pixels = overlay(photo, people, mesh=wish.overlay, joints=wish.errors)
        shown = replace(photo, pixels=pixels)
    return shown.cut(part)


def _at_origin(camera: Camera) -> Camera:
    return Camera.from_intrinsics(camera.focal, camera.princpt)


def _other_cameras(
    wish: Wish, photos: Photos, source: Source, row: int, photo: Photo, depth: float, missing: list[str]
) -> list[Plane]:
    """The other cameras of the capture, with their images of this frame where those are there."""
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
        size, pixels = photo.size, None
        if name in rows:
            seen = photos.photo(
                source.shots.image_path(rows[name]),
                _annotated_size(source, rows[name]),
                largest=OF_OTHER_CAMERAS,
            )
            size = seen.size
            pixels = seen.pixels if wish.image else None
            if seen.pixels is None:
                lacking.append(name)
        if not (size > 0).all():
            size = np.maximum(2 * camera.princpt[0].astype(float), 1)
        box = np.array([0, 0, *size], float)
        planes.append(
            Plane(f"camera{name}", frustum(camera, box, depth), pixels, f"camera {name}", (90, 90, 90))
        )
    if lacking and not photo.problem:
        missing.append(f"images of cameras {', '.join(lacking)}: not in the image folder, or broken")
    return planes


# --- where to look from


def _eye(
    view: str, stage: Stage, box: np.ndarray, casts: list[_Cast], groups: tuple[Group, ...], wish: Wish
) -> Eye:
    if view in ("camera", "person"):
        assert stage.camera is not None
        eye = eye_through(stage.camera, box, 0.5 * _depths(stage, casts)[0])
        if len(casts) > 1 and wish.layout == LAYOUTS[0]:
            wide = np.tan(min(2 * np.arctan(eye.half[0]), np.radians(75)))
            eye = replace(eye, half=np.array([wide, eye.half[1]]))
        return eye
    points = np.concatenate([g.placed(m.vertices) for g in groups for m in g.meshes] or [_all_points(casts)])
    if view == "world":
        seen = [g.placed(p.frustum.corners) for g in groups for p in g.planes]
        seen += [g.placed(p.frustum.apex[None]) for g in groups for p in g.planes]
        points = np.concatenate([points, *seen])
    outward = _outward(stage, casts)
    if view == "world":
        outward = outward * np.cos(np.radians(20)) + stage.up * np.sin(np.radians(20))
        outward = outward / np.linalg.norm(outward)
    low, high = points.min(axis=0), points.max(axis=0)
    target = (low + high) / 2
    half = np.tan(np.radians(20))
    away = 0.55 * float(np.linalg.norm(high - low)) / np.sin(np.radians(20))
    position = target + outward * max(away, 1e-2)
    return Eye(position, target, stage.up, np.array([half, half]), 0.02 * max(away, 1e-2))
