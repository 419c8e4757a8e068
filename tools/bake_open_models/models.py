"""The arrays of all model files, under the official files' keys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tools.bake_open_models.correctives import LEAST, mirrored, moved_by, pose_directions
from tools.bake_open_models.hands import right_hand_poses
from tools.bake_open_models.joints import joint_regressor
from tools.bake_open_models.landmarks import face_landmarks
from tools.bake_open_models.mouth import mouth_directions
from tools.bake_open_models.shapes import expressions, shape_space
from tools.bake_open_models.shoulders import shoulder_directions
from tools.bake_open_models.skinning import skinning_weights
from tools.bake_open_models.source import Source
from tools.bake_open_models.texture import lay_out
from tools.bake_open_models.topology import Topology
from tools.bake_open_models.trees import KINDS, TREES
from tools.bake_open_models.vertices import Layout, Layouts

Arrays = dict[str, np.ndarray]
GENDERS = ("neutral", "female", "male")
NO_PARENT = 2**32 - 1


def genders_of(kind: str) -> tuple[str, ...]:
    return ("neutral",) if kind.startswith("mano") else GENDERS


def build_models(source: Source, topology: Topology, layouts: Layouts) -> Iterator[tuple[str, str, Arrays]]:
    """Model, gender and arrays of every file, float64, one after another. MANO comes neutral only."""
    hands = right_hand_poses(source)
    face = expressions(source, layouts.of_kind["smplx"])
    for kind in KINDS:
        layout, tree = layouts.of_kind[kind], TREES[kind]
        weights = skinning_weights(kind, source, layout)
        shared: Arrays = {"weights": weights, "f": layout.faces.astype(np.uint32)}
        parents = [NO_PARENT if parent < 0 else parent for parent in tree.parents]
        shared |= lay_out(source, layout).arrays()
        shared["kintree_table"] = np.array([parents, range(len(parents))], np.int64)
        if kind in ("smplx", "flame"):
            shared |= face_landmarks(source, layout, topology.named["lear"]).arrays()
        if kind == "smplx":
            for letter, poses in (("l", hands.mirrored()), ("r", hands)):
                shared[f"hands_components{letter}"], shared[f"hands_mean{letter}"] = (
                    poses.components,
                    poses.mean,
                )
        if kind.startswith("mano"):
            poses = hands if kind == "mano_right" else hands.mirrored()
            shared |= {
                "hands_components": poses.components,
                "hands_mean": poses.mean,
                "hands_coeffs": poses.codes,
            }
        directions: np.ndarray | None = None
        for gender in genders_of(kind):
            space = shape_space(kind, source, layout, gender)
            regressor = joint_regressor(space, weights, tree)
            joints = regressor @ space.template
            if directions is None:  # the neutral body's serve all
                directions = _correctives(kind, source, layout, space.template, joints, weights)
            shapedirs = space.directions
            if kind in ("smplx", "flame"):
                of_face = face if kind == "smplx" else face[layouts.subsets["smplx_flame"]]
                shapedirs = np.concatenate([shapedirs, of_face], axis=2)
            yield (
                kind,
                gender,
                {
                    "v_template": space.template,
                    "shapedirs": shapedirs,
                    "posedirs": directions,
                    "J_regressor": regressor,
                    **shared,
                    "J": joints,
                },
            )


def _correctives(
    kind: str,
    source: Source,
    layout: Layout,
    template: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """(V, 3, 9 (J - 1)): those of all joints, the shoulders' and the jaw's made better."""
    tree = TREES[kind]
    directions = pose_directions(template, joints, weights, tree.parents)

    def of_joint(name: str) -> tuple[slice, np.ndarray, np.ndarray]:
        joint = tree.joints.index(name)
        share = weights[:, moved_by(joint, tree.parents)].sum(1)
        return slice(9 * (joint - 1), 9 * joint), joints[joint], share

    if "L_shoulder" in tree.joints:
        natural = layout.place(source.natural)
        left, center, share = of_joint("L_shoulder")
        directions[:, :, left] = shoulder_directions(template, natural, layout.faces, center, share)
        right, _, _ = of_joint("R_shoulder")
        directions[:, :, right] = mirrored(directions[:, :, left], template)
    if "jaw" in tree.joints:
        columns, center, share = of_joint("jaw")
        (rim,) = np.nonzero(np.isin(layout.origin, source.rim("mouth_cavity")))
        directions[:, :, columns] += mouth_directions(template, layout.faces, rim, center, share)
    directions[np.abs(directions) < LEAST] = 0
    return directions
