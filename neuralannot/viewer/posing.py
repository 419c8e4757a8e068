"""Bodies of rows, posed when they are first shown and kept for a while."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["Body", "Posing"]

_KEPT = 96  # bodies, 120 kB each at most
_AHEAD = 8


@dataclass(frozen=True, eq=False)
class Body:
    """A posed body in the space of its file.

    `vertices`: (V, 3) float32 metres; `faces`: (F, 3); `joints`: (J, 3) float32 metres, the model's own, of
    which `joint_set` has the names and the bones.
    """

    vertices: np.ndarray
    faces: np.ndarray
    joints: np.ndarray
    joint_set: JointSet


class Posing:
    """Poses rows of a file; parts that are flagged invalid are at rest."""

    def __init__(self, gt: PseudoGT, body_models: str | os.PathLike[str] | None = None) -> None:
        self._gt, self._body_models = gt, body_models
        self._kept: OrderedDict[int, Body] = OrderedDict()
        self._lock = threading.Lock()

    def bodies(self, rows: np.ndarray, *, ahead: np.ndarray | None = None) -> list[Body]:
        """The bodies of rows, in their order.

        `ahead`: rows that will be asked for next; where any body has to be posed, the first of those are too.
        """
        wanted = [int(row) for row in rows]
        with self._lock:
            lacking = [row for row in dict.fromkeys(wanted) if row not in self._kept]
            if lacking and ahead is not None:
                some = (int(row) for row in ahead[:_AHEAD])
                lacking += [row for row in some if row not in self._kept and row not in lacking]
            posed = dict(zip(lacking, self._posed(lacking), strict=True))
            found = [posed.get(row) or self._kept[row] for row in wanted]
            for row in wanted:
                if row in self._kept:
                    self._kept.move_to_end(row)
            self._kept.update(posed)
            while len(self._kept) > max(_KEPT, len(wanted)):
                self._kept.popitem(last=False)
        return found

    def _posed(self, rows: list[int]) -> list[Body]:
        if not rows:
            return []
        some = self._gt.rows(rows)
        with warnings.catch_warnings():
            # Which bodies serve is said on the page.
            warnings.filterwarnings("ignore", "no official body models given", UserWarning)
            bodies = some.forward(space=some.space, body_models=self._body_models, only_valid=True)
        assert bodies.vertices is not None
        vertices, joints = bodies.vertices.numpy(), bodies.joints.numpy()
        name = f"mano-{some.side[0]}" if some.side is not None else some.model
        joint_set = JOINT_SETS[name]
        # Copies: a view would keep the bodies posed with it.
        return [
            Body(vertices[k].copy(), bodies.faces_of(k), joints[k].copy(), joint_set)
            for k in range(len(rows))
        ]
