"""Backgrounds made by code: rooms, places outdoors, dark studios, walls out of focus.

All are (H, W, 3) float32 0 to 1 and follow the camera: floors and walls lie where the world has them.
"""

from __future__ import annotations

import functools

import numpy as np

from neuralannot.synthetic.viewpoints import Viewpoint
from neuralannot.synthetic.wardrobe import random_colour

_TILE = 512  # px of a noise texture
_FAR = 60.0  # metres to where the floor outdoors ends


def room(rng: np.random.Generator, camera: Viewpoint, *, half_side: float = 7.0) -> np.ndarray:
    """Four walls, a floor, a ceiling, some pictures on the walls. `half_side`: metres from the middle."""
    origin, directions, shape = _rays(camera)
    height = rng.uniform(2.7, 4.0)
    sides = half_side * rng.uniform(0.95, 1.2, 4)
    low = np.array([-sides[0], -sides[1], 0.0], np.float32)
    high = np.array([sides[2], sides[3], height], np.float32)
    origin = np.clip(origin, low + 0.1, high - 0.1)
    bound = np.where(directions > 0, high, low)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(directions != 0, (bound - origin) / directions, np.inf)
    axis = reach.argmin(axis=1)
    points = origin + directions * reach.min(axis=1)[:, None]
    image = np.empty((len(points), 3), np.float32)
    wall, floor = _pale(rng), _muted(rng)
    for side in range(2):
        on = axis == side
        image[on] = wall * (0.93 if side else 1.0)
        u, v = points[on, 1 - side], points[on, 2]
        image[on] *= (0.9 + 0.1 * v / height)[:, None]
        for _ in range(rng.integers(0, 4)):
            left, width = rng.uniform(-half_side, half_side), rng.uniform(0.4, 2.5)
            bottom, tall = rng.uniform(0, 1.8), rng.uniform(0.4, 2.0)
            inside = (u > left) & (u < left + width) & (v > bottom) & (v < bottom + tall)
            rows = np.flatnonzero(on)[inside]
            image[rows] = _muted(rng)
    ground = (axis == 2) & (directions[:, 2] < 0)
    image[ground] = floor * _floor_pattern(rng, points[ground])[:, None]
    image[(axis == 2) & ~ground] = 0.9
    image *= (1 + 0.03 * _texture(points[:, 0] + points[:, 1], points[:, 2]))[:, None]
    return _sized(image.reshape(*shape, 3), camera)


def outdoors(rng: np.random.Generator, camera: Viewpoint) -> np.ndarray:
    """Ground to the horizon, sky with clouds, blocks and bushes between."""
    import cv2

    origin, directions, shape = _rays(camera)
    elevation = directions[:, 2] / np.linalg.norm(directions, axis=1)
    zenith, horizon = np.array([0.35, 0.55, 0.9]), np.array([0.8, 0.87, 0.95])
    haze = rng.uniform(0, 0.8)
    zenith = zenith * (1 - haze) + haze * 0.8
    share = np.clip(elevation * 2, 0, 1)[:, None]
    image = horizon * (1 - share) + zenith * share
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    clouds = np.clip(_texture(azimuth * 2, elevation * 7), 0, 1) * rng.uniform(0, 0.6)
    image = image * (1 - clouds[:, None]) + clouds[:, None]
    # Blocks and bushes on the horizon, as heights over the azimuth.
    for _ in range(rng.integers(2, 7)):
        colour = random_colour(rng) * 0.6 + 0.1
        if rng.random() < 0.5:
            centre, half = rng.uniform(-np.pi, np.pi), rng.uniform(0.05, 0.35)
            there = np.abs(np.angle(np.exp(1j * (azimuth - centre)))) < half
            there &= elevation < rng.uniform(0.05, 0.4)
            light = 1 + 0.15 * np.sign(np.sin(azimuth * 60)) * np.sign(np.sin(elevation * 90))
        else:
            colour = np.array([0.2, 0.35, 0.15]) * rng.uniform(0.5, 1.3)
            tall = rng.uniform(0.05, 0.2)
            there = elevation < tall * (0.6 + 0.4 * _texture(azimuth * 3, np.zeros_like(azimuth)))
            light = 1 + 0.3 * _texture(azimuth * 12, elevation * 30)
        image[there] = (colour * light[:, None])[there]
    with np.errstate(divide="ignore"):
        reach = np.where(directions[:, 2] < -1e-4, -origin[2] / directions[:, 2], np.inf)
    ground = reach < _FAR
    points = origin + directions[ground] * reach[ground, None]
    kinds = ([0.35, 0.45, 0.2], [0.5, 0.5, 0.5], [0.7, 0.62, 0.45], [0.45, 0.33, 0.22])
    soil = np.array(kinds[rng.integers(4)]) * rng.uniform(0.7, 1.2)
    image[ground] = soil * (_floor_pattern(rng, points) * (1 + 0.2 * _texture(*points[:, :2].T)))[:, None]
    far = np.clip(reach[ground] / _FAR, 0, 1)[:, None] ** 2
    image[ground] = image[ground] * (1 - far) + horizon * 0.85 * far
    picture = _sized(image.reshape(*shape, 3), camera)
    blur = rng.uniform(0, 2.0) * min(camera.size) / 640
    return cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0.4 else picture


