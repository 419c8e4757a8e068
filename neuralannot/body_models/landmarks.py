"""smplx's joints beside the skeleton's: vertices of feet, face and fingertips, and the face's landmarks."""

from __future__ import annotations

import torch
from smplx.vertex_ids import vertex_ids
from torch import Tensor, nn

from neuralannot.body_models.files import ModelData
from neuralannot.body_models.surface import Surface

_FACE = ("nose", "reye", "leye", "rear", "lear")
_FEET = ("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel")
_TIPS = tuple(f"{s}{f}" for s in "lr" for f in ("thumb", "index", "middle", "ring", "pinky"))


class Landmarks(nn.Module):
    """K points of the mesh that smplx counts among the joints: E vertices, then L points on triangles.

    `vertices` (E,), `triangles` (L, 3) vertex numbers, `weights` (L, 3) barycentric.
    """

    vertices: Tensor
    triangles: Tensor
    weights: Tensor

    def __init__(self, vertices: Tensor, triangles: Tensor, weights: Tensor, surface: Surface) -> None:
        """`surface`: of the E vertices and the triangles' corners, one after another."""
        super().__init__()
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("triangles", triangles, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.surface = surface

    def __len__(self) -> int:
        return len(self.vertices) + len(self.triangles)

    def forward(self, features: Tensor, transforms: Tensor, shift: Tensor) -> Tensor:
        """(B, K, 3), posed without the rest of the mesh; arguments as of `Surface`."""
        posed = self.surface(features, transforms, shift)
        count = len(self.vertices)
        return self._joined(posed[:, :count], posed[:, count:], shift)

    def on_mesh(self, mesh: Tensor, shift: Tensor) -> Tensor:
        """(B, V, 3) posed vertices and the shift that is in them, (B, 3) -> (B, K, 3)."""
        corners = mesh.index_select(1, self.triangles.flatten()) if len(self.triangles) else mesh[:, :0]
        return self._joined(mesh.index_select(1, self.vertices), corners, shift)

    def _joined(self, points: Tensor, corners: Tensor, shift: Tensor) -> Tensor:
        if not len(self.triangles):
            return points
        # Not as a product of matrices, which an accelerator may compute in fewer bits. The shift is left out:
        # weights add up to 1 but nearly.
        corners = corners.view(len(corners), len(self.triangles), 3, 3) - shift[:, None, None]
        inside = (corners * self.weights[..., None]).sum(2) + shift[:, None]
        return torch.cat([points, inside], 1)

    def weights_of_vertices(self) -> Tensor:
        """(K, E + 3 L): the points as weights of the vertices of `surface`."""
        count, corners = len(self.vertices), 3 * len(self.triangles)
        weights = torch.zeros(len(self), count + corners).to(self.weights)
        weights[:count, :count] = torch.eye(count)
        for number, of_corners in enumerate(self.weights):
            weights[count + number, count + 3 * number : count + 3 * number + 3] = of_corners
        return weights

    def with_features(self, values: Tensor) -> Landmarks:
        """As `Surface.with_features`."""
        return Landmarks(self.vertices, self.triangles, self.weights, self.surface.with_features(values))


def landmarks_of(data: ModelData, surface: Surface) -> Landmarks:
    """The landmarks of a model file with its whole `surface`, in smplx's order, face contour left out."""
    names: tuple[str, ...] = ()
    if data.model in ("smpl", "smplx"):
        names = (*_FACE, *_FEET, *_TIPS)
    ids = vertex_ids["smplh" if data.model == "smpl" else "smplx"]
    vertices = torch.tensor([ids[name] for name in names], dtype=torch.long)
    triangles, weights = torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 3)
    if data.lmk_faces_idx is not None and data.lmk_bary_coords is not None:
        triangles = torch.tensor(data.faces[data.lmk_faces_idx])
        weights = torch.tensor(data.lmk_bary_coords)
    weights = weights.to(next(surface.buffers()).dtype)
    return Landmarks(vertices, triangles, weights, surface.take(torch.cat([vertices, triangles.flatten()])))
