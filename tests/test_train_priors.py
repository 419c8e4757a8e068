"""Pose priors: VPoser's published architecture, MANO's PCA as smplx has it, and the open prior that ships."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smplx_layers import open_arrays
from torch import Tensor, nn
from torch.nn import functional

import neuralannot
from neuralannot.train.priors import PcaPrior, PosePrior, load_prior, load_vposer, mano_prior, open_prior
from neuralannot.train.rotations import axis_angle_to_matrix

PACKAGE = Path(neuralannot.__file__).parent
OPEN_BODIES = PACKAGE / "body_models" / "open"
POSES = PACKAGE / "synthetic" / "poses.npz"


# -- twins of the two published networks, written from their description: layer by layer, one joint at a time


def columns_to_rotation(values: np.ndarray) -> np.ndarray:
    """Six numbers as (3, 2) -> a rotation, by Gram and Schmidt in float64."""
    a, b = values.reshape(3, 2).T
    first = a / np.linalg.norm(a)
    second = b - (first @ b) * first
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], 1)


class PublishedV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_enc_bn1 = nn.BatchNorm1d(63)
        self.bodyprior_enc_fc1 = nn.Linear(63, 512)
        self.bodyprior_enc_bn2 = nn.BatchNorm1d(512)
        self.bodyprior_enc_fc2 = nn.Linear(512, 512)
        self.bodyprior_enc_mu = nn.Linear(512, 32)
        self.bodyprior_enc_logvar = nn.Linear(512, 32)
        self.bodyprior_dec_fc1 = nn.Linear(32, 512)
        self.bodyprior_dec_fc2 = nn.Linear(512, 512)
        self.bodyprior_dec_out = nn.Linear(512, 126)

    def decode(self, z: Tensor) -> Tensor:
        z = functional.leaky_relu(self.bodyprior_dec_fc1(z), negative_slope=0.2)
        z = functional.leaky_relu(self.bodyprior_dec_fc2(z), negative_slope=0.2)
        return self.bodyprior_dec_out(z)

    def encode(self, pose: Tensor) -> Tensor:
        x = self.bodyprior_enc_bn1(pose)
        x = self.bodyprior_enc_bn2(functional.leaky_relu(self.bodyprior_enc_fc1(x), negative_slope=0.2))
        return self.bodyprior_enc_mu(functional.leaky_relu(self.bodyprior_enc_fc2(x), negative_slope=0.2))


class PublishedV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        heads = nn.Module()
        heads.mu, heads.logvar = nn.Linear(512, 32), nn.Linear(512, 32)
        self.encoder_net = nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(63),
            nn.Linear(63, 512),
            nn.LeakyReLU(),
            nn.BatchNorm1d(512),
            nn.Dropout(0.1),
            nn.Linear(512, 512),
            nn.Linear(512, 512),
            heads,
        )
        self.decoder_net = nn.Sequential(
            nn.Linear(32, 512),
            nn.LeakyReLU(),
            nn.Dropout(0.1),
            nn.Linear(512, 512),
            nn.LeakyReLU(),
            nn.Linear(512, 126),
        )

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder_net(z)

    def encode(self, pose: Tensor) -> Tensor:
        return self.encoder_net[8].mu(self.encoder_net[:8](pose))


def published(version: int) -> nn.Module:
    torch.manual_seed(version)
    twin = PublishedV1() if version == 1 else PublishedV2()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm1d):  # as after training: not the identity
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value, 0.3, 0.5)
            nn.init.uniform_(module.running_var, 0.01, 2)
    return twin.eval()


def checkpoint_of(version: int, twin: nn.Module, folder: Path) -> Path:
    """A folder as downloaded: version 1's tensors alone, version 2's as Lightning's checkpoint."""
    (folder / "snapshots").mkdir(parents=True)
    if version == 1:
        torch.save(
            twin.state_dict(), folder / "snapshots" / "TR00_E096.pt", _use_new_zipfile_serialization=False
        )
    else:
        tensors = {f"vp_model.{name}": value for name, value in twin.state_dict().items()}
        tensors["bm_train.init_v_template"] = torch.zeros(1, 10, 3)
        torch.save({"epoch": 13, "state_dict": tensors}, folder / "snapshots" / "V02_05_epoch=13.ckpt")
    return folder


