"""One human model's parameters as another's: SMPL, SMPL-X, SMPL-H by their meshes; hands, faces exactly."""

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.conversion.converting import Conversion, convert, convert_parameters, vertices_as
    from neuralannot.conversion.parts import PartOfBody, face_of_body, hand_of_body, with_face, with_hand
    from neuralannot.conversion.reporting import write_errors
    from neuralannot.conversion.smplh import smplh_from_amass, smplh_to_amass

_ROOMS = {
    "Conversion": "converting",
    "PartOfBody": "parts",
    "convert": "converting",
    "convert_parameters": "converting",
    "face_of_body": "parts",
    "hand_of_body": "parts",
    "smplh_from_amass": "smplh",
    "smplh_to_amass": "smplh",
    "vertices_as": "converting",
    "with_face": "parts",
    "with_hand": "parts",
    "write_errors": "reporting",
}

__all__ = [
    "Conversion",
    "PartOfBody",
    "convert",
    "convert_parameters",
    "face_of_body",
    "hand_of_body",
    "smplh_from_amass",
    "smplh_to_amass",
    "vertices_as",
    "with_face",
    "with_hand",
    "write_errors",
]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
