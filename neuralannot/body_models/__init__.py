"""Body models: finding and safely reading their files, posing them, regressing joints."""

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.body_models.joints import JointRegressor, joint_regressor
    from neuralannot.body_models.model import BodyModel, BodyOutput, load_body_model

_ROOMS = {
    "BodyModel": "model",
    "BodyOutput": "model",
    "JointRegressor": "joints",
    "joint_regressor": "joints",
    "load_body_model": "model",
}

__all__ = ["BodyModel", "BodyOutput", "JointRegressor", "joint_regressor", "load_body_model"]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