@pytest.mark.parametrize("version", [1, 2])
def test_vposer_is_the_published_network(version: int, tmp_path: Path) -> None:
    twin = published(version)
    prior = load_vposer(checkpoint_of(version, twin, tmp_path / "vposer"))
    assert (prior.latent, prior.num_joints, prior.name) == (32, 21, f"VPoser v{version}")
    z = 2 * torch.randn(5, 32)
    with torch.no_grad():
        columns = twin.decode(z).reshape(5, 21, 6).double().numpy()
        expected = np.array([[columns_to_rotation(joint) for joint in row] for row in columns])
        np.testing.assert_allclose(prior.decode(z).numpy(), expected, atol=2e-5)
        pose = torch.randn(7, 21, 3)
        np.testing.assert_allclose(prior.encode(pose), twin.encode(pose.flatten(1)), atol=1e-5, rtol=1e-4)
    assert load_prior(f"vposer:{tmp_path / 'vposer'}", "smplx").fingerprint == prior.fingerprint


def test_one_file_is_enough_and_two_need_a_choice(tmp_path: Path) -> None:
    folder = checkpoint_of(1, published(1), tmp_path / "v")
    file = folder / "snapshots" / "TR00_E096.pt"
    of_folder = load_vposer(folder).fingerprint
    assert load_vposer(file).fingerprint == of_folder
    (folder / "snapshots" / "TR00_E001.pt").write_bytes(file.read_bytes())
    with pytest.raises(
        ValueError, match=r"holds 2 checkpoints \(TR00_E001.pt, TR00_E096.pt\); pass the path"
    ):
        load_vposer(folder)
    assert load_vposer(file).fingerprint == of_folder


def lightning_module(name: str, *made: str) -> types.ModuleType:
    """A module that is there when the checkpoint is written, and gone when it is read."""
    module = types.ModuleType(name)
    for kind in made:
        base = dict if kind.endswith("Dict") else object
        setattr(module, kind, type(kind, (base,), {"__module__": name}))
    sys.modules[name] = module
    return module


def test_classes_that_a_lightning_checkpoint_names_are_passed_over(tmp_path: Path) -> None:
    twin = published(2)
    module = lightning_module("absent_lightning", "ModelCheckpoint", "AttributeDict", "Options")
    try:
        options = module.Options()
        options.work_dir, options.sizes = "somewhere", [1, 2]
        file = tmp_path / "model.ckpt"
        torch.save(
            {
                "callbacks": {module.ModelCheckpoint: {"best": torch.tensor(0.1), "path": "x"}},
                "hyper_parameters": module.AttributeDict(vp_ps=options, rate=1e-3),
                "scale": np.float64(1.5),
                "state_dict": {f"vp_model.{k}": v for k, v in twin.state_dict().items()},
            },
            file,
        )
    finally:
        del sys.modules["absent_lightning"]
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    alone = checkpoint_of(2, twin, tmp_path / "alone")
    assert load_vposer(file).fingerprint == load_vposer(alone).fingerprint
    assert "absent_lightning" not in sys.modules


