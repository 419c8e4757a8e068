"""`check_samples`: what of a data set can be used, why the rest cannot, and a sheet of crops to look at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from neuralannot.images import is_cut_short, read_image, write_image
from neuralannot.joint_sets import JointSet
from neuralannot.render import PALETTE, draw_joints
from neuralannot.train.crops import CROP_UNITS, Crops, crops_of, cut
from neuralannot.train.samples import Samples, Skip

__all__ = ["IMAGE_REASONS", "CheckReport", "ImageTrouble", "check_samples"]

#: Why an image is of no use.
IMAGE_REASONS = ("missing", "unreadable", "another size")

_TILE = 224  # px of a crop on the sheet
_COLUMNS = 8
_GAP, _GROUND = 4, 24
# Left and right in colours that stand apart, so that swapped sides are seen; fingers each in their own.
_SIDE_COLORS = {"left_": (86, 156, 255), "right_": (255, 138, 76), "": (255, 224, 90)}
# A colour, (J,) bool which joints, and (E, 2) edges between these.
_Stroke = tuple[tuple[int, int, int], np.ndarray, np.ndarray]
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")


@dataclass(frozen=True)
class ImageTrouble:
    """An image that is of no use: its path below the folder, one of `IMAGE_REASONS`, and what exactly."""

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What `check_samples` found; `str()` of it is text for people.

    Fields
    ------
    data_set, images: as of the samples.
    count: how many samples there are. usable: (N,) bool, those whose image can be used.
    skipped: what the reader left out. troubles: the images that are of no use, in the order of their paths.
    rows_by_reason: image reason -> how many samples it costs.
    joint_set: of the joints; joint_rate: (J,) share of the samples that have each joint.
    outside_image, outside_crop: share of the valid joints that are not in their image or crop.
    sheet: the contact sheet, None where there was nothing to show; shown: the rows on it.
    """

    data_set: str
    images: Path
    count: int
    image_count: int
    is_mocap: bool
    usable: np.ndarray
    skipped: tuple[Skip, ...]
    troubles: tuple[ImageTrouble, ...]
    rows_by_reason: dict[str, int]
    joint_set: JointSet
    joint_rate: np.ndarray
    outside_image: float
    outside_crop: float
    sheet: Path | None
    shown: np.ndarray

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        kind = "3D, calibrated cameras" if self.is_mocap else "2D, in the wild"
        yield f"{self.data_set}: {self.count + len(self.skipped)} samples, {self.usable.sum()} usable"
        yield f"  images in {self.images}: {self.image_count}, {len(self.troubles)} of no use"
        yield f"  joints: {self.joint_set.name} ({len(self.joint_set)}, {kind})"
        if self.skipped:
            yield "left out, by their annotation:"
            yield from _counted([(s.reason, f"annotation {s.id}", s.detail) for s in self.skipped])
        if self.troubles:
            yield "left out, by their image:"
            for reason in IMAGE_REASONS:
                found = [t for t in self.troubles if t.reason == reason]
                if found:
                    detail = f" ({found[0].detail})" if found[0].detail else ""
                    files = (
                        f"{len(found)} image{'s' if len(found) > 1 else ''}, first {found[0].path}{detail}"
                    )
                    yield f"  {self.rows_by_reason[reason]:>8}  {'image ' + reason:<20} {files}"
        if self.count:
            low = np.argsort(self.joint_rate, kind="stable")[:3]
            rare = ", ".join(f"{self.joint_set.joints[j]} {self.joint_rate[j]:.0%}" for j in low)
            yield f"joints annotated: {self.joint_rate.mean():.1%}; least often {rare}"
            outside = (
                f"{self.outside_image:.1%} outside their image, {self.outside_crop:.1%} outside their crop"
            )
            yield f"of these, {outside}"
        if self.sheet is None:
            yield "no contact sheet: nothing to show"
        else:
            yield f"contact sheet of {len(self.shown)}: {self.sheet}"


