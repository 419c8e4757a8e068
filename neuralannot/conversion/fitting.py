"""From a mesh in a body's own topology to the body's parameters, by Gauss-Newton without a Jacobian.

Skinned vertices are linear in the joints' transforms, so that the normal equations of all rotations, the
shape and the translation need only sums over vertices of products of two places and two skinning weights:
*moments* of pairs of joints that share vertices, some 80 pairs of SMPL's and 180 of SMPL-X's. Turning joint j
by a small w moves vertex v by w x a_vj, where a_vj is the part of the vertex that hangs on the joint, seen
from it; such sums of what hangs on a joint are added up along the kinematic tree. Vertices themselves are
only posed, and compared. Pose correctives are held during a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from neuralannot.conversion.rig import NUM_BETAS, Rig

# A code is held to where it starts as if all vertices stood this far off, metres a unit.
_HOLD = 1e-5
_ENOUGH, _CLOSE = 0.99, 1e-6  # metres
_DAMPING = 1e-6
_CAUTIOUS = 1e-2
_UNIQUE = (0, 1, 2, 6, 1, 3, 4, 7, 2, 4, 5, 8, 6, 7, 8, 9)  # xx xy xz yy yz zz x y z 1 -> 4 x 4
_CROSS = ((1, 2), (2, 0), (0, 1))


@dataclass(frozen=True, eq=False)
class Pose:
    """B bodies: `rotations` (B, J, 3, 3) local, `betas` (B, 10), `transl` (B, 3) metres."""

    rotations: Tensor
    betas: Tensor
    transl: Tensor


class Fitter:
    """Fits a rig to the places of some of its vertices.

    `vertices` (M,) int64: which of the rig's; `importance` (M,): how much each counts; `free` the joints that
    may turn, all others stay as they start.
    """

    def __init__(self, rig: Rig, vertices: np.ndarray, importance: np.ndarray, free: list[int]) -> None:
        self.vertices = torch.tensor(vertices)
        self.rig = rig.take(self.vertices)
        kind = rig.template.dtype
        weights = self.rig.weights
        self._u = torch.tensor(importance / importance.sum(), dtype=kind)
        self._above = torch.tensor(rig.parents).clamp_min(0)
        self._frozen = torch.tensor(
            [joint for joint in range(rig.num_joints) if joint not in free], dtype=torch.int64
        )
        self._pairs = ((weights.T @ weights) > 0).triu().nonzero().T.contiguous()  # (2, P)
        a, b = self._pairs
        self._of_pairs = (self._u[:, None] * weights[:, a] * weights[:, b]).T.contiguous()  # (P, n)
        self._of_joints = (self._u[:, None] * weights).T.contiguous()  # (J, n)
        mixed = (a != b).nonzero()[:, 0]
        # Pairs in both orders: of which joint, with which, and the pair's number.
        self._both = torch.stack(
            [torch.cat([a, b[mixed]]), torch.cat([b, a[mixed]]), torch.cat([torch.arange(len(a)), mixed])]
        )
        # Sums that no pose changes: of shape directions with each other and with places at rest, which are
        # the template, directions times codes, and 1.
        shapes = self.rig.shapes.transpose(1, 2).flatten(1)  # (n, 30)
        outer = self._of_pairs @ (shapes[:, :, None] * shapes[:, None]).flatten(1)
        outer = outer.view(-1, NUM_BETAS, 3, NUM_BETAS, 3)
        rest = torch.cat([self.rig.template, torch.ones_like(self.rig.template[:, :1])], 1)
        rest_shapes = self._of_pairs @ (rest[:, :, None] * shapes[:, None]).flatten(1)
        grown = torch.nn.functional.pad(outer.transpose(0, 1), (0, 0, 0, 0, 0, 1))  # (10, P, 4, 10, 3)
        self._rest_shapes = torch.cat([rest_shapes.view(1, -1), grown.flatten(1)])
        halved = outer * torch.where(a == b, 0.5, 1.0).to(kind)[:, None, None, None, None]
        self._shape_shapes = halved.permute(0, 2, 4, 1, 3).reshape(-1, NUM_BETAS**2)

    def to(self, device: str | torch.device) -> Fitter:
        """The fitter moved to a device, itself."""
        self.rig = self.rig.to(device)
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def __call__(self, target: Tensor, start: Pose, *, steps: int) -> tuple[Pose, Tensor]:
        """(B, M, 3) metres, the vertices' places -> the best pose met in at most `steps` steps, and its mean
        squared distance (B,) square metres, weighted by importance.

        It ends when a step takes no more than a hundredth off any body's. Rows with NaN in them come back as
        they start, with NaN for a distance.
        """
        goal = target.permute(1, 2, 0).contiguous()
        state = _State(self.rig, start, goal)
        best, least = start, self._cost(state)
        for _ in range(steps):
            state = _State(self.rig, self._step(state, start.betas), goal)
            cost = self._cost(state)
            best = _chosen(cost < least, state.pose, best)
            done = not (cost < _ENOUGH * least - _CLOSE**2).any()
            least = torch.where(cost < least, cost, least)
            if done:
                break
        return best, least

    def start(self, target: Tensor) -> Pose:
        """(B, M, 3) metres, the vertices' places -> a pose to start from where nothing is known of it.

        Each joint's rotation is the one that takes its vertices at rest to their places best (Kabsch); the
        shape is the mean one.
        """
        rig, goal = self.rig, target.permute(1, 2, 0).contiguous()
        batch, count = len(target), rig.num_joints
        total = self._of_joints.sum(1).clamp_min(1e-12)
        means = (self._of_joints @ goal.flatten(1)).view(count, 3, batch) / total[:, None, None]
        rest = self._of_joints @ rig.template / total[:, None]
        outer = (rig.template[:, None, :, None] * goal[:, :, None]).flatten(1)  # y p^T
        spread = (self._of_joints @ outer).view(count, 3, 3, batch)
        spread = spread - (total[:, None, None] * means)[:, :, None] * rest[:, None, :, None]
        # A body that is not there must not stop the others' decomposition.
        turned = roma.special_procrustes(spread.permute(3, 0, 1, 2).nan_to_num())
        rotations = rig.rotations({"global_orient": rig.mean.new_zeros(batch, 3)})
        above: list[Tensor] = []
        frozen = set(self._frozen.tolist())
        for joint, parent in enumerate(rig.parents):
            over = torch.eye(3).to(rotations).expand(batch, 3, 3) if parent < 0 else above[parent]
            if joint not in frozen:
                rotations[:, joint] = over.transpose(1, 2) @ turned[:, joint]
            above.append(over @ rotations[:, joint])
        pose = Pose(rotations, rotations.new_zeros(batch, NUM_BETAS), rotations.new_zeros(batch, 3))
        off = _State(rig, pose, goal).off
        return Pose(rotations, pose.betas, torch.einsum("n,ncb->bc", self._u, off))

    def _cost(self, state: _State) -> Tensor:
        return torch.einsum("n,ncb->b", self._u, state.off.square())

    def _step(self, state: _State, hold: Tensor) -> Pose:
        """One Gauss-Newton step of the free joints' rotations, the shape and the translation."""
        pose, batch = state.pose, len(hold)
        matrix, right = self._normal_equations(state, hold)
        found = _solved(matrix, right)
        turn, grow, move = found.split([3 * self.rig.num_joints, NUM_BETAS, 3], 1)
        small = roma.rotvec_to_rotmat(turn.reshape(batch, -1, 3))
        above = state.turned[:, self._above].clone()
        above[:, 0] = torch.eye(3).to(above)  # nothing is above the root
        rotations = above.transpose(-1, -2) @ small @ above @ pose.rotations
        rotations = roma.special_gramschmidt(rotations[..., :2])  # what is rounded would add up
        return Pose(rotations, pose.betas + grow, pose.transl + move)

    def _normal_equations(self, state: _State, hold: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, K) and (B, K), unknowns in the order of turns (3 J), shape (10), translation (3)."""
        batch, size = len(hold), 3 * self.rig.num_joints
        like, eye = state.off, torch.eye(3).to(state.off)
        turns, sums, first = self._turns(state)
        shape_turns, shape_moves, shape_shapes = self._shapes(state, first)
        matrix = like.new_empty(batch, size + NUM_BETAS + 3, size + NUM_BETAS + 3)
        shape, move = slice(size, size + NUM_BETAS), slice(size + NUM_BETAS, None)
        matrix[:, :size, :size] = turns
        matrix[:, shape, shape] = shape_shapes + _HOLD**2 * torch.eye(NUM_BETAS).to(like)
        matrix[:, move, move] = eye
        for rows, columns, block in (
            (slice(0, size), shape, shape_turns),
            (slice(0, size), move, _crosses(sums).reshape(batch, size, 3)),
            (shape, move, shape_moves),
        ):
            matrix[:, rows, columns] = block
            matrix[:, columns, rows] = block.transpose(1, 2)
        # What the vertices' distances ask for.
        off = state.off
        outer = torch.cat([(state.unposed[:, :, None] * off[:, None]).flatten(1, 2), off], 1)  # p r^T, r
        pulls = (self._of_joints @ outer.flatten(1)).view(-1, 12, batch).permute(0, 2, 1)
        pulls = pulls.reshape(-1, batch, 4, 3)
        grow = torch.einsum("jbc,bjcs->bs", pulls[..., 3, :], state.moved)
        back = (state.turning * off[:, :, None]).sum(1)  # (n, 3, B)
        weighted = self.rig.shapes * self._u[:, None, None]
        grow += (weighted.flatten(0, 1).T @ back.flatten(0, 1)).T + _HOLD**2 * (hold - state.pose.betas)
        pulls = self._hanging(state.transforms @ pulls)
        turn = _seen_from(state.placed.transpose(0, 1), pulls).transpose(0, 1).flatten(1)
        right = torch.cat([turn, grow, pulls[0, :, 3]], 1)
        # A joint that may not turn: no equation speaks of it.
        still = (3 * self._frozen[:, None] + torch.arange(3, device=like.device)).flatten()
        matrix[:, still], matrix[:, :, still], right[:, still] = 0, 0, 0
        return matrix, right

    def _turns(self, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3 J, 3 J) of turns with turns, (B, J, 3) sums of a_vj over vertices, and of pairs (P, B, 4):
        the sums of unposed places.
        """
        batch, count = state.off.shape[2], self.rig.num_joints
        x, y, z = state.unposed.unbind(1)
        products = torch.stack([x * x, x * y, x * z, y * y, y * z, z * z, x, y, z, torch.ones_like(x)], 1)
        unposed = (self._of_pairs @ products.flatten(1)).view(-1, 10, batch)
        unposed = unposed[:, list(_UNIQUE)].permute(0, 2, 1).reshape(-1, batch, 4, 4)
        a, b = self._pairs
        pairs = (state.transforms[a] @ unposed @ state.transforms[b].transpose(-1, -2)).permute(2, 3, 0, 1)
        moments = pairs.new_zeros(4, 4, count, count, batch)
        moments[:, :, b, a] = pairs.transpose(0, 1)
        moments[:, :, a, b] = pairs
        self._hanging(moments.permute(2, 0, 1, 3, 4))
        self._hanging(moments.permute(3, 0, 1, 2, 4))
        at = state.placed.permute(2, 1, 0)  # (3, J, B)
        one, other = at[:, :, None], at[:, None]
        # From the origin to each joint.
        partly = torch.addcmul(moments[:3, 3], one, moments[3, 3], value=-1)
        seen = torch.addcmul(moments[:3, :3], one[:, None], moments[3, :3], value=-1)
        seen = seen.addcmul_(partly[:, None], other, value=-1)
        blocks = seen.neg()
        blocks.diagonal(dim1=0, dim2=1).add_(seen.diagonal(dim1=0, dim2=1).sum(-1, keepdim=True))
        # The root has all of every vertex.
        sums = moments[:3, 3, :, 0] - at * moments[3, 3, :, 0]
        turns = blocks.permute(4, 2, 1, 3, 0).reshape(batch, 3 * count, 3 * count)
        return turns, sums.permute(2, 1, 0), unposed[..., 3]

    def _hanging(self, values: Tensor) -> Tensor:
        """(J, ...), changed in place: to each joint's what is of the joints that hang on it is added."""
        for joint in range(self.rig.num_joints - 1, 0, -1):
            values[self.rig.parents[joint]] += values[joint]
        return values

    def _shapes(self, state: _State, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the shape with turns (B, 3 J, 10), with the translation (B, 10, 3), with itself (B, 10, 10).

        Where it meets turns, places at rest are without correctives: these would have to be summed anew for
        every body, and a step is as good without.
        """
        batch, count = state.off.shape[2], self.rig.num_joints
        one, other, pair = self._both
        turned = state.turned.transpose(0, 1)  # (J, B, 3, 3)
        moved = state.moved.permute(1, 0, 3, 2)  # (J, B, 10, 3)
        betas = torch.cat([torch.ones_like(state.pose.betas[:, :1]), state.pose.betas], 1)
        rest = (betas @ self._rest_shapes).view(batch, len(first), 4 * NUM_BETAS, 3).transpose(0, 1)
        parts = (rest[pair] @ turned[other].transpose(-1, -2)).view(len(pair), batch, 4, NUM_BETAS, 3)
        sums = parts.new_zeros(count, batch, 4, NUM_BETAS, 3).index_add_(0, one, parts)
        stays = sums[:, :, 3].clone()  # (J, B, 10, 3)
        a, b = self._pairs
        between = first.new_zeros(count, count, batch, 4)
        between[a, b] = first
        between[b, a] = first
        together = between.permute(2, 0, 3, 1).reshape(batch, 4 * count, count)
        carried = together @ moved.transpose(0, 1).reshape(batch, count, -1)
        sums += carried.view(batch, count, 4, NUM_BETAS, 3).transpose(0, 1)
        shares = sums[:, :, 3]
        relative = (turned[a].transpose(-1, -2) @ turned[b]).transpose(0, 1).reshape(batch, -1)
        half = (relative @ self._shape_shapes).view(batch, NUM_BETAS, NUM_BETAS)
        shape_shapes = half + half.transpose(1, 2)
        shape_shapes += torch.einsum("jbsc,jbtc->bst", moved, shares)
        shape_shapes += torch.einsum("jbsc,jbtc->bst", stays, moved)
        hanging = self._hanging((state.transforms @ sums.view(count, batch, 4, -1)).view(sums.shape))
        at = state.placed.transpose(0, 1)[:, :, None]
        turns = _seen_from(at, hanging.transpose(2, 3))  # (J, B, 10, 3)
        return turns.permute(1, 0, 3, 2).reshape(batch, -1, NUM_BETAS), hanging[0, :, 3], shape_shapes


class _State:
    """A rig in a pose, and how far from its goal it is."""

    def __init__(self, rig: Rig, pose: Pose, goal: Tensor) -> None:
        self.pose = pose
        rest = rig.rest_joints(pose.betas)
        self.turned, placed = rig.chain(pose.rotations, rest)
        self.placed = placed + pose.transl[:, None]
        # How the joints' transforms move with a unit of shape.
        self.moved = rig.joint_moves(self.turned) - self.turned @ rig.joint_shapes
        self.unposed = rig.unposed(pose.rotations, pose.betas)
        shift = self.placed - (self.turned @ rest[..., None])[..., 0]
        upper = torch.cat([self.turned, shift[..., None]], -1)
        last = upper.new_tensor([0, 0, 0, 1]).expand(*upper.shape[:2], 1, 4)
        self.transforms = torch.cat([upper, last], 2).transpose(0, 1)  # (J, B, 4, 4)
        self.turning, carried = rig.blended(self.turned, shift)
        self.off = goal - _applied(self.turning, self.unposed, carried)


def _applied(turning: Tensor, points: Tensor, shift: Tensor) -> Tensor:
    for axis in range(3):
        shift = torch.addcmul(shift, turning[:, :, axis], points[:, axis, None])
    return shift


def _seen_from(at: Tensor, sums: Tensor) -> Tensor:
    """(..., 3) places of joints, (..., 4, 3) sums of y r^T and of r -> (..., 3) sums of (y - place) x r."""
    arms = sums[..., :3, :] - at[..., None] * sums[..., 3:, :]
    return torch.stack([arms[..., i, j] - arms[..., j, i] for i, j in _CROSS], -1)


def _crosses(vectors: Tensor) -> Tensor:
    """(..., 3) u -> (..., 3, 3) of u x (.)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(*x.shape, 3, 3)


def _chosen(first: Tensor, one: Pose, other: Pose) -> Pose:
    return Pose(
        torch.where(first[:, None, None, None], one.rotations, other.rotations),
        torch.where(first[:, None], one.betas, other.betas),
        torch.where(first[:, None], one.transl, other.transl),
    )


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """(B, K, K) symmetric, (B, K) -> (B, K); unknowns that nothing speaks of stay zero."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 1e-14, diagonal, torch.ones_like(diagonal)).rsqrt()
    scaled = scale[:, :, None] * matrix * scale[:, None]
    found, wrong = _by_cholesky(scaled, scale * right, _DAMPING)
    if wrong.any():
        careful, lost = _by_cholesky(scaled, scale * right, _CAUTIOUS)
        found = torch.where(wrong[:, None], torch.where(lost[:, None], 0.0, careful), found)
    return found * scale


def _by_cholesky(matrix: Tensor, right: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    eye = torch.eye(matrix.shape[1]).to(matrix)
    factor, info = torch.linalg.cholesky_ex(matrix + damping * eye)
    found = torch.cholesky_solve(right[..., None], factor)[..., 0]
    return found, (info != 0) | ~found.isfinite().all(1)
