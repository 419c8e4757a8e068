"""Body models: finding and safely reading their files, posing them, regressing joints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(import_module(f"neuralannot.body_models.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'neuralannot.body_models' has no attribute {name!r}")
