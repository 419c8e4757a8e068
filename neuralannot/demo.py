"""The main job on what ships: from released files to meshes, joints, parameters and overlays."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.exports import export_joints, export_meshes
from neuralannot.loading import load_pseudo_gt
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["FILES", "SAMPLE", "floor_picture", "missing_files", "run_demo"]

SAMPLE = Path(__file__).parent / "sample"
FILES = (
    "astronaut/overlay_smpl.png",
    "astronaut/overlay_smplx.png",
    "astronaut/overlay_flame.png",
    "astronaut/smpl/1.obj",
    "astronaut/smplx/1.ply",
    "astronaut/flame/1.glb",
    "astronaut/smpl_joints.npz",
    "astronaut/smplx_joints.npz",
    "astronaut/flame_joints.npz",
    "astronaut/MSCOCO_train_SMPL_NeuralAnnot.json",
    "walk/overlay_four_cameras.png",
    "walk/meshes/1.glb",
    "walk/joints.npz",
    "walk/camera_space.safetensors",
)


def run_demo(out: str | Path) -> list[str]:
    """Write what `FILES` names below the folder `out`, which is made; returns lines that say what was done.

    The astronaut: COCO-format annotation and fits in MSCOCO's released layout. The walk: a CMU clip seen by
    four real Human3.6M cameras, in Human3.6M's released layout. Both on the open body models that ship.
    """
    out = Path(out)
    with warnings.catch_warnings():
        # That the open body serves is what the demo is about.
        warnings.filterwarnings("ignore", "no official body models given", UserWarning)
        return [*_astronaut(out / "astronaut"), *_walk(out / "walk")]


def _astronaut(out: Path) -> list[str]:
    from neuralannot.images import read_image, write_image

    lines = []
    for model, suffix in (("smpl", "obj"), ("smplx", "ply"), ("flame", "glb")):
        gt = load_pseudo_gt(SAMPLE / "mscoco", release=f"mscoco-{model}", cache=False)
        image = read_image(SAMPLE / "mscoco" / str(gt.image_path[0]))
        write_image(_made(out / f"overlay_{model}.png"), gt.forward().overlay(image))
        export_meshes(gt, out / model, suffix=suffix)
        export_joints(gt, out / f"{model}_joints.npz")
        lines.append(f"astronaut, {gt.model}: {_reprojection(gt)}")
        if model == "smpl":
            gt.save(out / "MSCOCO_train_SMPL_NeuralAnnot.json")
    return lines


def _reprojection(gt: PseudoGT) -> str:
    """How far the model's joints are from the annotated keypoints of the same names, px."""
    from neuralannot.joint_sets import convert_joints

    joints, annotated = gt.joints_2d, gt.joints_2d_valid
    if joints is None or annotated is None or gt.joint_set_2d is None:
        return "no keypoints"
    pixels, there = convert_joints(gt.forward(want="joints").project().numpy(), gt.model, gt.joint_set_2d)
    use = annotated & there
    errors = np.linalg.norm(pixels - joints, axis=-1)[use]
    return f"{use.sum()} keypoints, mean {errors.mean():.1f} px off" if use.any() else "no keypoint in common"


def _walk(out: Path) -> list[str]:
    from neuralannot.images import write_image
    from neuralannot.metrics import mpjpe

    gt = load_pseudo_gt(SAMPLE / "human36m", cache=False)
    frames = np.array(gt.keys)[:, -1]
    rows = np.flatnonzero(frames == frames[len(frames) // 2])
    pictures = []
    for row in rows:
        one = gt.rows([int(row)])
        assert one.camera is not None
        pictures.append(one.forward().overlay(floor_picture(one.camera)))
    height = min(len(p) for p in pictures)
    top, bottom = (np.concatenate([p[:height] for p in pictures[k : k + 2]], 1) for k in (0, 2))
    write_image(_made(out / "overlay_four_cameras.png"), np.concatenate([top, bottom])[::2, ::2])
    export_meshes(gt.rows([0]), out / "meshes", suffix="glb", space="world")
    export_joints(gt, out / "joints.npz", regressor="human36m-17")
    camera_space = gt.to_camera_space()
    camera_space.save(out / "camera_space.safetensors")
    world = gt.forward(space="world", want="joints", regressor="human36m-17").joints.numpy()
    exact = gt.forward(want="joints").joints - camera_space.forward(want="joints").joints
    return [
        f"walk: {len(gt)} annotations of {len(np.unique(frames))} frames, MPJPE to the file's 3D joints "
        f"{1000 * float(mpjpe(world, gt.joints_world).mean()):.3f} mm",
        f"walk: to camera on parameters and on joints differ by {1000 * float(exact.abs().max()):.4f} mm",
    ]


def floor_picture(camera: Camera, spacing: float = 0.5, reach: float = 3.0) -> np.ndarray:
    """(H, W, 3) uint8: a grey picture with the floor's grid (z = 0, metres) as one camera sees it.

    `camera`: one row with its `image_size`. Stands in for an image where none can ship.
    """
    import cv2

    assert camera.image_size is not None
    width, height = camera.image_size[0].tolist()
    picture = np.full((height, width, 3), 226, np.uint8)
    along = np.linspace(-reach, reach, 121)
    for offset in np.arange(-reach, reach + 1e-9, spacing):
        for line in (np.c_[along, np.full_like(along, offset)], np.c_[np.full_like(along, offset), along]):
            points = np.c_[line, np.zeros(len(line))].astype(np.float32)
            pixels = camera.project(camera.world_to_camera(points[None]))[0]
            near = np.isfinite(pixels).all(axis=1) & (np.abs(pixels) < 1e4).all(axis=1)
            seen = near[:-1] & near[1:]
            for a, b in zip(pixels[:-1][seen], pixels[1:][seen], strict=True):
                start, end = np.rint(a).astype(int).tolist(), np.rint(b).astype(int).tolist()
                cv2.line(picture, start, end, (196, 196, 196), 2)
    return picture


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def missing_files(out: str | Path) -> list[str]:
    """The files of the demo that are not in `out`, or empty."""
    return [
        name for name in FILES if not (Path(out) / name).is_file() or not (Path(out) / name).stat().st_size
    ]


def main(arguments: list[str] | None = None) -> int:
    """`python -m neuralannot.demo --check DIR`: exit status 1 where a file of the demo is missing."""
    parser = argparse.ArgumentParser(prog="python -m neuralannot.demo", description=main.__doc__)
    parser.add_argument("--check", metavar="DIR", required=True)
    out = parser.parse_args(arguments).check
    missing = missing_files(out)
    for name in missing:
        sys.stderr.write(f"{out}/{name}: not written\n")
    if not missing:
        sys.stdout.write(f"{out}: all {len(FILES)} files of the demo are there\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