def _counted(entries: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A line each reason, the most frequent first, with the first entry that it holds for."""
    counts: dict[str, int] = {}
    firsts: dict[str, str] = {}
    for reason, what, detail in entries:
        counts[reason] = counts.get(reason, 0) + 1
        firsts.setdefault(reason, f"first {what}" + (f" ({detail})" if detail else ""))
    for reason in sorted(counts, key=lambda r: -counts[r]):
        yield f"  {counts[reason]:>8}  {reason:<20} {firsts[reason]}"


def check_samples(
    samples: Samples,
    out: str | os.PathLike[str],
    *,
    count: int = 48,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> CheckReport:
    """Decode every image, count what cannot be used, and draw `count` random crops with their joints.

    `out`: the contact sheet, `.jpg` or `.png`, its folder made if need be; crops are those that a network
    sees, left hands mirrored, with the annotated box and the joints: left ones blue, right ones orange, of
    hands each finger in a colour. `workers`: threads that decode, the machine's cores by default. `progress`
    shows a bar.

    An image that is missing, broken, cut short, or of another size than its annotation says is of no use, and
    so are its samples. Raises ValueError where `count` is negative, `workers` not positive or `out` of
    another kind, before images are read; OSError where the sheet cannot be written.
    """
    out = Path(out)
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be a positive number, got {workers}")
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ValueError(
            f"{out}: a contact sheet is written as .jpg or .png, got {out.suffix or 'no suffix'!r}"
        )
    workers = workers or os.cpu_count() or 1
    names, of_image = np.unique(samples.image_path, return_inverse=True)
    troubles = _image_troubles(samples, names, of_image, workers, progress)
    fine = np.array([t is None for t in troubles], bool)
    usable = fine[of_image] if len(samples) else np.zeros(0, bool)
    by_reason = dict.fromkeys(IMAGE_REASONS, 0)
    rows_each = np.bincount(of_image, minlength=len(names)) if len(names) else np.zeros(0, int)
    for trouble, rows in zip(troubles, rows_each.tolist(), strict=True):
        if trouble is not None:
            by_reason[trouble.reason] += rows

    rows = np.flatnonzero(usable)
    if len(rows) > count:
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    if len(rows):
        _draw_sheet(samples.rows(rows), out, workers)
    valid = samples.valid
    return CheckReport(
        data_set=samples.data_set,
        images=samples.images,
        count=len(samples),
        image_count=len(names),
        is_mocap=samples.is_mocap,
        usable=usable,
        skipped=samples.skipped,
        troubles=tuple(t for t in troubles if t is not None),
        rows_by_reason={reason: n for reason, n in by_reason.items() if n},
        joint_set=samples.joint_set,
        joint_rate=valid.mean(axis=0) if len(samples) else np.zeros(len(samples.joint_set)),
        outside_image=_share_outside(samples.joints_2d, np.zeros(2), samples.image_size[:, None] - 1),
        outside_crop=_share_outside(
            crops_of(samples).to_crop(samples.joints_2d), np.zeros(2), np.full(2, CROP_UNITS)
        ),
        sheet=out if len(rows) else None,
        shown=rows,
    )


def _share_outside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    there = np.isfinite(points).all(axis=-1)
    with np.errstate(invalid="ignore"):
        outside = there & ((points < low) | (points > high)).any(axis=-1)
    return float(outside.sum() / max(1, there.sum()))


def _image_troubles(
    samples: Samples, names: np.ndarray, of_image: np.ndarray, workers: int, progress: bool
) -> list[ImageTrouble | None]:
    """What is wrong with each of the images `names`; None where nothing is."""
    if not len(names):
        return []
    # All rows of an image say the same size, as it comes from one entry of the file.
    first = np.zeros(len(names), np.int64)
    first[of_image[::-1]] = np.arange(len(of_image))[::-1]
    sizes = samples.image_size[first].tolist()

    def look(number: int) -> ImageTrouble | None:
        return _image_trouble(samples.images, str(names[number]), tuple(sizes[number]))

    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(names), desc="images", unit="image", disable=not progress) as bar,
    ):
        found = []
        # By pieces: a queue of a million tasks would hold more than it is worth.
        for begin in range(0, len(names), 1024):
            for trouble in pool.map(look, range(begin, min(begin + 1024, len(names)))):
                found.append(trouble)
                bar.update()
    return found


def _image_trouble(folder: Path, name: str, size: tuple[int, int]) -> ImageTrouble | None:
    path = folder / name
    try:
        if is_cut_short(path.read_bytes()):
            return ImageTrouble(name, "unreadable", "the file is cut short")
        height, width = read_image(path).shape[:2]
    except FileNotFoundError:
        return ImageTrouble(name, "missing")
    except (OSError, ValueError) as error:
        return ImageTrouble(name, "unreadable", str(error))
    if (width, height) != size and min(size) > 0:
        return ImageTrouble(name, "another size", f"{width}x{height} px, annotated as {size[0]}x{size[1]}")
    return None


def _draw_sheet(samples: Samples, out: Path, workers: int) -> None:
    crops = crops_of(samples, size=_TILE)
    points = crops.to_crop(samples.joints_2d) * np.float32(_TILE / CROP_UNITS)
    strokes = _colored(samples.joint_set)
    with ThreadPoolExecutor(workers) as pool:
        tiles = list(
            pool.map(lambda row: _tile(samples, crops, row, points[row], strokes), range(len(samples)))
        )
    columns = min(_COLUMNS, len(tiles))
    lines = -(-len(tiles) // columns)
    step = _TILE + _GAP
    sheet = np.full((lines * step + _GAP, columns * step + _GAP, 3), _GROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = _GAP + number // columns * step, _GAP + number % columns * step
        sheet[top : top + _TILE, left : left + _TILE] = tile
    write_image(out, sheet)


def _tile(
    samples: Samples,
    crops: Crops,
    row: int,
    points: np.ndarray,
    strokes: Sequence[_Stroke],
) -> np.ndarray:
    """One crop with its box, joints and annotation id."""
    import cv2

    tile = cut(read_image(samples.images / str(samples.image_path[row])), crops.affine[row], _TILE)
    x, y, w, h = samples.box_xywh[row].astype(np.float64)
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    outline = corners @ crops.affine[row, :, :2].T + crops.affine[row, :, 2]
    cv2.polylines(tile, [np.rint(outline).astype(np.int32)], True, (150, 150, 150), 1, cv2.LINE_AA)
    for color, mask, edges in strokes:
        tile = draw_joints(tile, points, edges=edges, valid=mask, color=color, radius=2)
    label = str(samples.ids[row]) + (f" {samples.side[row]}" if samples.side is not None else "")
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, label, (5, _TILE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, thickness, cv2.LINE_AA)
    return tile


def _colored(joint_set: JointSet) -> list[_Stroke]:
    """Bones by colour, then joints by colour, so that no bone's end covers a joint of another colour.

    A bone has the colour of its farther end.
    """
    # Sides say nothing where all joints are of one: fingers then do.
    if all(j.startswith("right_") for j in joint_set.joints) and not joint_set.flip_pairs:
        reds, greens, blues = PALETTE[: len(_FINGERS)].T.tolist()
        colors = dict(zip(_FINGERS, zip(reds, greens, blues, strict=True), strict=True))
        names = [next((f for f in _FINGERS if f in j), "") for j in joint_set.joints]
        colors[""] = (255, 255, 255)
    else:
        colors = dict(_SIDE_COLORS)
        names = [next(s for s in _SIDE_COLORS if j.startswith(s)) for j in joint_set.joints]
    bones, joints = [], []
    for name, color in colors.items():
        edges = [(a, b) for a, b in joint_set.skeleton if (names[b] or names[a]) == name]
        ends = np.zeros(len(names), bool)
        ends[[end for edge in edges for end in edge]] = True
        bones.append((color, ends, np.array(edges, np.int64).reshape(-1, 2)))
        joints.append((color, np.array([n == name for n in names], bool), np.zeros((0, 2), np.int64)))
    return bones + joints
