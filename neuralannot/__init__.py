"""NeuralAnnot's pseudo ground truth of 3D human bodies, hands and faces: read, posed, projected, drawn.

    from neuralannot import load_pseudo_gt

    gt = load_pseudo_gt("MSCOCO_train_SMPL_NeuralAnnot.json")
    bodies = gt.forward([476384], body_models="human_model_files")
    bodies.vertices, bodies.joints, bodies.project()

Names load when first used: importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neuralannot.batches import collate
    from neuralannot.bodies import Bodies
    from neuralannot.body_models import BodyModel, JointRegressor, load_body_model
    from neuralannot.cameras import Camera
    from neuralannot.catalog import RELEASES, Release
    from neuralannot.dataset import PseudoGTDataset
    from neuralannot.joint_sets import JOINT_SETS, convert_joints
    from neuralannot.loading import load_pseudo_gt
    from neuralannot.meshes import save_mesh
    from neuralannot.pseudo_gt import PseudoGT
    from neuralannot.render import render_overlay

_ROOMS = {
    "Bodies": "bodies",
    "BodyModel": "body_models",
    "Camera": "cameras",
    "JOINT_SETS": "joint_sets",
    "JointRegressor": "body_models",
    "PseudoGT": "pseudo_gt",
    "PseudoGTDataset": "dataset",
    "RELEASES": "catalog",
    "Release": "catalog",
    "collate": "batches",
    "convert_joints": "joint_sets",
    "load_body_model": "body_models",
    "load_pseudo_gt": "loading",
    "render_overlay": "render",
    "save_mesh": "meshes",
}

__all__ = [
    "JOINT_SETS",
    "RELEASES",
    "Bodies",
    "BodyModel",
    "Camera",
    "JointRegressor",
    "PseudoGT",
    "PseudoGTDataset",
    "Release",
    "collate",
    "convert_joints",
    "load_body_model",
    "load_pseudo_gt",
    "render_overlay",
    "save_mesh",
]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
