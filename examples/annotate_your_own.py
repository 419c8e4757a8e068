"""From your own images and joints to an annotation file: check, train an annotator, annotate, look.

    python examples/annotate_your_own.py
    python examples/annotate_your_own.py my_studio --steps 20000 --body-models human_model_files
    python examples/annotate_your_own.py people.json --images photographs --model smplx --out annotated

Without arguments it makes a small studio. A folder is of motion capture (`X_data.json`, `X_camera.json`,
`X_joint_3d.json`), a .json file of people, hands or faces with 2D keypoints: see docs/own_data.md. The
network is small and the steps are few, so that any machine does; docs/training.md has the full recipe.
"""

import argparse
import json
from pathlib import Path

from neuralannot import JOINT_SETS, load_pseudo_gt
from neuralannot.images import read_image, write_image
from neuralannot.synthetic import make_studio
from neuralannot.train.annotate import annotate
from neuralannot.train.check import check_samples
from neuralannot.train.config import preset
from neuralannot.train.data import read_samples
from neuralannot.train.evaluation import joint_errors
from neuralannot.train.fit import fit
from neuralannot.train.released import own_release

MOCAP = {"smpl": "tiny-human36m-smpl", "smplx": "tiny-human36m-smplx", "mano": "tiny-interhand-mano"}
WILD = {m: f"tiny-mscoco-{m}" for m in ("smpl", "mano", "flame")} | {"smplx": "tiny-mscoco-smplx-body"}


def small_studio(folder: Path) -> Path:
    """Calibrated cameras and 3D joints, the joints' names said in each `X_data.json`."""
    studio = make_studio(folder, layout="human36m", count=16, image_size=320, workers=1)
    person = {"id": 1, "name": "person", "keypoints": list(JOINT_SETS["human36m-17"].joints)}
    for path in studio.annotations:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": [person]}))
    return studio.out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder of motion capture, or COCO-format .json")
    parser.add_argument("--images", type=Path, help="image folder; in the data's without it")
    parser.add_argument("--model", default="smpl", choices=WILD, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=200, help="of training (default: %(default)s)")
    parser.add_argument("--body-models", default="", help="folder of official body models")
    parser.add_argument("--out", type=Path, default=Path("annotated"), help="folder to write to")
    args = parser.parse_args()
    data = args.data or small_studio(args.out / "studio")

    kind, presets = ("COCO-format", WILD) if data.is_file() else ("MoCap-format", MOCAP)
    samples = read_samples(kind, data, model=args.model, images=args.images)
    print(check_samples(samples, args.out / "check.jpg"))  # look before you train

    where = {"data": [str(data)], "images": [str(samples.images)], "body_models": args.body_models}
    config = preset(presets[args.model], data_set=[kind], batch=16, max_steps=args.steps, **where)
    trained = fit(config, args.out / "train", progress=True)
    made = annotate(trained.checkpoint, args.out / "annotations", progress=True)
    print(f"{trained.steps} steps, {made.count} fits: {', '.join(map(str, made.files))}")

    # Read the file back as anybody would. Bodies of motion capture are in the world: name the cameras.
    if samples.is_mocap and args.model != "mano":
        folder = data / "annotations" if (data / "annotations").is_dir() else data
        noted, cameras = (sorted(folder.glob(f"*_{name}.json")) for name in ("data", "camera"))
        gt = load_pseudo_gt(made.files, annotations=noted, cameras=cameras)
    else:
        gt = load_pseudo_gt(made.files, release=own_release(args.model), annotations=False)
    errors = joint_errors(gt, samples, body_models=args.body_models or None)
    print(errors)
    # The image with the best fit, and all of its fits drawn.
    paths = samples.image_path[errors.rows[:, 1]]
    best = paths[errors.percent.argmin()]
    bodies = gt.rows(errors.rows[paths == best, 0]).forward(body_models=args.body_models or None)
    write_image(args.out / "overlay.png", bodies.overlay(read_image(samples.images / best)))
    print(f"{args.out / 'overlay.png'}: {len(bodies)} on {best}")


if __name__ == "__main__":
    main()
