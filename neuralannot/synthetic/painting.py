"""Meshes with coloured vertices, drawn: one camera, one light, shadows, soft outlines, a camera's noise.

Rays are cast on the CPU (embree), all meshes of a picture in one scene, so that what is nearer hides what is
behind it. Pixel convention as in `neuralannot.raycast`: the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralannot.raycast import bands
from neuralannot.synthetic.viewpoints import Viewpoint

NOBODY = -1
_SELF_SHADOW_OFFSET = 0.004  # metres that a shadow ray starts off the surface
_NOISE_TILE = 512  # px


@dataclass(frozen=True, eq=False)
class Mesh:
    """`vertices` (V, 3) metres in the world; `faces` (F, 3); `colours` (V, 3) 0 to 1; `owner`: whose pixels
    its are in `Picture.owner`: 0 and up for people, NOBODY for what only stands there.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    owner: int = NOBODY


@dataclass(frozen=True, eq=False)
class Light:
    """`direction` (3,) towards the lamp, in the world; `colour` (3,) of it; `sky` and `ground` (3,) of the
    light from above and below.
    """

    direction: np.ndarray
    colour: np.ndarray
    sky: np.ndarray
    ground: np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """`image` (H, W, 3) float32 0 to 1; `owner` (H, W) int16, NOBODY where no person is; `depth` (H, W)
    float32 metres, inf where no mesh is.
    """

    image: np.ndarray
    owner: np.ndarray
    depth: np.ndarray


