"""ResNet-18, 34, 50 and 101 (He et al., 2016) as feature extractors, with torchvision's parameter names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

# Blocks of each stage, and whether they are bottlenecks (three convolutions, four times as wide at the end).
_STAGES = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}
BACKBONES = tuple(_STAGES)
STEM_WIDTH = 64
_CLASSIFIER = ("fc.weight", "fc.bias")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inplanes, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        sums: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return sums


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut; the stride is the 3x3's, as in torchvision."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inplanes, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        sums: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return sums


class ResNet(nn.Module):
    """Images (B, 3, H, W) -> features (B, `width`), averaged over the image.

    `stem` gives what the first convolution and the pooling make of an image, (B, 64, H/4, W/4), and `trunk`
    the features of that: what else is known of a picture joins between the two.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in _STAGES:
            raise ValueError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
        counts, bottleneck = _STAGES[name]
        block = Bottleneck if bottleneck else BasicBlock
        self.name, self.width = name, 512 * block.expansion
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inplanes = STEM_WIDTH
        for stage, count in enumerate(counts):
            planes = STEM_WIDTH * 2**stage
            blocks: list[nn.Module] = []
            for number in range(count):
                blocks.append(block(inplanes, planes, 2 if stage and not number else 1))
                inplanes = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.reset()

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64, H/4, W/4)."""
        features: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return features

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 64, H/4, W/4) -> (B, `width`)."""
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))

    def reset(self) -> None:
        """Weights anew, as in He et al., 2015; a block starts as its shortcut, which trains more steadily."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)


def load_backbone_weights(backbone: ResNet, path: str | os.PathLike[str]) -> Sequence[str]:
    """Load a checkpoint of torchvision's (a state dict, .pth or .safetensors), for instance ImageNet's.

    Returns the names that were left out: the classifier's, `fc.weight` and `fc.bias`. Anything else must fit
    by name and shape. Raises FileNotFoundError; ValueError that names what does not fit. The file cannot run
    code: only tensors are read.
    """
    path = Path(path)
    state = _read_state(path)
    ignored = [name for name in _CLASSIFIER if name in state]
    given = {name: value for name, value in state.items() if name not in _CLASSIFIER}
    own = backbone.state_dict()
    # Checkpoints of before 2018 do not count batches.
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(given) - optional)
    strange = sorted(set(given) - set(own))
    shapes = [n for n in given if n in own and given[n].shape != own[n].shape]
    if missing or strange or shapes:
        what = [
            f"{len(names)} {text} (first: {names[0]})"
            for names, text in ((missing, "missing"), (strange, "unknown"), (shapes, "of other shapes"))
            if names
        ]
        raise ValueError(f"{path}: not the weights of a {backbone.name}: {'; '.join(what)}")
    backbone.load_state_dict(given, strict=False)
    return ignored


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise ValueError(f"{path}: reading .safetensors takes `pip install neuralannot[train]`") from None
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean that this is no file of weights
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as weights: {reason:.160}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: expected a state dict, names with tensors, got {type(state).__name__}")
    return state


def _conv3x3(inplanes: int, planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)


def _shortcut(inplanes: int, planes: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inplanes == planes:
        return None
    conv = nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(planes))
