"""People as meshes, joints and the errors of joints."""

from __future__ import annotations

import numpy as np

from neuralannot.joint_sets import JointSet
from neuralannot.viewer.cast import Cast
from neuralannot.viewer.colours import TRUTH, error_colours
from neuralannot.viewer.listing import name_of
from neuralannot.viewer.planes import Placed
from neuralannot.viewer.take import Take
from neuralannot.viewer.things import Dots, Group, Mesh, Strokes

__all__ = ["people_of"]

_SEEN_THROUGH = 0.55  # opacity of meshes, at most, where joints are in them
_SMALL_PARTS = (
    *("thumb", "index", "middle", "ring", "pinky"),
    *("brow", "nose", "eye", "mouth", "lip", "contour", "nostril"),
)
# Of a body's extent: balls' radii, strokes' widths, how far above a body its name stands.
_JOINT, _ERROR, _BONE, _OFF_BY, _ABOVE = 0.007, 0.008, 0.005, 0.006, 0.02


def people_of(take: Take, number: int) -> Group:
    """The people of the file `number`, each with its name above it, and the first's joint errors."""
    cast, wish = take.casts[number], take.wish
    size, up = cast.extent, take.stage.up
    meshes, dots, strokes, texts = [], [], [], []
    for k, (row, body, vertices) in enumerate(zip(cast.rows, cast.bodies, cast.vertices, strict=True)):
        if not len(vertices):
            continue
        # Those who are only on the same image are paler.
        colour = np.array(cast.colour if not k else [(2 * c + 3 * 215) // 5 for c in cast.colour], np.uint8)
        if wish.mesh:
            through = wish.joints or wish.errors
            opacity = min(wish.opacity, _SEEN_THROUGH) if through else wish.opacity
            meshes.append(Mesh(f"mesh{k}", vertices, body.faces, cast.tones.get(row, colour), opacity))
        if wish.joints:
            joints = cast.source.staged(body.joints, row, take.stage, body=body.vertices)
            sizes = _JOINT * size * _sizes(cast, body.joint_set)
            dark = (colour * 0.55).astype(np.uint8)
            dots.append(Dots(f"joints{k}", joints, np.tile(dark, (len(joints), 1)), sizes))
            ends = joints[np.array(body.joint_set.skeleton)]
            strokes.append(Strokes(f"bones{k}", ends, np.tile(dark, (len(ends), 2, 1)), _BONE * size))
        name = name_of(cast.source.gt, row)
        above = _ABOVE if take.is_beside else _ABOVE * (1 + 2 * number)  # two names in one place
        top = vertices[np.argmax(vertices @ up)] + above * size * up
        texts.append((f"{name}, {cast.source.name}" if len(take.casts) > 1 else name, top))
    if wish.errors and cast.truth is not None and len(cast.vertices[0]):
        found = _errors(take, cast)
        dots += found[0]
        strokes += found[1]
    name = f"file{number + 1}"
    return Group(name, Placed.still(), tuple(meshes), tuple(dots), tuple(strokes), (), tuple(texts))


def _sizes(cast: Cast, joint_set: JointSet) -> np.ndarray:
    """(K,) how large a joint's ball is: on bodies, those of fingers and faces are small."""
    if cast.source.gt.model in ("mano", "flame"):
        return np.ones(len(joint_set))
    small = [any(part in name for part in _SMALL_PARTS) for name in joint_set.joints]
    return np.where(small, 0.3, 1.0)


def _errors(take: Take, cast: Cast) -> tuple[list[Dots], list[Strokes]]:
    """The annotated joints in the colours of their errors, each with a line to the fit's.

    Keypoints have no place in space: the fit's joints stand for them.
    """
    truth, size = cast.truth, cast.extent
    assert truth is not None
    tones = error_colours(truth.shown_errors, cast.limit(take.wish, truth.unit))
    posed = cast.source.staged(truth.posed, cast.rows[0], take.stage, body=cast.bodies[0].vertices)
    sizes = _ERROR * size * _sizes(cast, truth.joint_set)
    if not truth.in_world:
        known = np.isfinite(posed).all(axis=1) & ~np.isnan(truth.errors)
        return [Dots("errors", posed[known], tones[known], sizes[known])], []
    points = truth.points if take.stage.space == "world" else take.before(truth.points)
    there = np.isfinite(points).all(axis=1)
    both = there & np.isfinite(posed).all(axis=1)
    ends = np.stack([points[both], posed[both]], axis=1)
    strokes = [Strokes("errors", ends, np.repeat(tones[both][:, None], 2, axis=1), _OFF_BY * size)]
    bones = np.array([edge for edge in truth.joint_set.skeleton if there[list(edge)].all()], int).reshape(
        -1, 2
    )
    green = np.tile(np.array(TRUTH, np.uint8), (len(bones), 2, 1))
    strokes.append(Strokes("annotated", points[bones], green, _BONE * size))
    dots = [Dots("errors", points[there], tones[there], sizes[there])]
    return dots, [some for some in strokes if len(some.ends)]