def random_light(rng: np.random.Generator, *, indoors: bool) -> Light:
    """A lamp or sun somewhere above, warm or cold, hard or soft."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.35, 1.3)
    direction = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    warmth = rng.normal(0, 0.07)
    tint = np.array([1 + warmth, 1, 1 - warmth])
    hardness = rng.uniform(0.25, 0.7) * (0.8 if indoors else 1.0)
    sky = (1.05 - 0.75 * hardness) * np.array([1 - warmth / 2, 1, 1 + warmth / 2])
    ground = sky * rng.uniform(0.45, 0.75)
    return Light(direction, tint * hardness, sky, ground)


class Stage:
    """The meshes of one picture as a camera sees them. Meshes that do not reach into view cost nothing."""

    def __init__(self, meshes: Sequence[Mesh], camera: Viewpoint) -> None:
        self.camera = camera
        self.box = (0, 0, 0, 0)
        seen = [(mesh, camera.see(mesh.vertices.astype(np.float32))) for mesh in meshes]
        boxes = [_box(points, camera) for _, points in seen]
        inside = [(mesh, points) for (mesh, points), box in zip(seen, boxes, strict=True) if box is not None]
        found = [box for box in boxes if box is not None]
        if not found:
            return
        low, high = np.min([b[:2] for b in found], axis=0), np.max([b[2:] for b in found], axis=0)
        self.box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        self._build(inside)

    def _build(self, seen: list[tuple[Mesh, np.ndarray]]) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        counts = np.cumsum([0, *(len(points) for _, points in seen)])
        vertices = np.ascontiguousarray(np.concatenate([points for _, points in seen]), np.float32)
        faces = np.concatenate([m.faces + first for (m, _), first in zip(seen, counts, strict=False)])
        self._faces = np.ascontiguousarray(faces, np.int32)
        self._scene = EmbreeScene()
        self._geometry = TriangleMesh(self._scene, vertices, self._faces)
        colours = np.concatenate([mesh.colours for mesh, _ in seen]).astype(np.float32)
        normals = _vertex_normals(vertices, self._faces)
        self._values = np.concatenate([colours, normals], axis=1)
        self._owners = np.repeat([mesh.owner for mesh, _ in seen], [len(mesh.faces) for mesh, _ in seen])

    def rays(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) px -> (n, 3) directions with z = 1, float32."""
        rays = np.ones((len(points), 3), np.float32)
        rays[:, :2] = (points - self.camera.princpt) / self.camera.focal
        return rays

    def trace(self, rays: np.ndarray, light: Light) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(n, 3) rays -> indices (m,) of those that hit, and of these colour (m, 3), owner, depth (m,)."""
        found = self._scene.run(np.zeros_like(rays), rays, output=True)
        hit = np.flatnonzero(found["primID"] >= 0)
        prims = found["primID"][hit]
        u, v, depth = found["u"][hit, None], found["v"][hit, None], found["tfar"][hit]
        corners = self._values[self._faces[prims]]
        values = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        towards = rays[hit]
        normals = _unit(values[:, 3:])
        # Seen from behind, for instance through an open mesh's cut: the inside, whose normal points away.
        away = np.einsum("ni,ni->n", normals, towards) > 0
        normals[away] *= -1
        shade = self._shade(towards * depth[:, None], normals, light)
        return hit, values[:, :3] * shade, self._owners[prims], depth

    def owners(self, rays: np.ndarray) -> np.ndarray:
        """(n,) whose the mesh is that each of (n, 3) rays meets first; NOBODY where none."""
        prims = self._scene.run(np.zeros_like(rays), rays, query="INTERSECT")
        return np.where(prims >= 0, self._owners[prims], NOBODY)

    def _shade(self, points: np.ndarray, normals: np.ndarray, light: Light) -> np.ndarray:
        R = self.camera.R.astype(np.float32)
        lamp, up = R @ light.direction.astype(np.float32), R[:, 2]
        above = (0.5 + 0.5 * (normals @ up))[:, None]
        ambient = above * light.sky.astype(np.float32) + (1 - above) * light.ground.astype(np.float32)
        facing = normals @ lamp
        lit = np.clip((facing + 0.15) / 1.15, 0, 1)
        rows = np.flatnonzero(facing > 0.02)
        if len(rows):
            starts = points[rows] + normals[rows] * np.float32(_SELF_SHADOW_OFFSET)
            blocked = self._scene.run(starts, np.tile(lamp, (len(rows), 1)), query="OCCLUDED") >= 0
            lit[rows[blocked]] *= 0.25
        colours: np.ndarray = ambient + lit[:, None] * light.colour.astype(np.float32)
        return colours


def paint(meshes: Sequence[Mesh], camera: Viewpoint, background: np.ndarray, light: Light) -> Picture:
    """Draw meshes over a background (H, W, 3) float32 0 to 1, which is left as it is."""
    width, height = camera.size
    image = background.copy()
    owner = np.full((height, width), NOBODY, np.int16)
    depth = np.full((height, width), np.inf, np.float32)
    stage = Stage(meshes, camera)
    x0, y0, x1, y1 = stage.box
    for top, bottom in bands(y0, y1, x1 - x0):
        columns, rows = np.meshgrid(np.arange(x0, x1), np.arange(top, bottom))
        pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
        hit, colours, owners, depths = stage.trace(stage.rays(pixels), light)
        at = pixels[hit, 1], pixels[hit, 0]
        image[at], owner[at], depth[at] = colours, owners, depths
    if x1 > x0:
        _soften_outlines(stage, image, background, depth, light)
    return Picture(image, owner, depth)


def _soften_outlines(
    stage: Stage, image: np.ndarray, background: np.ndarray, depth: np.ndarray, light: Light
) -> None:
    """Give pixels where the depth jumps the mean of four rays."""
    x0, y0, x1, y1 = stage.box
    near = np.where(np.isfinite(depth[y0:y1, x0:x1]), depth[y0:y1, x0:x1], np.float32(1e3))
    jump = np.zeros(near.shape, bool)
    across = np.abs(np.diff(near, axis=1)) > 0.03
    along = np.abs(np.diff(near, axis=0)) > 0.03
    jump[:, 1:] |= across
    jump[:, :-1] |= across
    jump[1:] |= along
    jump[:-1] |= along
    rows, columns = np.nonzero(jump)
    if not len(rows):
        return
    rows, columns = rows + y0, columns + x0
    total = np.zeros((len(rows), 3), np.float32)
    for dx, dy in ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)):
        colour = background[rows, columns].copy()
        hit, colours, _, _ = stage.trace(stage.rays(np.stack([columns + dx, rows + dy], axis=1)), light)
        colour[hit] = colours
        total += colour
    image[rows, columns] = total / 4


def cast_shadow(
    background: np.ndarray, meshes: Sequence[Mesh], camera: Viewpoint, light: Light, *, floor: float = 0.0
) -> np.ndarray:
    """The background with the meshes' shadows on the floor z = `floor`, soft; a new array."""
    import cv2

    height, width = background.shape[:2]
    shrink = max(1, min(width, height) // 128)
    mask = np.zeros((-(-height // shrink), -(-width // shrink)), np.uint8)
    down = light.direction / light.direction[2]
    for mesh in meshes:
        points = mesh.vertices[::2]
        on_floor = points - (points[:, 2:] - floor) * down
        seen = camera.see(on_floor)
        pixels = camera.project(seen[seen[:, 2] > 0.2]) / shrink
        pixels = np.rint(pixels[(np.abs(pixels) < 1e4).all(axis=1)]).astype(int)
        inside = ((pixels >= 0) & (pixels < mask.shape[::-1])).all(axis=1)
        mask[pixels[inside, 1], pixels[inside, 0]] = 255
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    soft = cv2.GaussianBlur(mask, (0, 0), 1.2)
    strength = float(light.colour.mean() / (light.colour.mean() + light.sky.mean()))
    shade = 1 - strength * 0.8 * cv2.resize(soft, (width, height)).astype(np.float32) / 255
    return background * shade[..., None]


def finish(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera does to a picture: exposure, some blur, some noise. (H, W, 3) float32 -> uint8."""
    import cv2

    height, width = image.shape[:2]
    image = image * np.float32(np.exp(rng.normal(0, 0.08)))
    sigma = rng.uniform(0, 0.9) * min(height, width) / 640 - 0.15
    if sigma > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    tile = _noise_tile()
    dy, dx = rng.integers(0, _NOISE_TILE, 2)
    repeats = -(-(height + dy) // _NOISE_TILE), -(-(width + dx) // _NOISE_TILE), 1
    grain = np.tile(tile, repeats)[dy : dy + height, dx : dx + width]
    image = image * 255 + grain * np.float32(rng.uniform(0.5, 5.0))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def encode_jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """(H, W, 3) uint8 RGB -> a JPEG of everyday quality."""
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(82, 96))]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)
    if not done:
        raise ValueError(f"opencv could not encode an image of shape {image.shape}")
    return data.tobytes()


@functools.lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((_NOISE_TILE, _NOISE_TILE, 3), np.float32)


def _box(points: np.ndarray, camera: Viewpoint) -> tuple[int, int, int, int] | None:
    """The pixels that a mesh can touch: all, where it reaches through the camera's plane."""
    size = np.array(camera.size)
    depth = points[:, 2]
    if (depth <= 0).all():
        return None
    if (depth <= 0.01).any():
        return 0, 0, camera.size[0], camera.size[1]
    pixels = camera.project(points.astype(np.float64))
    low = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, size).astype(int)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    numbers = faces.T.ravel()
    sums = [np.bincount(numbers, np.tile(face_normals[:, k], 3), len(vertices)) for k in range(3)]
    return _unit(np.stack(sums, axis=1).astype(np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("ni,ni->n", vectors, vectors))[:, None]
    return vectors / np.where(lengths > 0, lengths, 1)
