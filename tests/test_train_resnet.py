"""The ResNets: torchvision's names, shapes and sums, and what is said of checkpoints that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuralannot.train.resnet import BACKBONES, ResNet, load_backbone_weights

# Parameters of torchvision's models with their classifier of 1,000 classes, as its pages list them.
COUNTS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160}


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_are_as_many_as_torchvision_s(name):
    backbone = ResNet(name)
    classifier = 1000 * backbone.width + 1000
    assert sum(p.numel() for p in backbone.parameters()) + classifier == COUNTS[name]


def test_names_are_torchvision_s():
    names = set(ResNet("resnet50").state_dict())
    for part in ("bn1.running_mean", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias"):
        assert part in names
    assert {"layer3.5.conv3.weight", "layer4.2.bn3.num_batches_tracked", "layer2.0.conv2.weight"} <= names
    assert "layer3.6.conv1.weight" not in names
    assert ResNet("resnet50").layer2[0].conv2.stride == (2, 2)  # torchvision's: at the 3x3
    assert "layer1.0.downsample.0.weight" not in set(ResNet("resnet18").state_dict())


def plainly(state: dict[str, torch.Tensor], x: torch.Tensor, counts: tuple[int, ...], bottleneck: bool):
    """The forward pass written from the paper's table, on a state dict."""

    def normed(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))

    x = functional.relu(normed(functional.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(counts, 1):
        for number in range(count):
            at, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            kept = x
            if f"{at}.downsample.0.weight" in state:
                kept = functional.conv2d(x, state[f"{at}.downsample.0.weight"], stride=stride)
                kept = normed(kept, f"{at}.downsample.1")
            steps = ((1, 1, 0), (2, stride, 1), (3, 1, 0)) if bottleneck else ((1, stride, 1), (2, 1, 1))
            for place, (conv, step, padding) in enumerate(steps):
                x = functional.conv2d(x, state[f"{at}.conv{conv}.weight"], stride=step, padding=padding)
                x = normed(x, f"{at}.bn{conv}")
                if place + 1 < len(steps):
                    x = functional.relu(x)
            x = functional.relu(x + kept)
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)


@pytest.mark.parametrize(
    ("name", "counts", "bottleneck"), [("resnet18", (2, 2, 2, 2), False), ("resnet50", (3, 4, 6, 3), True)]
)
def test_features_are_those_of_a_plain_twin(name, counts, bottleneck):
    torch.manual_seed(0)
    backbone = ResNet(name).double().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found = backbone(images)
        expected = plainly(backbone.state_dict(), images, counts, bottleneck)
    torch.testing.assert_close(found, expected)


def test_a_checkpoint_loads_and_its_classifier_is_named(tmp_path):
    torch.manual_seed(1)
    given, own = ResNet("resnet18"), ResNet("resnet18")
    state = given.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for number, content in enumerate((state, old, {"state_dict": state})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert list(load_backbone_weights(own, tmp_path / f"{number}.pth")) == ["fc.weight", "fc.bias"]
        torch.testing.assert_close(own.state_dict()["layer4.1.conv2.weight"], given.layer4[1].conv2.weight)


def test_safetensors_load(tmp_path):
    from safetensors.torch import save_file

    given, own = ResNet("resnet18"), ResNet("resnet18")
    save_file(given.state_dict(), str(tmp_path / "weights.safetensors"))
    assert list(load_backbone_weights(own, tmp_path / "weights.safetensors")) == []
    torch.testing.assert_close(own.conv1.weight, given.conv1.weight)


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_what_does_not_fit_is_said(tmp_path, capsys):
    own, path = ResNet("resnet18"), tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=r"weights\.pth: no such checkpoint"):
        load_backbone_weights(own, path)
    torch.save(ResNet("resnet34").state_dict(), path)
    with pytest.raises(ValueError, match=r"not the weights of a resnet18: \d+ unknown \(first: layer1\.2\."):
        load_backbone_weights(own, path)
    state = own.state_dict()
    state["conv1.weight"] = torch.zeros(64, 4, 7, 7)
    del state["bn1.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"1 missing \(first: bn1\.weight\); 1 of other shapes"):
        load_backbone_weights(own, path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="expected a state dict, names with tensors, got list"):
        load_backbone_weights(own, path)
    path.write_bytes(b"not a file of torch's")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_backbone_weights(own, path)
    torch.save({"conv1.weight": Evil()}, path)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_backbone_weights(own, path)
    assert "this ran" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown backbone 'resnet9'; expected one of resnet18, resnet34"):
        ResNet("resnet9")
