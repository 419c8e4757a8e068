"""Skinned vertices: correctives and blend skinning, a block of vertices and a few bodies at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from neuralannot.body_models.precision import full_precision

# Vertices of a block, about: few enough that what one block makes stays in the processor's cache, enough that
# calling torch costs less than what is computed.
_BLOCK = 1024
# A block's vertices are a multiple of this: products whose rows begin aligned take a quarter less time.
_ALIGNED = 16
# Numbers of one block's transforms at a time: what keeps two cores busy from their caches.
_AT_ONCE = 12 * 131072
# Numbers that a thread keeps room for, twice.
_KEPT = 1 << 22
# Bodies up to which the correctives are three products rather than one.
_FEW = 48


class Block(nn.Module):
    """Neighbouring vertices (n) with the features and joints that move them.

    `directions`: (F', 3, n) metres a unit of feature; `weights`: (J', n); `features` (F',) and `joints` (J',)
    int64: which, None where all do.
    """

    directions: Tensor
    weights: Tensor
    features: Tensor | None
    joints: Tensor | None

    def __init__(self, directions: Tensor, weights: Tensor) -> None:
        super().__init__()
        # A row of zeros adds nothing: MANO's correctives in SMPL-X, say, on any vertex but a hand's.
        features = (directions != 0).any(2).any(1).nonzero()[:, 0]
        joints = (weights != 0).any(1).nonzero()[:, 0]
        every_feature, every_joint = len(features) == len(directions), len(joints) == len(weights)
        kept = directions if every_feature else directions[features]
        self.register_buffer("directions", kept.clone().contiguous(), persistent=False)
        self.register_buffer("weights", weights[joints].clone().contiguous(), persistent=False)
        self.register_buffer("features", None if every_feature else features, persistent=False)
        self.register_buffer("joints", None if every_joint else joints, persistent=False)


class Surface(nn.Module):
    """V vertices of a body as blocks.

    `directions`: (F, 3, V) metres: what each feature moves each vertex by, the first feature being always 1
    and its row the template; `weights`: (J, V) skinning weights. Called with features (B, F), the joints'
    transforms (B, J, 4, 4) and a shift (B, 3) metres it gives (B, V, 3) posed vertices, differentiable in all
    three, twice if need be. The shift comes last, as in smplx: far from the origin nothing else is rounded,
    and weights that add up to 1 but nearly do not scale it.
    """

    weights: Tensor

    def __init__(self, directions: Tensor, weights: Tensor, block: int = _BLOCK) -> None:
        super().__init__()
        vertices = directions.shape[2]
        self.num_features, self.num_vertices = len(directions), vertices
        size = -(-vertices // max(1, round(vertices / block)))
        size = -(-size // _ALIGNED) * _ALIGNED
        self.blocks = nn.ModuleList(
            Block(directions[:, :, first : first + size], weights[:, first : first + size])
            for first in range(0, vertices, max(size, 1))
        )
        self.register_buffer("weights", weights.clone().contiguous(), persistent=False)

    def forward(self, features: Tensor, transforms: Tensor, shift: Tensor) -> Tensor:
        if _takes_blocks(features, transforms, shift):
            inputs = (features, transforms, shift)
            if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
                posed: Tensor = _Posed.apply(*inputs, self)  # type: ignore[no-untyped-call]  # torch's
                return posed
            with full_precision(features.device.type):
                return _posed(*inputs, self)
        with full_precision(features.device.type):
            return _posed_plainly(features, transforms, shift, self.parts)

    @property
    def parts(self) -> tuple[Block, ...]:
        """The blocks, in the vertices' order."""
        return tuple(self.blocks)  # type: ignore[arg-type]

    def dense(self) -> tuple[Tensor, Tensor]:
        """`directions` (F, 3, V), put together again, and `weights` (J, V)."""
        directions = self.weights.new_zeros(self.num_features, 3, self.num_vertices)
        begin = 0
        for block in self.parts:
            end = begin + block.weights.shape[1]
            rows = slice(None) if block.features is None else block.features
            directions[rows, :, begin:end] = block.directions
            begin = end
        return directions, self.weights

    def take(self, vertices: Tensor) -> Surface:
        """The surface of these vertices, (M,) int64, alone and in this order."""
        directions, weights = self.dense()
        return Surface(directions[:, :, vertices], weights[:, vertices])

    def with_features(self, values: Tensor) -> Surface:
        """The surface with the M features after the first fixed at `values`, and no features any more."""
        directions, weights = self.dense()
        count = 1 + len(values)
        template = directions[0] + torch.tensordot(values, directions[1:count], 1)
        return Surface(torch.cat([template[None], directions[count:]]), weights)


def _takes_blocks(*inputs: Tensor) -> bool:
    """Whether to compute in place, block by block, which compilers and transforms do not see through."""
    if inputs[0].device.type != "cpu" or torch.compiler.is_compiling() or _is_transformed():
        return False
    # Fake ones, and whatever else stands for tensors, take the plain way.
    if any(type(value) not in (Tensor, nn.Parameter) for value in inputs):
        return False
    return all(unpack_dual(value).tangent is None for value in inputs)  # forward-mode differentiation


