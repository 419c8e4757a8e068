"""The annotator: an image and, where a data set has them, its joints in; the human model's parameters out.

The paper's network (section 3.1): a ResNet, two fully connected layers that make 512 numbers of the GT 3D
joints, and one fully connected layer from both to the parameters. Each of the paper's ablations is an option
of `NetworkSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from neuralannot.parameters import human_model
from neuralannot.train.config import INPUTS, OUTPUTS
from neuralannot.train.priors import PosePrior
from neuralannot.train.resnet import STEM_WIDTH, ResNet
from neuralannot.train.rotations import (
    aligning_rotation,
    matrix_to_axis_angle,
    matrix_to_rotation6d,
    rotation6d_to_matrix,
)

# The virtual camera of the crops (the authors' word): focal length and side, in the crop's own pixels.
FOCAL, CROP = 5000.0, 256.0

# The parameter that holds the pose, how many of its rotations are predicted, and how many stay zero.
_POSE = {"smpl": ("body_pose", 21, 2), "smplx": ("body_pose", 21, 0), "mano": ("hand_pose", 15, 0)}
# Metres that a crop spans, from the nearest to the farthest, and at the start.
_SPANS = {
    "smpl": (0.2, 6.0, 2.2),
    "smplx": (0.2, 6.0, 2.2),
    "mano": (0.03, 1.2, 0.25),
    "flame": (0.04, 1.5, 0.3),
}
_JOINT_HIDDEN = 512


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made of; travels with its weights.

    `model`: the human model. `num_joints`: the joints of a sample. `inputs`: `image`, `joints` (3D for MoCap,
    2D as Gaussian heatmaps in the wild) or `image+joints`. `outputs`: `rotation6d`, or `latent`: the code of
    a pose prior of `latent` numbers. `camera`: whether a translation is predicted (in the wild).
    `map_size`: side of the heatmaps, a quarter of an image's, where 2D joints enter without one.
    `canonical_joints`: 3D joints enter as seen from the torso, and the root's rotation comes out relative to
    it. `joint_width`: numbers made of the 3D joints; `head_width`, `head_layers`: hidden layers before the
    last, none in the paper.
    """

    model: str
    num_joints: int
    backbone: str = "resnet50"
    inputs: str = "image+joints"
    outputs: str = "rotation6d"
    camera: bool = False
    latent: int = 0
    map_size: int = int(CROP) // 4
    canonical_joints: bool = True
    joint_width: int = 512
    head_width: int = 1024
    head_layers: int = 0

    def __post_init__(self) -> None:
        human_model(self.model)
        for name, value, known in (("inputs", self.inputs, INPUTS), ("outputs", self.outputs, OUTPUTS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.outputs == "latent" and (self.model == "flame" or self.latent < 1):
            raise ValueError(
                f"latent outputs need a pose prior; {self.model} with {self.latent} numbers has none"
            )

    @property
    def sees_images(self) -> bool:
        return self.inputs != "joints"

    @property
    def sees_joints(self) -> bool:
        return self.inputs != "image"

    def as_dict(self) -> dict[str, object]:
        """Plain values, for a checkpoint."""
        return asdict(self)


def parameter_widths(spec: NetworkSpec) -> dict[str, int]:
    """What the last layer puts out, by name, in its order: the numbers of each."""
    widths = {"global_orient": 6}
    if spec.model == "flame":
        widths |= {"jaw_pose": 6, "betas": 10, "expression": 10}
    else:
        pose, count, _ = _POSE[spec.model]
        widths |= {"latent": spec.latent} if spec.outputs == "latent" else {pose: 6 * count}
        widths["betas"] = 10
    return widths | ({"camera": 3} if spec.camera else {})


class Annotator(nn.Module):
    """The network of a `NetworkSpec`.

    `prior`: where it puts out latents, the pose prior that decodes them; its weights stay. `torso`: (P,)
    joints by which a body's heading shows, `rest_torso` (P, 3) metres where they are at rest; for canonical
    joints.
    """

    torso: Tensor
    rest_torso: Tensor

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        prior: PosePrior | None = None,
        torso: Tensor | None = None,
        rest_torso: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        if (prior is not None) != (spec.outputs == "latent"):
            raise ValueError(f"outputs {spec.outputs!r} with{'out' if prior is None else ''} a pose prior")
        self.prior = prior
        self.register_buffer("torso", torch.zeros(0, dtype=torch.int64) if torso is None else torso)
        self.register_buffer("rest_torso", torch.zeros(0, 3) if rest_torso is None else rest_torso)
        self.backbone = ResNet(spec.backbone) if spec.sees_images or spec.camera else None
        width = 0 if self.backbone is None else self.backbone.width
        heatmaps = spec.sees_joints and spec.camera
        self.joint_stem = _joint_stem(spec) if heatmaps else None
        if self.backbone is not None and not spec.sees_images:
            for layer in (self.backbone.conv1, self.backbone.bn1):
                layer.requires_grad_(False)  # heatmaps enter behind them
        self.joint_encoder = None
        if spec.sees_joints and not heatmaps:
            # Coordinates, which of them are there, and the rotation that was taken out of them.
            self.joint_encoder = nn.Sequential(
                nn.Linear(4 * spec.num_joints + 6, _JOINT_HIDDEN),
                nn.ReLU(inplace=True),
                nn.Linear(_JOINT_HIDDEN, spec.joint_width),
                nn.ReLU(inplace=True),
            )
            width += spec.joint_width
        layers: list[nn.Module] = []
        for _ in range(spec.head_layers):
            layers += [nn.Linear(width, spec.head_width), nn.ReLU(inplace=True)]
            width = spec.head_width
        self.widths = parameter_widths(spec)
        last = nn.Linear(width, sum(self.widths.values()))
        nn.init.normal_(last.weight, std=0.01 / max(1.0, (width / 512) ** 0.5))
        with torch.no_grad():
            last.bias.copy_(self._at_rest())
        self.head = nn.Sequential(*layers, last)

    def forward(
        self,
        images: Tensor | None = None,
        joints: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Crops and joints -> smplx's parameters, and `latent` where there is one.

        `images` (B, 3, S, S), normalised; `joints` (B, K, 3) metres in the camera's frame, or (B, K, 2) px of
        256 px crops in the wild, anything where `valid` (B, K) is False. Rotations come as axis-angle in
        radians. With a camera, `root` (B, 3) metres is where the root joint is in the virtual camera's frame;
        without, there is no place.
        """
        spec = self.spec
        features, heading = [], None
        if self.joint_stem is not None:
            assert joints is not None
            assert valid is not None
            features.append(self._with_heatmaps(images, joints, valid))
        elif self.backbone is not None:
            assert images is not None
            features.append(self.backbone(images))
        if self.joint_encoder is not None:
            assert joints is not None
            assert valid is not None
            seen, heading = self._seen(joints, valid)
            # Half precision rounds coordinates to millimetres: joints, head and body stay in full.
            with torch.autocast(seen.device.type, enabled=False):
                features.append(self.joint_encoder(seen))
        with torch.autocast(features[0].device.type, enabled=False):
            whole = [value.float() if value.dtype != torch.float64 else value for value in features]
            found = self.head(whole[0] if len(whole) == 1 else torch.cat(whole, 1))
            parts = dict(zip(self.widths, found.split(list(self.widths.values()), 1), strict=True))
            return self._turned(parts, heading) | (self._place(parts["camera"]) if spec.camera else {})

    def _turned(self, parts: Mapping[str, Tensor], heading: Tensor | None) -> dict[str, Tensor]:
        root = rotation6d_to_matrix(parts["global_orient"])
        out = {"global_orient": matrix_to_axis_angle(root if heading is None else heading @ root)}
        if self.spec.model == "flame":
            out["jaw_pose"] = matrix_to_axis_angle(rotation6d_to_matrix(parts["jaw_pose"]))
            out["expression"] = parts["expression"]
        else:
            pose, count, still = _POSE[self.spec.model]
            if self.prior is not None:
                out["latent"] = parts["latent"]
                rotvec = self.prior.decode_axis_angle(parts["latent"])
            else:
                rotvec = matrix_to_axis_angle(rotation6d_to_matrix(parts[pose].unflatten(1, (count, 6))))
            out[pose] = torch.cat([rotvec, rotvec.new_zeros(len(rotvec), still, 3)], 1) if still else rotvec
        return out | {"betas": parts["betas"]}

    def _place(self, camera: Tensor) -> dict[str, Tensor]:
        """Where the root joint is: in the crop's plane and at a bounded positive depth."""
        near, far, _ = _SPANS[self.spec.model]
        span = near * (far / near) ** torch.sigmoid(camera[:, 2:])  # metres from side to side of the crop
        return {"root": torch.cat([camera[:, :2] * span, span * (FOCAL / CROP)], 1)}

    def _seen(self, joints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The joints encoder's input, and the (B, 3, 3) rotation of the torso that was taken out of it."""
        joints = torch.where(valid[..., None], joints, torch.zeros_like(joints)).float()
        mask = valid[..., None].to(joints)
        centre = (joints * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp_min(1)
        with torch.autocast(joints.device.type, enabled=False):
            heading = torch.eye(3, device=joints.device).expand(len(joints), 3, 3)
            if self.spec.canonical_joints and len(self.torso):
                torso = joints.index_select(1, self.torso)
                rest = self.rest_torso.expand(len(joints), -1, 3)
                heading = aligning_rotation(rest, torso, valid.index_select(1, self.torso))
            turned = ((joints - centre) @ heading) * mask
        return torch.cat([turned.flatten(1), mask.flatten(1), matrix_to_rotation6d(heading)], 1), heading

    def _with_heatmaps(self, images: Tensor | None, joints: Tensor, valid: Tensor) -> Tensor:
        assert self.backbone is not None
        assert self.joint_stem is not None
        if images is None:
            return self.backbone.trunk(self.joint_stem(heatmaps(joints, valid, self.spec.map_size)))
        stem = self.backbone.stem(images)
        maps = heatmaps(joints, valid, stem.shape[2])
        return self.backbone.trunk(self.joint_stem(torch.cat([stem, maps.to(stem.dtype)], 1)))

    def _at_rest(self) -> Tensor:
        """The last layer's bias: a body at rest, upright in front of the camera."""
        parts = []
        upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up to y down, facing the camera
        for name, width in self.widths.items():
            value = torch.zeros(width)
            if name == "global_orient":
                seen_at_once = self.joint_encoder is not None and self.spec.canonical_joints
                hand = self.spec.model == "mano"
                value = matrix_to_rotation6d(torch.eye(3) if seen_at_once or hand else upright)
            elif name in ("body_pose", "hand_pose", "jaw_pose"):
                value = matrix_to_rotation6d(torch.eye(3)).repeat(width // 6)
            elif name == "camera":
                near, far, start = (torch.tensor(v) for v in _SPANS[self.spec.model])
                value[2] = torch.logit((start / near).log() / (far / near).log())
            parts.append(value)
        return torch.cat(parts)


def _joint_stem(spec: NetworkSpec) -> nn.Module:
    """Heatmaps, beside the image's first features where there is an image, -> what the trunk takes."""
    given = spec.num_joints + (STEM_WIDTH if spec.sees_images else 0)
    conv = nn.Conv2d(given, STEM_WIDTH, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(STEM_WIDTH), nn.ReLU(inplace=True))


def heatmaps(joints: Tensor, valid: Tensor, side: int, *, sigma: float = 2.5) -> Tensor:
    """(B, K, 2) px of 256 px crops, (B, K) bool -> (B, K, side, side) Gaussians, zero where not valid.

    `sigma`: in pixels of a 64 px map, as Moon et al. use it.
    """
    with torch.no_grad():
        at = torch.where(valid[..., None], joints, torch.zeros_like(joints)).float() * (side / CROP)
        grid = torch.arange(side, device=joints.device, dtype=torch.float32)
        spread = 2 * (sigma * side / 64) ** 2
        x = torch.exp(-((grid - at[..., :1]) ** 2) / spread)
        y = torch.exp(-((grid - at[..., 1:]) ** 2) / spread)
        return y[..., None] * x[..., None, :] * valid[..., None, None]


def project(points: Tensor) -> Tensor:
    """(B, K, 3) metres in the virtual camera's frame -> (B, K, 2) px of 256 px crops."""
    # A point that a wild guess puts behind the camera must not turn its gradient round.
    depth = points[..., 2:].clamp_min(0.1)
    return points[..., :2] / depth * FOCAL + CROP / 2
