"""Pictures of a run: its fits on their images, and how its losses fell."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation import JointErrors
from neuralannot.train.samples import Samples

_TILE, _GAP, _PAIRS = 240, 4, 4  # px, px, pairs a line
_WIDTH, _HEIGHT, _EDGE = 900, 520, 64  # px of the curve's picture, and its margin
_INK, _PALE = (40, 40, 40), (222, 222, 222)


def log_rows(log: Path) -> list[dict[str, str]]:
    """The lines of a run's log.csv, none where there is none."""
    if not log.is_file():
        return []
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


def overlay_sheet(
    gt: PseudoGT, samples: Samples, errors: JointErrors, out: Path, *, count: int, seed: int
) -> None:
    """Pairs of an image's part and the same with all of its fits drawn over it, of `count` random fits."""
    from neuralannot.images import write_image

    count = min(count, len(errors))
    chosen = np.sort(np.random.default_rng(seed).choice(len(errors), count, replace=False))
    columns = max(1, min(_PAIRS, count))
    lines = max(1, -(-count // columns))
    across, down = 2 * _TILE + _GAP, _TILE + _GAP
    sheet = np.full((lines * down + _GAP, columns * across + _GAP, 3), 24, np.uint8)
    for number, at in enumerate(chosen.tolist()):
        top, left = _GAP + number // columns * down, _GAP + number % columns * across
        sheet[top : top + _TILE, left : left + 2 * _TILE] = np.concatenate(
            _tiles(gt, samples, errors, at), axis=1
        )
    write_image(out, sheet)


def _tiles(gt: PseudoGT, samples: Samples, errors: JointErrors, at: int) -> list[np.ndarray]:
    """The crop of a fit's box, without and with the fits of its image; its id, and its error in the image."""
    import cv2

    from neuralannot.images import read_image
    from neuralannot.train.crops import crops_of, cut

    sample = errors.rows[at, 1]
    path = samples.image_path[sample]
    of_image = errors.rows[samples.image_path[errors.rows[:, 1]] == path, 0]
    image = read_image(samples.images / str(path))
    drawn = gt.rows(of_image).forward().overlay(image)
    crop = crops_of(replace(samples.rows(sample[None]), side=None), size=_TILE)  # hands as they are
    tiles = [cut(picture, crop.affine[0], _TILE) for picture in (image, drawn)]
    side = "" if samples.side is None else f" {samples.side[sample]}"
    for tile, text in zip(tiles, (f"{samples.ids[sample]}{side}", f"{errors.percent[at]:.1f}%"), strict=True):
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (5, _TILE - 7)
            cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thickness, cv2.LINE_AA)
    return tiles


def curve_picture(log: Path, out: Path) -> None:
    """The losses of a log over the steps, on a logarithmic scale; a grey line where the rate fell."""
    import cv2

    from neuralannot.images import write_image
    from neuralannot.render import PALETTE

    rows = log_rows(log)
    names = [n for n in (rows[0] if rows else {}) if n not in ("step", "lr", "images_per_second")]
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    steps = np.array([float(row["step"]) for row in rows])
    rates = np.array([float(row["lr"]) for row in rows])
    values = np.array([[float(row[name]) for name in names] for row in rows]).reshape(len(rows), len(names))
    seen = values[np.isfinite(values) & (values > 0)]
    low = np.floor(np.log10(seen.min())) if len(seen) else -1.0
    high = max(np.ceil(np.log10(seen.max())), low + 1) if len(seen) else 0.0

    def text(words: str, x: float, y: float, color: Sequence[int] = _INK) -> None:
        place = (round(x), round(y))
        cv2.putText(picture, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, tuple(color), 1, cv2.LINE_AA)

    def at(step: np.ndarray, value: np.ndarray) -> np.ndarray:
        x = _EDGE + step / max(1.0, steps.max(initial=1)) * (_WIDTH - 2 * _EDGE)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = (np.log10(value) - low) / (high - low)
        return np.stack([x, _HEIGHT - _EDGE - np.clip(part, 0, 1) * (_HEIGHT - 2 * _EDGE)], axis=-1)

    for power in range(int(low), int(high) + 1):
        (x, y), (end, _) = at(np.array([0.0, steps.max(initial=1)]), np.full(2, 10.0**power)).tolist()
        cv2.line(picture, (round(x), round(y)), (round(end), round(y)), _PALE, 1)
        text(f"1e{power}", 10, y + 5)
    for step in steps[1:][np.diff(rates) < 0]:
        x = round(float(at(step, np.array(1.0))[0]))
        cv2.line(picture, (x, _EDGE), (x, _HEIGHT - _EDGE), (150, 150, 150), 1)
        text("rate / 10", x + 4, _EDGE - 6)
    for number, name in enumerate(names):
        color = _INK if name == "total" else (PALETTE[number % len(PALETTE)] * 0.8).astype(int).tolist()
        fine = values[:, number] > 0
        points = np.rint(at(steps[fine], values[fine, number])).astype(np.int32)
        cv2.polylines(picture, [points], False, tuple(color), 2 if name == "total" else 1, cv2.LINE_AA)
        text(name, _EDGE + 130 * (number % 6), 20 + 18 * (number // 6), color)
    text("steps", _WIDTH // 2 - 20, _HEIGHT - 18)
    text("0", _EDGE, _HEIGHT - _EDGE + 20)
    text(f"{steps.max(initial=0):.0f}", _WIDTH - _EDGE - 30, _HEIGHT - _EDGE + 20)
    write_image(out, picture)
