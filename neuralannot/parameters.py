"""The parameters of the four human models: names, shapes, parts, and how the released files spell them.

Names are smplx's (`global_orient`, `body_pose`, `betas`, `transl`); `pose`, `shape`, `trans` appear only as
the fields of released files. Rotations are axis-angle in radians, translations and shapes in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

GENDERS = ("neutral", "male", "female")
SIDES = ("right", "left")  # the order in which rows of one annotation come


@dataclass(frozen=True)
class Field:
    """One number list of a released leaf and the parameters it holds, in order.

    `name` is the file's key; `parameters` are smplx's names, their widths adding up to the list's length.
    `part` is the body part whose validity depends on the field being there. A field that is not `required`
    may be absent: its parameters are then zero.
    """

    name: str
    parameters: tuple[str, ...]
    part: str
    required: bool = True


@dataclass(frozen=True)
class HumanModel:
    """What a model's parameters look like: `shapes[name]` is the shape of one row."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    fields: tuple[Field, ...]
    parts: tuple[str, ...]
    num_vertices: int
    num_joints: int  # smplx's, face contour left out

    def width(self, parameter: str) -> int:
        """Number of values of one row of `parameter`."""
        return prod(self.shapes[parameter])

    def field_width(self, field: Field) -> int:
        """Number of values in the file's list for `field`."""
        return sum(self.width(p) for p in field.parameters)


def _model(
    name: str,
    shapes: dict[str, tuple[int, ...]],
    fields: list[Field],
    parts: tuple[str, ...],
    num_vertices: int,
    num_joints: int,
) -> HumanModel:
    return HumanModel(name, MappingProxyType(shapes), tuple(fields), parts, num_vertices, num_joints)


HUMAN_MODELS: Mapping[str, HumanModel] = MappingProxyType(
    {
        "smpl": _model(
            "smpl",
            {"global_orient": (3,), "body_pose": (23, 3), "betas": (10,), "transl": (3,)},
            [
                Field("pose", ("global_orient", "body_pose"), "body"),
                Field("shape", ("betas",), "body"),
                Field("trans", ("transl",), "body"),
            ],
            ("body",),
            6890,
            45,
        ),
        "smplx": _model(
            "smplx",
            {
                "global_orient": (3,),
                "body_pose": (21, 3),
                "left_hand_pose": (15, 3),
                "right_hand_pose": (15, 3),
                "jaw_pose": (3,),
                "expression": (10,),
                "betas": (10,),
                "transl": (3,),
            },
            [
                Field("root_pose", ("global_orient",), "body"),
                Field("body_pose", ("body_pose",), "body"),
                Field("lhand_pose", ("left_hand_pose",), "left_hand", required=False),
                Field("rhand_pose", ("right_hand_pose",), "right_hand", required=False),
                Field("jaw_pose", ("jaw_pose",), "face", required=False),
                Field("shape", ("betas",), "body"),
                Field("expr", ("expression",), "face", required=False),
                Field("trans", ("transl",), "body"),
            ],
            ("body", "left_hand", "right_hand", "face"),
            10475,
            127,
        ),
        "mano": _model(
            "mano",
            {"global_orient": (3,), "hand_pose": (15, 3), "betas": (10,), "transl": (3,)},
            [
                Field("pose", ("global_orient", "hand_pose"), "hand"),
                Field("shape", ("betas",), "hand"),
                Field("trans", ("transl",), "hand"),
            ],
            ("right_hand", "left_hand"),
            778,
            16,
        ),
        "flame": _model(
            "flame",
            {"global_orient": (3,), "jaw_pose": (3,), "expression": (10,), "betas": (10,), "transl": (3,)},
            [
                Field("root_pose", ("global_orient",), "face"),
                Field("jaw_pose", ("jaw_pose",), "face"),
                Field("shape", ("betas",), "face"),
                Field("expr", ("expression",), "face"),
                Field("trans", ("transl",), "transl", required=False),
            ],
            ("face",),
            5023,
            56,
        ),
    }
)

# The parameters that belong to a part that the SMPL-X whole-body file may flag invalid, and the file's flags.
PART_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "left_hand": ("left_hand_pose",),
        "right_hand": ("right_hand_pose",),
        "face": ("jaw_pose", "expression"),
    }
)
VALIDITY_FIELDS: Mapping[str, str] = MappingProxyType(
    {"lhand_valid": "left_hand", "rhand_valid": "right_hand", "face_valid": "face"}
)


def human_model(name: str) -> HumanModel:
    """The model called `name` (`smpl`, `smplx`, `mano`, `flame`). Raises ValueError for any other."""
    try:
        return HUMAN_MODELS[name]
    except KeyError:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(HUMAN_MODELS)}") from None
