"""What a studio is made of: the layouts, and the settings that decide every number in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from neuralannot.synthetic.motions import load_poses


@dataclass(frozen=True)
class Layout:
    """A released layout that the studio writes.

    `models`: whose parameters can be the truth, the default first; `views`: cameras a frame, None where every
    image has its own; `unit`: of joint noise, `mm` or `px`; `flags_joints`: whether it can mark a joint as
    missing; `image_size`: width and height px by default, None where sizes vary as in the data set.
    """

    name: str
    models: tuple[str, ...]
    views: int | None
    unit: str
    flags_joints: bool
    image_size: tuple[int, int] | None


#: Name -> layout: the data sets that a studio can be written as.
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("human36m", ("smpl", "smplx"), 4, "mm", False, (1000, 1000)),
            Layout("mscoco", ("smplx",), None, "px", True, None),
            Layout("interhand26m", ("mano",), 4, "mm", True, (334, 512)),
            Layout("ffhq", ("flame",), None, "px", True, (512, 512)),
        )
    }
)
_WITH_BODIES = ("human36m", "mscoco")
_SMALLEST, _LARGEST = 32, 8192  # px


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a studio holds: the same settings, the same bytes.

    `image_size`: (width, height) px or None; `views`: cameras a frame, 1 in the wild; `noise`: standard
    deviation of the joints' noise in the layout's unit; `missing`: share of the joints left out;
    `body_models`: the folder of official files, None for the open body; `regressor`: the file of the data
    set's regressor for those; `clips`: the motions that bodies' poses are of, all where empty.
    """

    layout: str
    count: int
    seed: int
    image_size: tuple[int, int] | None
    views: int
    noise: float
    missing: float
    model: str
    body_models: str | None
    regressor: str | None
    clips: tuple[str, ...] = ()

    def rng(self, *stream: int) -> np.random.Generator:
        """A generator of its own for each `stream` of numbers (what is drawn, which frame, ...)."""
        return np.random.default_rng([self.seed, list(LAYOUTS).index(self.layout), *stream])

    def as_json(self) -> dict[str, Any]:
        """The settings as a JSON file gives them back."""
        values = asdict(self)
        values["image_size"] = None if self.image_size is None else list(self.image_size)
        values["clips"] = list(self.clips)
        return values


def checked_settings(
    *,
    layout: str,
    count: int,
    seed: int,
    image_size: Any,
    views: int | None,
    noise_mm: float,
    noise_px: float,
    missing: float,
    model: str | None,
    body_models: str | None,
    regressor: str | None,
    clips: Sequence[str] = (),
) -> Settings:
    """The arguments of `make_studio`, checked. Raises ValueError that says what is allowed."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    kind = LAYOUTS[layout]
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"count must be a number of images of at least 1, got {count!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}")
    model = kind.models[0] if model is None else model
    if model not in kind.models:
        raise ValueError(f"{layout} has people of {' or '.join(kind.models)}, not of {model!r}")
    if views is not None and kind.views is None:
        raise ValueError(f"every image of {layout} has a camera of its own; leave views out")
    cameras = 1 if kind.views is None else (kind.views if views is None else views)
    if not 1 <= cameras <= 16:
        raise ValueError(f"views must be 1 to 16 cameras a frame, got {views!r}")
    if count % cameras:
        low = count - count % cameras
        raise ValueError(
            f"count must be a multiple of the {cameras} views, since all cameras see every frame; got "
            f"{count}, the next are {f'{low} and ' if low else ''}{low + cameras}"
        )
    other, wrong = ("noise_px", noise_px) if kind.unit == "mm" else ("noise_mm", noise_mm)
    if wrong:
        raise ValueError(f"{layout}'s joints are in {kind.unit}; use noise_{kind.unit} instead of {other}")
    noise = noise_mm if kind.unit == "mm" else noise_px
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise_{kind.unit} must be at least 0, got {noise!r}")
    if not 0 <= missing < 1:
        raise ValueError(f"missing must be a share of the joints from 0 to below 1, got {missing!r}")
    if missing and not kind.flags_joints:
        raise ValueError(
            f"{layout}'s layout has no place to say that a joint is missing; use missing=0, and leave joints "
            "out where they are read"
        )
    if regressor is not None and (body_models is None or layout not in ("human36m", "mscoco")):
        raise ValueError(
            "regressor is the data set's own for official bodies of human36m and mscoco; the open body has "
            "its own"
        )
    clips = tuple(clips)
    if clips and layout not in _WITH_BODIES:
        raise ValueError(f"{layout} has no bodies that move; leave clips out")
    known = load_poses().names if clips else ()
    strange = [name for name in clips if name not in known]
    if strange:
        raise ValueError(f"unknown clip {strange[0]!r}; the motions are {', '.join(known)}")
    size = _checked_size(image_size) or kind.image_size
    return Settings(
        layout,
        int(count),
        int(seed),
        size,
        int(cameras),
        float(noise),
        float(missing),
        model,
        body_models,
        regressor,
        clips,
    )


def _checked_size(image_size: Any) -> tuple[int, int] | None:
    if image_size is None:
        return None
    values = (image_size, image_size) if isinstance(image_size, (int, np.integer)) else image_size
    try:
        width, height = (int(side) for side in values)
    except (TypeError, ValueError):
        raise ValueError(f"image_size must be one number or (width, height) px, got {image_size!r}") from None
    if not (_SMALLEST <= width <= _LARGEST and _SMALLEST <= height <= _LARGEST):
        raise ValueError(f"image_size must be {_SMALLEST} to {_LARGEST} px a side, got {image_size!r}")
    return width, height
