"""Data sets for other people's regressors: the samples that Pose2Pose's, Hand4Whole's, Pose2Mesh's and HMR2's
own data set classes give, of a `PseudoGT`."""

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.regressors.augmentation import Augmentation
    from neuralannot.regressors.hand4whole import Hand4WholeDataset
    from neuralannot.regressors.hmr2 import Hmr2Dataset
    from neuralannot.regressors.pose2mesh import Pose2MeshDataset
    from neuralannot.regressors.pose2pose import Pose2PoseDataset

_ROOMS = {
    "Augmentation": "augmentation",
    "Hand4WholeDataset": "hand4whole",
    "Hmr2Dataset": "hmr2",
    "Pose2MeshDataset": "pose2mesh",
    "Pose2PoseDataset": "pose2pose",
}

__all__ = [
    "Augmentation",
    "Hand4WholeDataset",
    "Hmr2Dataset",
    "Pose2MeshDataset",
    "Pose2PoseDataset",
]


__getattr__ = late_names(__name__, _ROOMS)
