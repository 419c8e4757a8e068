"""SMPL beside SMPL-X: both as meshes of SMPL's vertices, whichever of the two is the truth.

All but one of SMPL's vertices are points of SMPL-X's mesh too. The other way round a third is not: eyeballs,
a mouth's inside, what fingers and faces have more; and regressors of SMPL-X's mesh put eyes and noses there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.matching import root_of
from neuralannot.train.evaluation.regressed import body_of, called, joints_of_vertices

if TYPE_CHECKING:
    import torch

    from neuralannot.bodies import Bodies
    from neuralannot.conversion.correspondence import Correspondence

__all__ = ["SharedMesh", "shared_mesh"]

_REGRESSOR = "human36m-17"


@dataclass(frozen=True, eq=False)
class SharedMesh:
    """`to_smpl`: SMPL-X's meshes in SMPL's topology, `same` of which are compared; `names`, `weights`
    (J, 6890): the joints; `root` (6890,): what bodies are aligned at; `joints`: what the joints are."""

    to_smpl: Correspondence
    names: tuple[str, ...]
    weights: torch.Tensor
    root: torch.Tensor
    joints: str

    def __call__(self, bodies: Bodies) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Joints (B, J, 3), shared vertices (B, V, 3) and root joints (B, 3) of bodies of either model."""
        import torch

        vertices = bodies.vertices
        assert vertices is not None
        if vertices.shape[1] != self.weights.shape[1]:
            vertices = self.to_smpl(vertices)
        same = torch.from_numpy(np.flatnonzero(self.to_smpl.same)).to(vertices.device)
        joints, roots = (w.to(vertices) @ vertices for w in (self.weights, self.root))
        return joints, vertices[:, same], roots


def shared_mesh(
    truth: PseudoGT,
    *,
    regressor: Any = None,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> SharedMesh:
    """What brings SMPL and SMPL-X together.

    `regressor`: as of `PseudoGT.forward`, for SMPL's vertices; None for the open body's `human36m-17`.
    `transfer`: the folder of the official transfer matrices; None for `body_models`.

    Raises ValueError for official bodies without a regressor, FileNotFoundError without transfer matrices.
    """
    from neuralannot.conversion.pairs import make_map

    gender = str(truth.gender[0]) if len(truth) and truth.model == "smpl" else "neutral"
    body = body_of("smpl", body_models, is_hand=False, gender=gender)
    if regressor is None and not body.is_open:
        raise ValueError(
            "SMPL and SMPL-X are compared by their meshes, in which their skeletons' joints are not, and no "
            "regressor ships for official bodies; pass regressor=, the data set's (J, 6890) .npy for SMPL "
            "(--regressor)"
        )
    to_smpl = make_map("smplx", "smpl", body_models=body_models, transfer=transfer)
    names, weights = joints_of_vertices(body, _REGRESSOR if regressor is None else regressor)
    at = root_of("smpl", names)
    root = joints_of_vertices(body)[1][0] if at is None else weights[at]
    said = called(_REGRESSOR if regressor is None else regressor)
    why = "; the skeletons' own are in no mesh" if regressor is None else ""
    return SharedMesh(to_smpl, names, weights, root, f"{said}, of both meshes in SMPL's topology{why}")