def _is_transformed() -> bool:
    """Whether `vmap`, `jacrev` and their like are at work."""
    return getattr(torch._C, "_are_functorch_transforms_active", bool)()


def _is_many(grad: Tensor) -> bool:
    """Whether it stands for several gradients at once: `is_grads_batched` of `torch.autograd.grad`."""
    return getattr(torch._C._functorch, "is_legacy_batchedtensor", bool)(grad)


class _Scratch(threading.local):
    """Memory for what is made in between, kept by each thread: fresh memory costs as much as the sums."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[str, torch.dtype], Tensor] = {}

    def room(self, name: str, count: int, like: Tensor) -> Tensor:
        """(count,) numbers of `like`'s type, whatever they are, until the same room is asked for again."""
        kept = self._rooms.get((name, like.dtype))
        if kept is None or len(kept) < count:
            with torch.inference_mode(False):  # what is made for inference only could not be used later
                kept = torch.empty(count, dtype=like.dtype)
            if count <= _KEPT:
                self._rooms[name, like.dtype] = kept
        return kept


_SCRATCH = _Scratch()


def _columns(transforms: Tensor) -> Tensor:
    """(B, J, 4, 4) -> (J, 4, 3, B): the columns of the transforms, each coordinate apart."""
    return transforms[:, :, :3].permute(1, 3, 2, 0)


def _posed_plainly(features: Tensor, transforms: Tensor, shift: Tensor, blocks: Sequence[Block]) -> Tensor:
    """What `_Posed` computes, in plain operations: for compilers, transforms and accelerators."""
    columns = transforms[:, :, :3].permute(3, 2, 0, 1)
    parts = []
    for block in blocks:
        chosen = columns if block.joints is None else columns.index_select(3, block.joints)
        rest = _unposed(_pick(features, 1, block.features), block.directions)
        blended = torch.matmul(chosen, block.weights)
        posed = blended[3]
        for axis in range(3):
            posed = torch.addcmul(posed, blended[axis], rest[axis])
        parts.append(posed.permute(1, 2, 0))
    if not parts:
        return features.new_zeros(len(features), 0, 3)
    return torch.cat(parts, 1) + shift[:, None]


def _unposed(features: Tensor, directions: Tensor, room: Tensor | None = None) -> Tensor:
    """(B, F') features, (F', 3, n) directions -> (3, B, n) vertices before skinning, in `room` if given."""
    batch, n = len(features), directions.shape[2]
    if batch <= _FEW:  # few rows leave one large product on one core; three small ones go to several
        return torch.bmm(features.expand(3, *features.shape), directions.transpose(0, 1))
    out = None if room is None else room[: 3 * batch * n].view(batch, 3 * n)
    return torch.mm(features, directions.flatten(1), out=out).view(batch, 3, n).transpose(0, 1)


