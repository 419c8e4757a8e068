"""Rounding models to binary grids, so that the files are small and their invariants exact.

Numbers on a grid have short mantissas, which deflate well:

    v_template             2**-22 m (0.24 um), MANO's 2**-24 m
    shapedirs, posedirs    2**-18 m (3.8 um) per coefficient; a zero stays a zero
    weights                2**-14, with the remainder given to the largest weight: a row sums to exactly 1
    vt                     2**-16
    hands_coeffs           2**-14 (no layer reads them)
    all else               as it is

On a grid, translations are exact, which lets three invariants hold to the last bit:

    FLAME and MANO are subsets of SMPL-X: v_template[smplx_flame] - FLAME's v_template is one constant row
    FLAME's expression directions are SMPL-X's
    MANO_LEFT is MANO_RIGHT under x -> -x: template, shapes, pose correctives, weights, regressor, hand PCA

Packing what is packed changes nothing.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tools.bake_open_models.models import GENDERS, Arrays

CORRESPONDENCE, REGRESSORS = "correspondence.npz", "regressors.npz"
TEMPLATE_BITS, HAND_BITS, DIRECTION_BITS, WEIGHT_BITS, UV_BITS = 22, 24, 18, 14, 16
MIRROR = np.array([-1.0, 1.0, 1.0])
Models = dict[tuple[str, str], Arrays]  # by model and gender


def _file_of(kind: str, gender: str) -> str:
    if kind.startswith("mano"):
        return f"mano/{kind.upper()}.npz"
    return f"{kind}/{kind.upper()}_{gender.upper()}.npz"


FILES: Mapping[tuple[str, str], str] = {
    (kind, gender): _file_of(kind, gender)
    for kind, genders in {
        "smpl": GENDERS,
        "smplx": GENDERS,
        "flame": GENDERS,
        "mano_left": GENDERS[:1],
        "mano_right": GENDERS[:1],
    }.items()
    for gender in genders
}


def round_to_grid(values: np.ndarray, bits: int) -> np.ndarray:
    """Nearest multiple of 2**-bits, as float64 (adding 0 turns -0.0 into 0.0)."""
    return np.round(np.asarray(values, dtype=np.float64) * 2.0**bits) / 2.0**bits + 0.0


def round_weights(weights: np.ndarray) -> np.ndarray:
    """Skinning weights (V, J) on the grid; the largest weight of a row takes its rounding error: sum 1."""
    rounded = round_to_grid(weights, WEIGHT_BITS)
    rows = np.arange(len(rounded))
    rounded[rows, rounded.argmax(1)] += 1.0 - rounded.sum(1)
    return rounded


def middle_offset(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The (3,) grid translation t for which max |a - (b + t)| over the vertices is least."""
    difference = np.asarray(a, dtype=np.float64) - b
    return round_to_grid((difference.max(0) + difference.min(0)) / 2, TEMPLATE_BITS)


def nested_templates(models: Models, subsets: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Grid templates (V, 3) of all models: FLAME and both hands exact subsets of SMPL-X, the hands mirrored.

    The two baked hands are mirror images but for 2 um, so both become their mean: nothing moves by over 1 um.
    Their grid is finer so that rounding adds nothing to that; float32 holds it, as hands stay within 1 m. The
    hands are those of the neutral SMPL-X.
    """
    template = {name: model["v_template"].astype(np.float64) for name, model in models.items()}
    packed = {name: round_to_grid(v, TEMPLATE_BITS) for name, v in template.items()}
    right, left = ("mano_right", "neutral"), ("mano_left", "neutral")
    hand = round_to_grid((template[right] + template[left] * MIRROR) / 2, HAND_BITS)
    packed[right], packed[left] = hand, hand * MIRROR
    body = ("smplx", "neutral")
    for name in (right, left):
        rows = subsets[f"smplx_{name[0]}"]
        packed[body][rows] = packed[name] + middle_offset(template[body][rows], packed[name])
    for gender in GENDERS:
        head = packed["smplx", gender][subsets["smplx_flame"]]
        packed["flame", gender] = head - middle_offset(head, template["flame", gender])
    return packed


def mirror_hand(right: Arrays, left: Arrays) -> Arrays:
    """The left MANO arrays that are the right ones' mirror image; faces, tree and texture are the left's own.

    A rotation matrix mirrors to M R M, so the corrective of its entry (a, b) changes sign with M[a] * M[b];
    an axis-angle vector keeps x and flips y and z.
    """
    flip_entry = np.tile(np.outer(MIRROR, MIRROR).ravel(), right["posedirs"].shape[2] // 9)
    flip_axis = np.tile(-MIRROR, 15)
    return {
        **left,
        "shapedirs": right["shapedirs"] * MIRROR[:, None],
        "posedirs": right["posedirs"] * MIRROR[:, None] * flip_entry,
        "weights": right["weights"],
        "J_regressor": right["J_regressor"],
        "hands_mean": right["hands_mean"] * flip_axis,
        "hands_components": right["hands_components"] * flip_axis,
        "hands_coeffs": right["hands_coeffs"],
    }


def pack_models(models: Models, subsets: Mapping[str, np.ndarray]) -> Models:
    """All models (keys of `FILES`) packed; float arrays come back float32, integers as they were."""
    templates = nested_templates(models, subsets)
    right, left = ("mano_right", "neutral"), ("mano_left", "neutral")
    models = {**models, left: mirror_hand(models[right], models[left])}
    packed = {}
    for name, model in models.items():
        new = dict(model)
        new["v_template"] = templates[name]
        for key in ("shapedirs", "posedirs"):
            new[key] = round_to_grid(model[key], DIRECTION_BITS)
        new["weights"] = round_weights(model["weights"])
        for key, bits in (("hands_coeffs", WEIGHT_BITS), ("vt", UV_BITS)):
            if key in new:
                new[key] = round_to_grid(model[key], bits)
        regressor = model["J_regressor"].astype(np.float32)  # as the file has it
        new["J"] = regressor.astype(np.float64) @ templates[name]
        packed[name] = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in new.items()}
    return packed


def read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def read_models(folder: Path) -> Models:
    """All models below a folder, by model and gender."""
    return {name: read_npz(folder / file) for name, file in FILES.items()}


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed npz without the clock: `np.savez_compressed` would stamp the time into every member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
