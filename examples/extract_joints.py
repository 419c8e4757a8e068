"""From a released file to joints: camera-space 3D and pixels of every body, in one .npz.

    python examples/extract_joints.py
    python examples/extract_joints.py MSCOCO_train_SMPL_NeuralAnnot.json --ids 476384 \\
        --body-models human_model_files --regressor J_regressor_h36m_smpl.npy --out joints.npz

Without arguments it runs on the walk that ships with the package: one person before four cameras, stored in
world space and moved into each camera's. 3D joints are in metres, x to the right, y down, z away from the
camera; 2D joints in pixels of the original image, NaN behind the camera.

The model's own joints are always written. A regressor turns vertices into the joints of a data set: for the
open body `human36m-17` and others ship by name; for the official models give the data set's (K, V) .npy file.
"""

import argparse
from pathlib import Path

import numpy as np

from neuralannot import load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.exports import row_names, write_npz

SAMPLE_FILE = SAMPLE / "human36m" / "Human36M_subject1_SMPL_NeuralAnnot.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE_FILE, help="released JSON")
    parser.add_argument("--ids", nargs="+", type=int, help="annotation ids; all without it")
    parser.add_argument("--body-models", help="folder of official body models; the open body without it")
    parser.add_argument("--regressor", help="name or .npy file; human36m-17 on the sample, else none")
    parser.add_argument("--out", type=Path, default=Path("joints.npz"), help="file to write")
    args = parser.parse_args()
    if args.file == SAMPLE_FILE and args.body_models is None:
        args.regressor = args.regressor or "human36m-17"

    # cache=False keeps the package's own folder as it is; your files open faster the second time with it on.
    gt = load_pseudo_gt(args.file, cache=args.file != SAMPLE_FILE)
    gt = gt.rows(gt.rows_of(args.ids)) if args.ids else gt
    print(gt)

    bodies = gt.forward(want="joints", body_models=args.body_models)
    arrays = {
        "names": np.array(row_names(gt)),  # annotation ids, or frame keys as 14-1-26; hands with their side
        "joint_names": np.array(bodies.joint_names),
        "joints": bodies.joints.numpy(),
        "joints_2d": bodies.project().numpy(),
    }
    if args.regressor:
        regressed = gt.forward(want="joints", body_models=args.body_models, regressor=args.regressor)
        arrays["regressed_names"] = np.array(regressed.joint_names)
        arrays["regressed"] = regressed.joints.numpy()
        arrays["regressed_2d"] = regressed.project().numpy()
    write_npz(args.out, arrays)
    for name, array in arrays.items():
        print(f"{args.out}: {name} {array.shape} {array.dtype}")


if __name__ == "__main__":
    main()
