"""Pictures of single annotations: the image, the fit over it, and the truth over it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralannot.boxes import boxes_from_joints, crop_affine, expand_boxes
from neuralannot.cameras import Camera
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.breakdown import image_paths
from neuralannot.train.evaluation.matching import match_files, match_samples
from neuralannot.train.evaluation.report import Evaluation
from neuralannot.train.samples import Samples

__all__ = ["Picture", "picture_of", "pictures"]

_SIDE = 280  # px of a tile
_SCALE = 1.4  # of the box that a tile shows
_FIT, _TRUTH = (142, 182, 226), (238, 160, 132)


@dataclass(frozen=True, eq=False)
class Picture:
    """Tiles of one annotation side by side.

    `image`: its path, empty where not known; `tiles`: what they show; `pixels` (S, n S, 3) uint8 RGB, None
    where there is no picture, and `problem` says why.
    """

    image: str
    tiles: tuple[str, ...] = ()
    pixels: np.ndarray | None = None
    problem: str = ""


def pictures(
    evaluation: Evaluation,
    rows: Sequence[int],
    *,
    images: str | os.PathLike[str] | None = None,
    body_models: str | os.PathLike[str] | None = None,
) -> list[Picture]:
    """A picture for each of these rows of the annotations: the image, the fit over it, the truth over it.

    `images`: the image folder; that of the samples where it is None. The data set's joints are drawn where it
    has them, the true body where its parameters are known. Tiles show the annotated box, else that of the
    body. An image that is missing or broken gives a `Picture` that says so, and no error.
    """
    gt, samples = evaluation.gt, evaluation.samples
    folder = Path(images) if images is not None else None if samples is None else samples.images
    paths = image_paths(gt, samples)
    places: dict[int, int] = {}
    if samples is not None:
        of_sample = match_samples(gt, samples)
        there = np.flatnonzero(of_sample >= 0)[::-1]
        places = dict(zip(of_sample[there].tolist(), there.tolist(), strict=True))
    found = []
    for row in rows:
        sample = samples.rows([places[row]]) if samples is not None and row in places else None
        path = "" if paths is None else str(paths[row])
        found.append(
            picture_of(
                gt.rows([row]),
                path,
                folder,
                truth=evaluation.truth,
                sample=sample,
                body_models=body_models,
            )
        )
    return found


def picture_of(
    fit: PseudoGT,
    path: str,
    folder: Path | None,
    *,
    truth: PseudoGT | None = None,
    sample: Samples | None = None,
    body_models: str | os.PathLike[str] | None = None,
    only_valid: bool = False,
    side: int = _SIDE,
) -> Picture:
    """The picture of one annotation `fit`, a row, on the image `path` in `folder`; see `pictures`.

    `truth`: true parameters, the annotation's among them; `sample`: the data set's joints, a row.
    `only_valid`: parts that are flagged invalid are drawn at rest. `side`: px of a tile.
    """
    try:
        if not path:
            raise ValueError("no image is known: load the file joined with annotations, or give the data set")
        if folder is None:
            raise ValueError(f"{path}: where images are is not known, give their folder")
        return _picture(fit, path, folder, truth, sample, body_models, only_valid, side)
    except (ValueError, OSError) as error:
        return Picture(path, problem=str(error))


def _picture(
    fit: PseudoGT,
    path: str,
    folder: Path,
    truth: PseudoGT | None,
    sample: Samples | None,
    body_models: str | os.PathLike[str] | None,
    only_valid: bool,
    side: int,
) -> Picture:
    from neuralannot.images import leads_out, read_image
    from neuralannot.render import draw_joints, render_overlay
    from neuralannot.train.crops import cut

    if leads_out(path):
        raise ValueError(f"{path}: leads out of the image folder, not shown")
    image = read_image(folder / path)
    height, width = image.shape[:2]
    bodies = {"annotation": (fit, _FIT)}
    true = None if truth is None else _true_body(fit, truth)
    if true is not None:
        bodies["truth"] = (true, _TRUTH)
    first = image
    if sample is not None:
        edges = sample.joint_set.skeleton
        first = draw_joints(
            image, sample.joints_2d[0], edges=edges if len(edges) else None, valid=sample.valid[0]
        )
    tiles, box = {"image" if sample is None else "image, joints of the data set": first}, _box(fit, sample)
    for name, (gt, color) in bodies.items():
        camera = _camera(gt, fit, sample)
        if camera.image_size is not None and (camera.image_size > 0).all():
            camera.check_image(width, height)
        posed = gt.forward(space=gt.space, body_models=body_models, only_valid=only_valid)
        assert posed.vertices is not None
        vertices = posed.vertices if gt.space == "camera" else camera.world_to_camera(posed.vertices)
        tiles[name] = render_overlay(
            image, [vertices[0]], [posed.faces_of(0)], camera.focal, camera.princpt, colors=color
        )
        if not _has_area(box):  # of the last body, the truth if it is known
            own = Camera.from_intrinsics(camera.focal, camera.princpt)
            box = boxes_from_joints(own.project(vertices).cpu().numpy())[0][0]
    if not _has_area(box):
        raise ValueError(f"{path}: the body is behind the camera, and no box is annotated")
    affine = crop_affine(expand_boxes(box[None], scale=_SCALE), (side, side))[0]
    pixels = np.concatenate([cut(tile, affine, side) for tile in tiles.values()], axis=1)
    return Picture(path, tuple(tiles), pixels)


def _true_body(fit: PseudoGT, truth: PseudoGT) -> PseudoGT | None:
    """The row of the truth that belongs to one annotation."""
    space = "world" if fit.space == truth.space == "world" else "camera"
    rows, _, _ = match_files(fit, truth, space)
    return truth.rows(rows[:, 1]) if len(rows) else None


def _camera(gt: PseudoGT, fit: PseudoGT, sample: Samples | None) -> Camera:
    """That of the body itself; in the world also the annotation's, which sees the same image."""
    own = gt.camera
    if own is None or gt.space == "world":
        own = fit.camera if fit.camera is not None and gt.space == fit.space else own
    if own is None and sample is not None:
        own = sample.camera
    if own is None:
        raise ValueError(f"no camera to draw through: {gt.camera_problem}")
    return own


def _has_area(box: np.ndarray) -> bool:
    return bool(np.isfinite(box).all() and (box[2:] > 0).all())


def _box(fit: PseudoGT, sample: Samples | None) -> np.ndarray:
    """(4,) xywh px as annotated, NaN where it is not known."""
    if sample is not None:
        annotated: np.ndarray = sample.box_xywh[0]
        return annotated
    try:
        fitted: np.ndarray = fit.box_xywh[0]
        return fitted
    except (ValueError, OSError):
        return np.full(4, np.nan, np.float32)