class Runs:
    """Pickles as a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    twin = published(2)
    source, mark = str(tmp_path / "source"), str(tmp_path / "ran")
    Path(source).write_text("x")
    alone = checkpoint_of(2, twin, tmp_path / "alone")

    def save(name: str, *call: object, zipped: bool = True) -> Path:
        content = {"state_dict": twin.state_dict(), "callbacks": Runs(*call)}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        return tmp_path / name

    passed_over = save("named.pt", shutil.copyfile, source, mark)
    assert load_vposer(passed_over).fingerprint == load_vposer(alone).fingerprint
    refused = [
        save("system.pt", os.mkdir, mark),
        save("method.pt", Path.touch, Path(mark)),
        save("old.pt", shutil.copyfile, source, mark, zipped=False),
    ]
    for file in refused:
        with pytest.raises(ValueError, match=rf"{file.name} cannot be read .* without running what is in it"):
            load_vposer(file)
    assert not Path(mark).exists()
    torch.load(passed_over, weights_only=False)
    assert Path(mark).exists()  # so it does hold something that runs


def test_files_that_are_no_vposer_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no VPoser at .*nowhere; give the folder vposer_v1_0"):
        load_vposer(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \.pt or \.pth or \.ckpt in"):
        load_vposer(tmp_path)
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is no VPoser: expected .*, got fc\.weight"):
        load_vposer(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds a list, not the tensors"):
        load_vposer(tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt cannot be read as a checkpoint"):
        load_vposer(tmp_path / "text.pt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.ckpt cannot be read as a checkpoint"):
        load_vposer(tmp_path / "empty.ckpt")


@pytest.mark.parametrize(
    ("version", "key", "value", "message"),
    [
        (1, "bodyprior_dec_fc2.bias", None, "bodyprior_dec_fc2.bias is missing from this VPoser version 1"),
        (
            1,
            "bodyprior_dec_out.weight",
            torch.zeros(138, 512),
            "bodyprior_dec_out.weight must be 126x512, got 138x512",
        ),
        (1, "bodyprior_enc_bn1.running_var", torch.full((63,), -1.0), "running_var must not be negative"),
        (
            2,
            "decoder_net.3.weight",
            torch.full((512, 512), torch.nan),
            "decoder_net.3.weight holds values that are not",
        ),
        (
            2,
            "encoder_net.8.mu.weight",
            torch.zeros(16, 512),
            "encoder_net.8.mu.weight must be 32x512, got 16x512",
        ),
        (2, "encoder_net.2.weight", torch.zeros(512, 189), "encoder_net.2.weight must be nx63, got 512x189"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    version: int, key: str, value: Tensor | None, message: str, tmp_path: Path
) -> None:
    tensors = published(version).state_dict()
    tensors.pop(key)
    torch.save(tensors if value is None else {**tensors, key: value}, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=message):
        load_vposer(tmp_path / "v.pt")


@settings(max_examples=8, deadline=None)
@given(cut=st.floats(0, 0.999), version=st.sampled_from([1, 2]))
def test_a_file_cut_short_is_an_error(
    cut: float, version: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = checkpoint_of(version, published(version), tmp_path_factory.mktemp("cut") / "v")
    (file,) = (folder / "snapshots").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_vposer(folder)


# -- MANO


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("count", [6, 44])  # smplx takes 45 to mean no PCA
def test_mano_pca_poses_the_hand_as_smplx_does(side: str, count: int, tmp_path: Path) -> None:
    import smplx
    from smplx.utils import Struct

    arrays = open_arrays("mano", side)
    prior = mano_prior(OPEN_BODIES, side, components=count)
    z = 1.5 * torch.randn(4, count)
    pose = prior.decode_axis_angle(z)
    assert pose.shape == (4, 15, 3)
    for flat in (False, True):
        options = {"data_struct": Struct(**arrays), "is_rhand": side == "right", "flat_hand_mean": flat}
        twin = smplx.MANO("", use_pca=True, num_pca_comps=count, **options)
        plain = smplx.MANO("", use_pca=False, **options)
        with torch.no_grad():
            expected = twin(hand_pose=z, global_orient=torch.zeros(4, 3), betas=torch.zeros(4, 10)).vertices
            got = plain(
                hand_pose=pose.flatten(1), global_orient=torch.zeros(4, 3), betas=torch.zeros(4, 10)
            ).vertices
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_mano_latents_come_back_and_matrices_agree() -> None:
    prior = load_prior("mano-pca:12", "mano")
    z = torch.randn(9, 12, dtype=torch.float64)
    np.testing.assert_allclose(prior.encode(prior.decode_axis_angle(z)), z, atol=1e-5)
    np.testing.assert_allclose(prior.decode(z), axis_angle_to_matrix(prior.decode_axis_angle(z)), atol=1e-12)
    assert load_prior("mano-pca", "mano").latent == 45
    assert load_prior("mano-pca", "mano", body_models=OPEN_BODIES, side="left").name == "MANO PCA (left, 45)"
    # any pose is a sum of all 45
    pose = torch.randn(3, 15, 3)
    whole = load_prior("mano-pca", "mano")
    np.testing.assert_allclose(whole.decode_axis_angle(whole.encode(pose)), pose, atol=1e-4)


def test_mano_of_a_file_and_wrong_counts(tmp_path: Path) -> None:
    file = OPEN_BODIES / "mano" / "MANO_RIGHT.npz"
    assert mano_prior(file, "right").fingerprint == mano_prior(OPEN_BODIES, "right").fingerprint
    for count in (0, 46):
        with pytest.raises(ValueError, match=f"components must be 1 to 45, got {count}"):
            mano_prior(file, "right", components=count)
    with pytest.raises(FileNotFoundError, match="MANO_LEFT"):
        mano_prior(tmp_path, "left")


# -- all of them


def priors() -> list[PosePrior]:
    return [open_prior(), mano_prior(OPEN_BODIES, "right", components=8)]


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.name)
def test_priors_are_frozen_and_stay_out_of_checkpoints(prior: PosePrior) -> None:
    assert not list(prior.parameters())
    assert not prior.state_dict()
    assert len(prior.fingerprint) == 16
    assert priors()[0].fingerprint != priors()[1].fingerprint


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.name)
def test_decoded_matrices_are_rotations(prior: PosePrior) -> None:
    for z in (torch.zeros(1, prior.latent), 5 * torch.randn(20, prior.latent), torch.zeros(0, prior.latent)):
        matrix = prior.decode(z)
        assert matrix.shape == (len(z), prior.num_joints, 3, 3)
        assert matrix.dtype == torch.float32
        np.testing.assert_allclose(matrix @ matrix.mT, torch.eye(3).expand_as(matrix), atol=1e-5)
        np.testing.assert_allclose(torch.linalg.det(matrix), torch.ones(matrix.shape[:2]), atol=1e-5)
        np.testing.assert_allclose(axis_angle_to_matrix(prior.decode_axis_angle(z)), matrix, atol=1e-5)


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.name)
def test_gradients_reach_the_latents(prior: PosePrior) -> None:
    z = torch.zeros(2, prior.latent, requires_grad=True)
    prior.decode_axis_angle(z).square().sum().backward()
    assert torch.isfinite(z.grad).all()
    z = torch.randn(1, prior.latent, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(prior.num_joints, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda code: (prior.decode(code) * weight).sum(), z)


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.name)
def test_autocast_and_half_latents_change_nothing(prior: PosePrior) -> None:
    z = torch.randn(6, prior.latent).bfloat16()
    pose = torch.randn(6, prior.num_joints, 3)
    decoded, encoded = prior.decode(z.float()), prior.encode(pose)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prior.decode(z)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, decoded)
        assert torch.equal(prior.decode_axis_angle(z), prior.decode_axis_angle(z.float()))
        assert torch.equal(prior.encode(pose), encoded)


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.name)
def test_other_shapes_are_refused(prior: PosePrior) -> None:
    for shape in ((prior.latent,), (2, prior.latent + 1)):
        with pytest.raises(ValueError, match=rf"latents of .* must be \(B, {prior.latent}\), got"):
            prior.decode(torch.zeros(shape))
        with pytest.raises(ValueError, match="latents of"):
            prior.decode_axis_angle(torch.zeros(shape))
    with pytest.raises(
        ValueError, match=rf"pose of .* must be \(B, {prior.num_joints}, 3\), got .*reshape to"
    ):
        prior.encode(torch.zeros(2, 3 * prior.num_joints))


@pytest.mark.parametrize(
    ("spec", "model", "message"),
    [
        ("vpser:x", "smpl", "unknown pose prior 'vpser:x'; expected 'open', 'vposer:PATH'"),
        ("", "smpl", "unknown pose prior ''"),
        ("open:file", "smpl", "unknown pose prior 'open:file'"),
        ("vposer", "smpl", "needs its folder or file"),
        ("vposer:", "smpl", "unknown pose prior"),
        ("open", "mano", "'open' is one for smpl and smplx, not for 'mano'"),
        ("open", "flame", "not for 'flame'"),
        ("mano-pca", "smpl", "'mano-pca' is one for mano, not for 'smpl'"),
        ("mano-pca:six", "mano", "must be a number from 1 to 45, got 'six'"),
        ("mano-pca:-6", "mano", "must be a number from 1 to 45, got '-6'"),
        ("mano-pca:99", "mano", "components must be 1 to 45, got 99"),
    ],
)
def test_specs_that_say_nothing_are_refused(spec: str, model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_prior(spec, model, body_models=OPEN_BODIES)


# -- the open prior and the poses that ship


def test_the_open_prior_keeps_the_poses_that_ship() -> None:
    bank = np.load(POSES, allow_pickle=False)
    pose = torch.tensor(bank["body_pose"].astype(np.float32))
    prior = load_prior("open", "smpl")
    assert (prior.latent, prior.num_joints) == (32, 21)
    with torch.no_grad():
        code = prior.encode(pose)
        decoded = prior.decode(code)
    # half the squared distance of two rotations is 2 - 2 cos of the angle between them
    cosine = 1 - (decoded - axis_angle_to_matrix(pose)).square().sum((-1, -2)) / 4
    angle = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
    assert angle.mean() < 8
    assert angle.mean(1).quantile(0.95) < 12
    assert 0.2 < code.square().mean() < 1.2  # latents lie where the regulariser wants them
    # encoding what was decoded gives the latents again, nearly: the two are each other's inverse
    assert (prior.encode(prior.decode_axis_angle(code).detach()) - code).square().mean() < 0.05


def test_samples_of_the_open_prior_bend_as_people_do() -> None:
    z = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
    angles = torch.rad2deg(open_prior().decode_axis_angle(z))
    knees, elbows = angles[:, [3, 4], 0], angles[:, [17, 18], 1] * torch.tensor([-1.0, 1.0])
    assert (knees < -20).float().mean() < 0.005
    assert (elbows < -20).float().mean() < 0.005
    assert angles.norm(dim=-1).max() < 175
    assert angles.std(0).norm(dim=-1)[[0, 1, 15, 16]].min() > 10  # hips and shoulders do move


def test_the_pose_bank_is_plain_mirrored_and_faces_front() -> None:
    from scipy.spatial.transform import Rotation

    assert POSES.stat().st_size < 400_000
    bank = np.load(POSES, allow_pickle=False)
    count = len(bank["clip"])
    assert bank["global_orient"].shape == (count, 3)
    assert bank["body_pose"].shape == (count, 21, 3)
    assert {bank[key].dtype.str for key in ("global_orient", "body_pose")} == {"<f2"}
    assert 1500 <= count <= 3000
    assert set(bank["clip"]) == set(range(len(bank["names"])))
    root = Rotation.from_rotvec(bank["global_orient"].astype(float))
    front = root.apply([0, 0, 1])
    np.testing.assert_allclose(np.arctan2(front[:, 0], front[:, 2]), 0, atol=5e-3)
    assert (root.apply([0, 1, 0])[:, 1] > 0).all()  # upright: y is up
    half = count // 2
    swap = [1, 0, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11, 13, 12, 14, 16, 15, 18, 17, 20, 19]
    mirrored = bank["body_pose"][:half][:, swap].astype(np.float32) * [1, -1, -1]
    np.testing.assert_allclose(bank["body_pose"][half:], mirrored, atol=2e-3)


def test_pca_of_any_components_is_linear() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    prior = PcaPrior("two joints", rows)
    z = torch.randn(5, 3)
    np.testing.assert_allclose(prior.decode_axis_angle(z).flatten(1), z.numpy() @ rows, atol=1e-5)
    np.testing.assert_allclose(prior.encode(prior.decode_axis_angle(z)), z, atol=1e-4)
