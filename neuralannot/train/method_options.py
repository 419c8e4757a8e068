"""How a data set can be annotated, and the options of each way; in plain values, so that a command line that
lists them loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "CAMERAS",
    "JOINTS",
    "METHODS",
    "REFINED",
    "SETTINGS",
    "WITHOUT_NETWORK",
    "EftOptions",
    "MethodOptions",
    "RefineOptions",
    "SmplifyOptions",
    "check_options",
]

#: Name -> what it is.
METHODS = {
    "refined": "the network's estimates, then least squares on the joints",
    "network": "the network's estimates as they are, the paper's",
    "fitted": "least squares on the joints, without a network",
    "smplify": "SMPLify-X, without a network",
    "spin": "SPIN's rule: SMPLify-X from the network's estimates and from rest, the nearer to the joints",
    "eft": "EFT's rule: the network tuned to each sample",
}
WITHOUT_NETWORK = ("fitted", "smplify")
#: Those that end in least squares.
REFINED = ("refined", "fitted")
#: SMPLify-X's settings, and what the joints are like.
SETTINGS = ("published", "tuned")
JOINTS = ("clean", "noisy", "missing")
#: What pictures are seen through, where no camera is known.
CAMERAS = {
    "image": "focal length as long as the image's diagonal, principal point in its middle",
    "crop": "the release's virtual camera of the crop, 5000 for 256 px",
}


@dataclass(frozen=True)
class RefineOptions:
    """`noise`: standard deviation of a joint's coordinate, metres with GT 3D joints and px of 256 px crops in
    the wild; None measures it on the data set. `share_shape`: whether all of a person's frames have one
    shape (faces never: their codes are their expressions too). `near`: radians by which the network's
    rotations are off, at one standard deviation, so that the fit stays about them; None leaves them to be the
    start alone. `smooth`: radians by which a rotation is off the mean of the frames before and after it
    (times the root of two), where frames are consecutive; None for frames that do not know of each other.
    `adapt`: whether the prior of the poses is adapted to the data set's own fits. `camera`: of `CAMERAS`, how
    pictures were taken; `focal`: px of the whole images, for `image` (None: their diagonal).
    Raises ValueError for numbers that are not positive and cameras that there are not."""

    noise: float | None = None
    share_shape: bool = True
    near: float | None = None
    smooth: float | None = None
    adapt: bool = True
    camera: str = "image"
    focal: float | None = None

    def __post_init__(self) -> None:
        for name in ("noise", "near", "smooth"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        _check_camera(self.camera, self.focal)


@dataclass(frozen=True)
class SmplifyOptions:
    """`setting`: of `SETTINGS`, see docs/smplify.md; `joints`: of `JOINTS`, what they are like, for the tuned
    one; `prior`: of the latents that pictures are fitted by, as of `load_prior` (default: the open one for
    bodies, MANO's components for hands, as published 12 of them); `camera`, `focal`: as of `RefineOptions`,
    by default the one that the paper has. Raises ValueError for settings, joints and cameras that there are
    not, and a focal length that is not positive."""

    setting: str = "published"
    joints: str = "clean"
    prior: str = ""
    camera: str = "crop"
    focal: float | None = None

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {self.setting!r}")
        _check_camera(self.camera, self.focal)
        if self.joints not in JOINTS:
            raise ValueError(f"joints must be one of {', '.join(JOINTS)}, got {self.joints!r}")


@dataclass(frozen=True)
class EftOptions:
    """`steps` of Adam on one sample, at most; `lr`, its rate: 5e-6 is EFT's, for a ResNet-50; `enough`: stop
    where the loss is below, 0 never. Raises ValueError for numbers that mean nothing."""

    steps: int = 20
    lr: float = 5e-6
    enough: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or self.enough < 0:
            raise ValueError(
                f"steps must be at least 1, lr positive and enough not negative, got {self.steps}, "
                f"{self.lr}, {self.enough}"
            )


@dataclass(frozen=True)
class MethodOptions:
    """`refine`: of refined and fitted; `smplify`: of smplify and spin; `eft`: of eft."""

    refine: RefineOptions = field(default_factory=RefineOptions)
    smplify: SmplifyOptions = field(default_factory=SmplifyOptions)
    eft: EftOptions = field(default_factory=EftOptions)


def check_options(method: str, options: MethodOptions) -> None:
    """Raise ValueError for an unknown method, and options that it has no use of."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method not in REFINED and options.refine != RefineOptions():
        raise ValueError(
            f"the method {method} refines nothing; its estimates have no noise, near, smooth, shapes, "
            "camera or prior to adapt"
        )
    if method in WITHOUT_NETWORK and options.refine.near is not None:
        raise ValueError(f"near is for rotations near the network's; {method} has no network")
    if method not in ("smplify", "spin") and options.smplify != SmplifyOptions():
        raise ValueError(f"the method {method} does not optimise; smplify's options are for smplify and spin")
    if method == "spin" and options.smplify.camera != "crop":
        raise ValueError("spin begins with the network's estimates, whose camera is the crop's")
    if method != "eft" and options.eft != EftOptions():
        raise ValueError(f"the method {method} tunes no network; eft's options are for eft")


def _check_camera(camera: str, focal: float | None) -> None:
    if camera not in CAMERAS:
        raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}")
    if focal is not None and not focal > 0:
        raise ValueError(f"focal must be positive, got {focal}")
    if focal is not None and camera != "image":
        raise ValueError(f"focal is of the image's camera; the camera {camera!r} has its own")
