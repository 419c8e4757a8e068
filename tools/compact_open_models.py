"""Pack baked open body models into the small files that the package ships.

    python tools/compact_open_models.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds the bake's `smpl/SMPL_NEUTRAL.npz`, `smplx/SMPLX_NEUTRAL.npz`, `mano/MANO_LEFT.npz`,
`mano/MANO_RIGHT.npz`, `flame/FLAME_NEUTRAL.npz` and `correspondence.npz` (vertex i of `smplx_flame`,
`smplx_mano_left`, `smplx_mano_right` names the SMPL-X vertex that vertex i of that model is). OUT_DIR gets
the same names with the official files' keys and shapes, float32, so that they load like official files.

The size comes down by rounding numbers to a binary grid, which leaves short mantissas that deflate well:

    v_template             2**-22 m (0.24 um), hands 2**-24 m
    shapedirs, posedirs    2**-18 m (3.8 um) per coefficient; a zero stays a zero
    weights                2**-14, with the remainder given to the largest weight: a row sums to exactly 1
    hands_coeffs           2**-14 (no layer reads them)
    all else               as it is

On a grid, translations are exact, which lets three invariants hold to the last bit:

    FLAME and MANO are subsets of SMPL-X: v_template[smplx_flame] - FLAME's v_template is one constant row
    FLAME's expression directions are SMPL-X's
    MANO_LEFT is MANO_RIGHT under x -> -x: template, shapes, pose correctives, weights, regressor, hand PCA

The bake fitted the two hands' pose correctives apart, each to its own random rotations; the right hand's are
kept, which moves posed left vertices by 0.1 mm in the mean.
Output is the same byte for byte for the same source and zlib, and packing the output again changes nothing.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np

MODELS = {
    "smpl": "smpl/SMPL_NEUTRAL.npz",
    "smplx": "smplx/SMPLX_NEUTRAL.npz",
    "mano_left": "mano/MANO_LEFT.npz",
    "mano_right": "mano/MANO_RIGHT.npz",
    "flame": "flame/FLAME_NEUTRAL.npz",
}
CORRESPONDENCE = "correspondence.npz"
TEMPLATE_BITS, HAND_BITS, DIRECTION_BITS, WEIGHT_BITS = 22, 24, 18, 14
MIRROR = np.array([-1.0, 1.0, 1.0])

Arrays = dict[str, np.ndarray]


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


def nested_templates(models: dict[str, Arrays], correspondence: Arrays) -> Arrays:
    """Grid templates (V, 3) of all models: FLAME and both hands exact subsets of SMPL-X, the hands mirrored.

    The two baked hands are mirror images but for 2 um, so both become their mean: nothing moves by over 1 um.
    Their grid is finer so that rounding adds nothing to that; float32 holds it, as hands stay within 1 m.
    """
    template = {name: model["v_template"].astype(np.float64) for name, model in models.items()}
    packed = {name: round_to_grid(v, TEMPLATE_BITS) for name, v in template.items()}
    right = round_to_grid((template["mano_right"] + template["mano_left"] * MIRROR) / 2, HAND_BITS)
    packed["mano_right"], packed["mano_left"] = right, right * MIRROR
    for name in ("mano_right", "mano_left"):
        rows = correspondence[f"smplx_{name}"]
        packed["smplx"][rows] = packed[name] + middle_offset(template["smplx"][rows], packed[name])
    head = packed["smplx"][correspondence["smplx_flame"]]
    packed["flame"] = head - middle_offset(head, template["flame"])
    return packed


def mirror_hand(right: Arrays, left: Arrays) -> Arrays:
    """The left MANO arrays that are the right ones' mirror image; faces and tree are the left file's own.

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


def compact_models(models: dict[str, Arrays], correspondence: Arrays) -> dict[str, Arrays]:
    """All five models (keys of `MODELS`) packed; float arrays come back float32, integers as they were."""
    templates = nested_templates(models, correspondence)
    models = {**models, "mano_left": mirror_hand(models["mano_right"], models["mano_left"])}
    packed = {}
    for name, model in models.items():
        new = dict(model)
        new["v_template"] = templates[name]
        for key in ("shapedirs", "posedirs"):
            new[key] = round_to_grid(model[key], DIRECTION_BITS)
        new["weights"] = round_weights(model["weights"])
        if "hands_coeffs" in new:
            new["hands_coeffs"] = round_to_grid(model["hands_coeffs"], WEIGHT_BITS)
        new["J"] = model["J_regressor"].astype(np.float64) @ templates[name]
        packed[name] = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in new.items()}
    return packed


def read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def write_npz(path: Path, arrays: Arrays) -> None:
    """A compressed npz without the clock: `np.savez_compressed` would stamp the time into every member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def posed_vertices(model: Arrays, shapes: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Vertices (B, V, 3) in metres for shapes (B, S) and poses (B, J, 3), in float64."""
    import torch
    from smplx.lbs import lbs

    def as_tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, dtype=np.float64))

    parents = torch.as_tensor(model["kintree_table"][0].astype(np.int64))
    parents[0] = -1
    posedirs = as_tensor(model["posedirs"]).reshape(-1, model["posedirs"].shape[2]).T
    template, shapedirs, regressor, weights = (
        as_tensor(model[key]) for key in ("v_template", "shapedirs", "J_regressor", "weights")
    )
    batches = []
    for start in range(0, len(poses), 20):
        rows = slice(start, start + 20)
        flat = as_tensor(poses[rows]).flatten(1)
        shaped = template.expand(len(flat), -1, -1)
        batch = lbs(as_tensor(shapes[rows]), flat, shaped, shapedirs, posedirs, regressor, parents, weights)
        batches.append(batch[0].numpy())
    return np.concatenate(batches)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SOURCE_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()

    models = {name: read_npz(arguments.source / file) for name, file in MODELS.items()}
    correspondence = read_npz(arguments.source / CORRESPONDENCE)
    packed = compact_models(models, correspondence)
    write_npz(arguments.out / CORRESPONDENCE, correspondence)

    rng = np.random.default_rng(0)
    print("file, kB, largest template error in um, mean and largest vertex error over 200 poses in mm")
    for name, file in MODELS.items():
        write_npz(arguments.out / file, packed[name])
        shapes = rng.normal(size=(200, packed[name]["shapedirs"].shape[2]))
        poses = rng.normal(scale=0.4, size=(200, packed[name]["weights"].shape[1], 3))
        moved = posed_vertices(packed[name], shapes, poses) - posed_vertices(models[name], shapes, poses)
        error_mm = np.linalg.norm(moved, axis=-1) * 1000
        template_um = (
            np.abs(packed[name]["v_template"] - models[name]["v_template"].astype(np.float64)).max() * 1e6
        )
        print(
            f"{file:24s} {(arguments.out / file).stat().st_size / 1e3:6.0f} {template_um:6.2f} "
            f"{error_mm.mean():8.4f} {error_mm.max():8.4f}"
        )


if __name__ == "__main__":
    main()