def _skinned(surface: Surface, columns: Tensor, unposed: Iterator[Tensor], shift: Tensor) -> Tensor:
    """(B, V, 3) from each block's unposed vertices, (3, B, n) one after another; `shift` (3, B, 1)."""
    batch = columns.shape[3]
    out = shift.new_empty(batch, surface.num_vertices, 3)
    widest = max((block.weights.shape[1] for block in surface.parts), default=1)
    size = max(1, _AT_ONCE // (12 * widest))
    chunks = _some_at_a_time(columns, size)
    room = _SCRATCH.room("blended", 12 * widest * min(size, batch), shift)
    begin = 0
    for block, rest in zip(surface.parts, unposed, strict=True):
        n = block.weights.shape[1]
        for first, bodies, some in chunks:
            moving = _pick(some, 0, block.joints)
            blended = torch.mm(moving.T, block.weights, out=room[: 12 * bodies * n].view(-1, n))
            posed = _applied(blended, rest.narrow(1, first, bodies)).add_(shift.narrow(1, first, bodies))
            out.narrow(0, first, bodies).narrow(1, begin, n).copy_(posed.permute(1, 2, 0))
        begin += n
    return out


def _applied(blended: Tensor, rest: Tensor) -> Tensor:
    """(12 b, n) transforms of each vertex, (3, b, n) vertices -> (3, b, n), in the transforms' memory."""
    one, two, three, posed = blended.view(4, *rest.shape).unbind()
    x, y, z = rest.unbind()
    return posed.addcmul_(one, x).addcmul_(two, y).addcmul_(three, z)


def _pick(values: Tensor, dim: int, places: Tensor | None) -> Tensor:
    return values if places is None else values.index_select(dim, places)


def _some_at_a_time(columns: Tensor, size: int) -> list[tuple[int, int, Tensor]]:
    """(J, k, 3, B) columns -> first body, how many, (J, k * 3 * b): as many bodies as the cache likes."""
    batch = columns.shape[3]
    if batch <= size:
        return [(0, batch, columns.reshape(len(columns), -1))]
    starts = range(0, batch, size)
    return [
        (first, min(size, batch - first), columns[..., first : first + size].reshape(len(columns), -1))
        for first in starts
    ]


def _posed(features: Tensor, transforms: Tensor, shift: Tensor, surface: Surface) -> Tensor:
    """Posed vertices without the memory traffic: what a block makes is used while it is in the cache."""
    blocks, batch = surface.parts, len(features)
    columns, moved = _columns(transforms), shift.T[..., None]
    if 12 * batch * surface.num_vertices > _AT_ONCE or not blocks:
        widest = max((b.weights.shape[1] for b in blocks), default=0)
        room = _SCRATCH.room("unposed", 3 * batch * widest, features)
        unposed = (_unposed(_pick(features, 1, b.features), b.directions, room) for b in blocks)
        return _skinned(surface, columns, unposed, moved)
    parts = [_unposed(_pick(features, 1, block.features), block.directions) for block in blocks]
    rest = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    blended = torch.mm(columns.reshape(len(columns), -1).T, surface.weights)
    return _applied(blended, rest).add_(moved).permute(1, 2, 0).contiguous()


class _Posed(torch.autograd.Function):
    """As `_posed`, with a gradient that is computed block by block too."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, transforms: Tensor, shift: Tensor, surface: Surface) -> Tensor:
        ctx.blocks = surface.parts
        with full_precision(features.device.type):
            kept = [_unposed(_pick(features, 1, b.features), b.directions) for b in ctx.blocks]
            ctx.save_for_backward(features, transforms, shift, *kept)
            return _skinned(surface, _columns(transforms), iter(kept), shift.T[..., None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, transforms, shift, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled() or _is_transformed() or _is_many(grad):
            # The gradient is differentiated itself, or one of many.
            inputs = (features, transforms, shift)
            with torch.enable_grad():
                out = _posed_plainly(*inputs, ctx.blocks)
            wanted = [value for value, need in zip(inputs, needs[:3], strict=True) if need]
            each = iter(torch.autograd.grad(out, wanted, grad, create_graph=torch.is_grad_enabled()))
            return *(next(each) if need else None for need in needs[:3]), None
        to_shift = grad.sum(1) if needs[2] else None
        if not (needs[0] or needs[1]):
            return None, None, to_shift, None
        with full_precision(grad.device.type):  # the loop may call backward under autocast
            found = _gradients(features, transforms, ctx.blocks, kept, grad, needs)
        return *found, to_shift, None


def _gradients(
    features: Tensor,
    transforms: Tensor,
    blocks: tuple[Block, ...],
    kept: list[Tensor],
    grad: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_Posed`'s features and transforms, `kept` the unposed vertices of every block."""
    batch, joints = transforms.shape[:2]
    widest = max((block.weights.shape[1] for block in blocks), default=1)
    size = max(1, _AT_ONCE // (12 * widest))
    turning = _columns(transforms)[:, :3].transpose(1, 2)  # (J, coordinate, column, B)
    chunks = _some_at_a_time(turning, size)
    room = _SCRATCH.room("blended", 12 * widest * min(size, batch), features)
    to_features = features.new_zeros(features.shape[1], batch)
    to_columns = [features.new_zeros(joints, 12 * bodies) for _, bodies, _ in chunks]
    begin = 0
    for block, rest in zip(blocks, kept, strict=True):
        n = block.weights.shape[1]
        to_rest = rest.new_empty(batch, 3, n).transpose(0, 1)
        for (first, bodies, columns), total in zip(chunks, to_columns, strict=True):
            pulled = grad.narrow(0, first, bodies).narrow(1, begin, n).permute(2, 0, 1).contiguous()
            x, y, z = pulled.unbind()
            if needs[0]:
                moving = _pick(columns, 0, block.joints)
                blended = torch.mm(moving.T, block.weights, out=room[: 9 * bodies * n].view(-1, n))
                one, two, three = blended.view(3, 3, bodies, n).unbind()
                one.mul_(x).addcmul_(two, y)
                torch.addcmul(one, three, z, out=to_rest.narrow(1, first, bodies))
            if needs[1]:
                outer = room[: 12 * bodies * n].view(4, 3, bodies, n)
                torch.mul(rest.narrow(1, first, bodies)[:, None], pulled, out=outer[:3])
                outer[3] = pulled
                found = torch.mm(block.weights, outer.view(-1, n).T)
                if block.joints is None:
                    total += found
                else:
                    total.index_add_(0, block.joints, found)
        if needs[0]:
            pushed = torch.mm(block.directions.flatten(1), to_rest.transpose(0, 1).reshape(batch, 3 * n).T)
            if block.features is None:
                to_features += pushed
            else:
                to_features.index_add_(0, block.features, pushed)
        begin += n
    to_transforms = torch.zeros_like(transforms)
    for (first, bodies, _), total in zip(chunks, to_columns, strict=True):
        columns = total.view(joints, 4, 3, bodies)
        to_transforms[first : first + bodies, :, :3] = columns.permute(3, 0, 2, 1)
    return to_features.T if needs[0] else None, to_transforms if needs[1] else None