def dark_studio(rng: np.random.Generator, camera: Viewpoint) -> np.ndarray:
    """A black dome with lamps in it, out of focus, as behind InterHand2.6M's hands; some are grey."""
    _, directions, shape = _rays(camera)
    directions = directions / np.linalg.norm(directions, axis=1)[:, None]
    level = rng.uniform(0.02, 0.12) if rng.random() < 0.75 else rng.uniform(0.15, 0.5)
    tint = np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.05, 3)
    image = np.tile(level * tint, (len(directions), 1))
    lamps = rng.normal(0, 1, (40, 3))
    lamps /= np.linalg.norm(lamps, axis=1)[:, None]
    nearest = (directions @ lamps.T).max(axis=1)
    glow = np.exp((nearest - 1) * rng.uniform(600, 2500))[:, None]
    image = image + glow * rng.uniform(0.3, 0.9)
    image *= (1 + 0.2 * _texture(directions[:, 0] * 4, directions[:, 1] * 4 + directions[:, 2]))[:, None]
    return _sized(image.reshape(*shape, 3), camera)


def out_of_focus(rng: np.random.Generator, camera: Viewpoint) -> np.ndarray:
    """Large soft patches of colour, as behind a portrait."""
    import cv2

    width, height = camera.size
    size = int(rng.integers(2, 8))
    patches = np.stack([random_colour(rng) for _ in range(size * size)]).reshape(size, size, 3)
    patches = patches * rng.uniform(0.3, 1.0) + random_colour(rng) * rng.uniform(0, 0.5)
    way = cv2.INTER_CUBIC if rng.random() < 0.8 else cv2.INTER_LINEAR
    image = cv2.resize(patches.astype(np.float32), (width, height), interpolation=way)
    return np.clip(image, 0, 1)


def _rays(camera: Viewpoint) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The camera's position (3,), directions (n, 3) in the world of every other pixel, and their (h, w)."""
    width, height = camera.size
    shape = (height + 1) // 2, (width + 1) // 2
    x = (2 * np.arange(shape[1]) + 0.5 - camera.princpt[0]) / camera.focal[0]
    y = (2 * np.arange(shape[0]) + 0.5 - camera.princpt[1]) / camera.focal[1]
    R = camera.R.astype(np.float32)
    across, down = x.astype(np.float32)[:, None] * R[0], y.astype(np.float32)[:, None] * R[1] + R[2]
    return camera.position.astype(np.float32), (across + down[:, None]).reshape(-1, 3), shape


def _sized(image: np.ndarray, camera: Viewpoint) -> np.ndarray:
    import cv2

    width, height = camera.size
    doubled = cv2.resize(image.astype(np.float32), (image.shape[1] * 2, image.shape[0] * 2))
    return np.clip(doubled[:height, :width], 0, 1)


def _floor_pattern(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """(n,) about 1: plain, tiles, or boards, with wear."""
    kind, side = rng.integers(3), rng.uniform(0.3, 1.2)
    value = np.ones(len(points))
    if kind == 1:
        value += 0.12 * np.sign(np.sin(np.pi * points[:, 0] / side) * np.sin(np.pi * points[:, 1] / side))
    elif kind == 2:
        value -= 0.25 * (np.abs(np.mod(points[:, 0] / (side / 3), 1) - 0.5) > 0.47)
    return value * (1 + 0.15 * _texture(points[:, 0], points[:, 1]))


def _texture(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(n,) about -1 to 1: noise of many sizes at these coordinates, the texture's side being 4 units."""
    tile = _noise()
    scale = _TILE / 4
    return tile[np.floor(v * scale).astype(np.int64) % _TILE, np.floor(u * scale).astype(np.int64) % _TILE]


@functools.lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """(_TILE, _TILE) float32 that repeats without a seam: octaves of smoothed noise."""
    rng = np.random.default_rng(1)
    frequencies = np.fft.fftfreq(_TILE)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE))) / (radius + 0.004) ** 1.0
    noise = np.fft.ifft2(spectrum).real
    scaled: np.ndarray = (noise / (2.5 * noise.std())).astype(np.float32)
    return scaled


def _pale(rng: np.random.Generator) -> np.ndarray:
    return random_colour(rng) * 0.35 + rng.uniform(0.35, 0.6)


def _muted(rng: np.random.Generator) -> np.ndarray:
    colour = random_colour(rng)
    muted: np.ndarray = 0.4 * colour + 0.6 * colour.mean() * np.array([1.05, 1.0, 0.92]) + 0.05
    return muted
