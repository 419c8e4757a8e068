"""Parts of one body in each other: balls inside the flesh that overlap.

Balls are laid into the body once: largest balls that touch the skin of the rest shape from inside without
passing through it (medial balls, found by shrinking: Ma, Bae and Choi 2012), thinned out. Each hangs on a
dozen points of the skin around it, so it moves and changes size with pose and shape; its radius goes with the
distance to the nearest of these points, so it stays in the flesh. Two balls of parts that are no neighbours
and that overlap are therefore flesh in flesh. The depth is the largest overlap.

Not found: parts that touch or press a little (balls end where flesh thins out), neighbours along a limb, such
as a calf against its thigh, the trunk in itself, and, of whole bodies, fingers of one hand in each other,
which are one part there; a MANO hand's fingers are looked at. Clothes and hair are not in the models.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from neuralannot.body_models.model import BodyModel, BodyPoints

__all__ = ["Balls", "PenetrationTest", "body_balls", "named_pairs", "penetration_test"]

_TRUNK = ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar", "neck")
_HEAD = ("head", "jaw", "left_eye_smplhf", "right_eye_smplhf")
_FINGERS = ("hand", "index", "middle", "pinky", "ring", "thumb")
_LIMBS = {"hip": "thigh", "knee": "shin", "shoulder": "upper_arm", "elbow": "forearm"}
_HANGERS = 14  # points of the skin that a ball hangs on
_BLOCK = 128  # bodies whose balls are compared at once
_SHRINKS = 40
# Two touching points seen from the centre under a smaller angle are one bump of the skin.
_LEAST_ANGLE = np.radians(70)
_SPACING = 0.75  # of a ball's radius: no other centre within
_SLACK = {"smpl": 0.02, "smplx": 0.02, "mano": 0.002}  # metres that balls must be apart at rest to be judged
_LEAST_RADIUS = {"smpl": 0.015, "smplx": 0.015, "mano": 0.003}


@dataclass(frozen=True, eq=False)
class Balls:
    """K balls of a body model.

    `vertices` (U,) int64: the skin's points that are needed; `hangers` (K, M) int64 among them; `weights`
    (K, M) that make the centre of them, adding up to 1; `reach` (K,) the radius as a share of the distance to
    the nearest of them, below 1 since triangles between the points are nearer; `radius` (K,) metres at rest;
    `part` (K,) number of the part; `parts`: their names; `pairs` (P, 2) int64: balls looked at together.
    """

    vertices: np.ndarray
    hangers: np.ndarray
    weights: np.ndarray
    reach: np.ndarray
    radius: np.ndarray
    part: np.ndarray
    parts: tuple[str, ...]
    pairs: np.ndarray


class PenetrationTest(nn.Module):
    """Parameters -> (B,) metres, how deep parts are in each other, 0 where they are not; and which.

    Made by `penetration_test`. Calls take the parameters of the body model.
    """

    hangers: Tensor
    weights: Tensor
    reach: Tensor
    judged: Tensor
    number: Tensor

    def __init__(self, points: BodyPoints, balls: Balls) -> None:
        super().__init__()
        self.points, self.balls = points, balls
        self.register_buffer("hangers", torch.tensor(balls.hangers), persistent=False)
        self.register_buffer("weights", torch.tensor(balls.weights).float(), persistent=False)
        self.register_buffer("reach", torch.tensor(balls.reach).float(), persistent=False)
        count, (one, other) = len(balls.part), balls.pairs.T
        # Added to overlaps: nothing, or what makes a pair that is not judged the last.
        judged = np.full((count, count), -np.inf, np.float32)
        judged[one, other] = 0
        number = np.full((count, count), -1, np.int64)
        number[one, other] = np.arange(len(one))
        self.register_buffer("judged", torch.tensor(judged), persistent=False)
        self.register_buffer("number", torch.tensor(number), persistent=False)

    def placed(self, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (B, K, 3) and radii (B, K), metres, of the posed body's balls."""
        skin = self.points(**parameters)
        around = skin[:, self.hangers]  # (B, K, M, 3)
        centre = (around * self.weights[..., None]).sum(2)
        return centre, self.reach * torch.linalg.vector_norm(around - centre[:, :, None], dim=-1).amin(2)

    def forward(self, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (B,) metres and the number (B,) of the pair that is deepest, -1 where none is."""
        centre, radius = self.placed(**parameters)
        found = [
            self._deepest(*some) for some in zip(centre.split(_BLOCK), radius.split(_BLOCK), strict=True)
        ]
        if not found or not len(self.balls.pairs):
            return centre.new_zeros(len(centre)), torch.full_like(centre[:, 0, 0], -1, dtype=torch.int64)
        depth, place = (torch.cat(values) for values in zip(*found, strict=True))
        pair = self.number.flatten()[place]
        return depth.clamp_min(0), torch.where(depth > 0, pair, -1)

    def _deepest(self, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the largest overlap of judged pairs, and its place among all K by K."""
        centre = centre - centre.mean(1, keepdim=True)  # products of small numbers round little
        square = centre.square().sum(-1)
        apart = torch.baddbmm(square[:, :, None], centre, centre.mT, alpha=-2).add_(square[:, None])
        overlap = (radius[:, :, None] + radius[:, None]).sub_(apart.clamp_min_(0).sqrt_())
        return overlap.add_(self.judged).flatten(1).max(1)


@functools.lru_cache(maxsize=16)
def penetration_test(model: BodyModel) -> PenetrationTest:
    """The test of a body model, made once. Raises ValueError for FLAME, whose head is one part."""
    balls = body_balls(model)
    where = model.J_regressor.device
    return PenetrationTest(model.points(balls.vertices), balls).to(where)


def body_balls(model: BodyModel) -> Balls:
    """Balls in the flesh of a model's mean shape at rest. Raises ValueError for FLAME."""
    if model.model == "flame":
        raise ValueError("flame is a head alone: no parts that could be in each other")
    vertices = model.v_template.detach().cpu().double().numpy()
    skinning = model.lbs_weights.detach().cpu().numpy()
    parents = model.parents.cpu().numpy()
    names = model.joint_names[: len(parents)]
    owner, parts = _parts(model.model, names)
    of_vertex = owner[skinning.argmax(1)]
    normals = _normals(vertices, model.faces)
    used = np.unique(model.faces)
    centre, radius = _medial_balls(vertices, normals, used)
    big = radius >= _LEAST_RADIUS[model.model]
    centre, radius = _thinned(centre[big], radius[big])
    hangers = np.stack([_hangers(vertices, used, c, r) for c, r in zip(centre, radius, strict=True)])
    weights = np.stack([_affine(vertices[h], c) for h, c in zip(hangers, centre, strict=True)])
    nearest = np.linalg.norm(vertices[hangers] - centre[:, None], axis=-1).min(1)
    reach = np.minimum(cKDTree(_on_surface(vertices, model.faces)).query(centre)[0] / nearest, 1)
    sums = np.zeros((len(centre), len(parts)))
    for column in range(hangers.shape[1]):
        np.add.at(sums, (np.arange(len(centre)), of_vertex[hangers[:, column]]), 1)
    part = sums.argmax(1)
    radius = reach * nearest
    pairs = _pairs(centre, radius, part, _neighbours(parents, owner, parts), _SLACK[model.model])
    chosen, numbers = np.unique(hangers, return_inverse=True)
    return Balls(chosen, numbers.reshape(hangers.shape), weights, reach, radius, part, parts, pairs)


def _parts(model: str, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The part of each joint, and the parts' names."""
    of_joint = []
    for name in names:
        side, _, kind = name.partition("_")
        if model == "mano":
            of_joint.append(name)
        elif name in _TRUNK:
            of_joint.append("trunk")
        elif name in _HEAD:
            of_joint.append("head")
        elif kind.rstrip("123") in _FINGERS or kind == "wrist":
            of_joint.append(f"{side}_hand")
        elif kind in ("ankle", "foot"):
            of_joint.append(f"{side}_foot")
        elif kind in _LIMBS:
            of_joint.append(f"{side}_{_LIMBS[kind]}")
        else:
            of_joint.append(name)
    parts = tuple(dict.fromkeys(of_joint))
    return np.array([parts.index(name) for name in of_joint]), parts


def _neighbours(parents: np.ndarray, owner: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    """(P, P) bool: parts that are one or that meet in a joint."""
    near = np.eye(len(parts), dtype=bool)
    for joint, parent in enumerate(parents.tolist()):
        if parent >= 0:
            near[owner[joint], owner[parent]] = near[owner[parent], owner[joint]] = True
    return near


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals that point out of the flesh."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(sums, faces[:, corner], across)
    middle = vertices.mean(0)
    if (across * (corners.mean(1) - middle)).sum() < 0:  # six times the volume: faces turned inside out
        sums = -sums
    normals: np.ndarray = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return normals


def _on_surface(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(P, 3) points all over the triangles: corners, middles of edges and of halves, and of the face."""
    corners = vertices[faces]
    shares = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4
    points: np.ndarray = np.einsum("sk,fkc->fsc", shares, corners).reshape(-1, 3)
    return points


def _medial_balls(
    vertices: np.ndarray, normals: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (B, 3), radii (B,): for each point of the skin the largest ball that touches it from inside."""
    points, inward = vertices[used], -normals[used]
    tree = cKDTree(points)
    radius = np.full(len(points), np.ptp(points, axis=0).max() / 4)
    angle = np.zeros(len(points))
    open_ = np.ones(len(points), bool)
    for _ in range(_SHRINKS):
        rows = np.flatnonzero(open_)
        if not len(rows):
            break
        centre = points[rows] + radius[rows, None] * inward[rows]
        distance, nearest = tree.query(centre)
        outside = (distance >= radius[rows] * (1 - 1e-3)) | (nearest == rows)
        toward = points[nearest] - points[rows]
        along = (toward * inward[rows]).sum(1)
        shrunk = (toward**2).sum(1) / np.maximum(2 * along, 1e-12)
        new = np.where(outside | (along <= 0), radius[rows], np.minimum(shrunk, radius[rows]))
        centre = points[rows] + new[:, None] * inward[rows]
        a, b = points[rows] - centre, points[nearest] - centre
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
        angle[rows] = np.where(outside, angle[rows], np.arccos(np.clip(cosine, -1, 1)))
        radius[rows] = new
        open_[rows[outside]] = False
    good = ~open_ & (angle > _LEAST_ANGLE)
    return (points + radius[:, None] * inward)[good], radius[good]


def _thinned(centre: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest balls first, and no centre deep in a ball that was taken."""
    taken: list[int] = []
    for ball in np.argsort(-radius, kind="stable"):
        apart = np.linalg.norm(centre[taken] - centre[ball], axis=1)
        if (apart > _SPACING * radius[taken]).all():
            taken.append(int(ball))
    return centre[taken], radius[taken]


def _hangers(vertices: np.ndarray, used: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Points of the skin all around a ball: the nearest, then each the farthest from those, seen from it."""
    away = vertices[used] - centre
    distance = np.linalg.norm(away, axis=1)
    near = np.flatnonzero(distance <= max(1.8 * radius, np.sort(distance)[_HANGERS]))
    direction = away[near] / distance[near, None]
    chosen = [int(distance[near].argmin())]
    alike = direction @ direction[chosen[0]] - 2 * radius / distance[near]
    for _ in range(_HANGERS - 1):
        chosen.append(int(alike.argmin()))
        alike = np.maximum(alike, direction @ direction[chosen[-1]] - 2 * radius / distance[near])
        alike[chosen] = np.inf
    return used[near[chosen]]


def _affine(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(M,) weights that add up to 1 and make `centre` of `points` (M, 3), as even as can be."""
    even = np.full(len(points), 1 / len(points))
    system = np.vstack([points.T, np.ones(len(points))])
    lacking = np.append(centre, 1.0) - system @ even
    weights: np.ndarray = even + np.linalg.lstsq(system, lacking, rcond=None)[0]
    return weights


def _pairs(
    centre: np.ndarray, radius: np.ndarray, part: np.ndarray, near: np.ndarray, slack: float
) -> np.ndarray:
    one, other = np.triu_indices(len(centre), 1)
    apart = np.linalg.norm(centre[one] - centre[other], axis=1) - radius[one] - radius[other]
    judged = ~near[part[one], part[other]] & (apart > slack)
    return np.stack([one[judged], other[judged]], axis=1)


def named_pairs(test: PenetrationTest, pair: np.ndarray) -> list[str]:
    """`left_hand and trunk` for the pair numbers (N,) of a test; empty text for -1."""
    balls = test.balls
    return [
        "" if p < 0 else " and ".join(balls.parts[int(balls.part[b])] for b in balls.pairs[p])
        for p in pair.tolist()
    ]
