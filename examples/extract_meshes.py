"""From a released file to meshes: one .obj for each body, and the bodies drawn on their image.

    python examples/extract_meshes.py
    python examples/extract_meshes.py MSCOCO_train_SMPL_NeuralAnnot.json --ids 476384 --images coco \\
        --body-models human_model_files --out meshes

Without arguments it runs on the photograph that ships with the package. Vertices are in the camera's space:
metres, x to the right, y down, z away from the camera. The annotation file that the release belongs to, and
for Human3.6M, MPI-INF-3DHP and InterHand2.6M the camera file too, are found beside the released file.
"""

import argparse
from pathlib import Path

from neuralannot import load_pseudo_gt, save_mesh
from neuralannot.demo import SAMPLE
from neuralannot.exports import row_names
from neuralannot.images import read_image, write_image

SAMPLE_FILE = SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE_FILE, help="released JSON")
    parser.add_argument("--ids", nargs="+", type=int, help="annotation ids; the first four without it")
    parser.add_argument("--images", type=Path, help="the data set's image folder; that of FILE without it")
    parser.add_argument("--body-models", help="folder of official body models; the open body without it")
    parser.add_argument("--out", type=Path, default=Path("meshes"), help="folder to write to")
    args = parser.parse_args()

    # cache=False keeps the package's own folder as it is; your files open faster the second time with it on.
    gt = load_pseudo_gt(args.file, cache=args.file != SAMPLE_FILE)
    gt = gt.rows(gt.rows_of(args.ids)) if args.ids else gt[:4]
    print(gt)

    bodies = gt.forward(body_models=args.body_models)
    assert bodies.vertices is not None  # they are asked for unless it is want="joints"
    for row, name in enumerate(row_names(gt)):
        path = args.out / f"{name}.obj"
        save_mesh(path, bodies.vertices[row].numpy(), bodies.faces_of(row))
        print(
            f"{path}: {bodies.vertices.shape[1]} vertices, {bodies.joints[row, 0, 2]:.2f} m from the camera"
        )

    # All of the chosen bodies that are on the first one's image, each with its own camera.
    if not gt.joined:
        print("no overlay: which image belongs to a body is said in the annotation file, which is not there")
        return
    image_path = (args.images or args.file.parent) / gt.image_path[0]
    if not image_path.is_file():
        print(f"no overlay: no image {image_path}; --images is the folder that {gt.image_path[0]} is in")
        return
    same_image = gt.rows(gt.image_path == gt.image_path[0])
    overlay = same_image.forward(body_models=args.body_models).overlay(read_image(image_path))
    write_image(args.out / "overlay.png", overlay)
    print(f"{args.out / 'overlay.png'}: {len(same_image)} of them on {gt.image_path[0]}")


if __name__ == "__main__":
    main()
