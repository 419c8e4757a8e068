"""The examples: run as a user runs them, and the data set's geometry checked against the body model."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import trimesh
from processes import Process

from neuralannot import PseudoGT, load_body_model, load_pseudo_gt
from neuralannot.boxes import apply_affine, crop_affine, process_boxes
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image, write_image
from neuralannot.joint_sets import mirror_index

EXAMPLES = Path(__file__).parents[1] / "examples"
SMPL_FILE = "MSCOCO_train_SMPL_NeuralAnnot.json"
WALK_FILE = "Human36M_subject1_SMPL_NeuralAnnot.json"
ROWS = [0, 37, 59, 90]  # of the walk: other frames and cameras
AUGMENTATIONS = [(False, 0.0), (False, 0.5), (False, -2.0), (True, 0.0), (True, 0.5), (True, -2.0)]

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def run(script: str, *arguments: object, cwd: Path) -> str:
    done = Process(EXAMPLES / script, *arguments, cwd=cwd).ended()
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_below(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "regressor_dataloader", EXAMPLES / "regressor_dataloader.py"
    )
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["regressor_dataloader"] = found  # workers that are spawned find the class by this name
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m", cache=False).rows(ROWS)


@pytest.fixture(scope="module")
def images(walk: PseudoGT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black images with a white disc at the right wrist: the walk's own cannot ship."""
    import cv2

    folder = tmp_path_factory.mktemp("images")
    bodies = walk.forward(want="joints")
    wrists = bodies.project().numpy()[:, bodies.joint_names.index("right_wrist")]
    for path, (width, height), wrist in zip(walk.image_path, walk.image_size, wrists, strict=True):
        picture = np.zeros((height, width, 3), np.uint8)
        # 4 bits of subpixel; a disc large enough to have a centre in the crop.
        centre = tuple(np.rint(16 * wrist).astype(int).tolist())
        cv2.circle(picture, centre, 16 * 12, (255, 255, 255), -1, cv2.LINE_AA, 4)
        write_image(folder / str(path), picture)
    return folder


def posed(item: dict[str, torch.Tensor]) -> np.ndarray:
    """(J, 3) the joints of an item's parameters."""
    names = ("global_orient", "body_pose", "betas", "transl")
    return load_body_model("smpl")(**{name: item[name][None] for name in names}).joints[0].detach().numpy()


def projected(item: dict[str, torch.Tensor]) -> np.ndarray:
    """(J, 2) px of the crop: the item's body by the item's camera."""
    pixels = posed(item).astype(np.float64) @ item["K"].numpy().T.astype(np.float64)
    return pixels[:, :2] / pixels[:, 2:]


def in_crop(gt: PseudoGT, row: int, flip: bool, angle: float) -> np.ndarray:
    """(J, 2) px: the fit's joints on the image, by the crop's affine; mirrored ones under their new names."""
    boxes, _ = process_boxes(gt.box_xywh, gt.image_size)
    affine = crop_affine(boxes[row], (256, 256), rotation=angle, flip=flip)
    pixels = apply_affine(affine, gt.rows([row]).forward(want="joints").project().numpy()[0])
    return pixels[mirror_index("smpl")] if flip else pixels


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_short(script):
    assert len(script.read_text().splitlines()) < 80


def test_the_examples():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "annotate_your_own.py",
        "extract_joints.py",
        "extract_meshes.py",
        "regressor_dataloader.py",
    }


def test_meshes_of_the_sample(tmp_path):
    before = files_below(SAMPLE)
    said = run("extract_meshes.py", cwd=tmp_path)
    assert "6890 vertices" in said
    assert files_below(SAMPLE) == before
    bodies = load_pseudo_gt(SAMPLE / "mscoco" / SMPL_FILE, cache=False).forward()
    mesh = trimesh.load(tmp_path / "meshes" / "1.obj", process=False)
    np.testing.assert_allclose(mesh.vertices, bodies.vertices[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, bodies.faces_of(0))
    image = read_image(SAMPLE / "mscoco" / "train2017" / "astronaut.png")
    overlay = read_image(tmp_path / "meshes" / "overlay.png")
    changed = (overlay != image).any(axis=-1)
    x, y = np.rint(bodies.project().numpy()[0, bodies.joint_names.index("neck")]).astype(int)
    assert changed[y, x]
    assert not changed[:20, :20].any()


@pytest.mark.slow
def test_meshes_of_own_files(tmp_path, images, walk):
    shutil.copytree(SAMPLE / "human36m", tmp_path / "data")
    ids = walk.ids[[2, 0]].tolist()
    files = (tmp_path / "data" / WALK_FILE, "--ids", *ids, "--images", images, "--out", tmp_path / "out")
    run("extract_meshes.py", *files, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{id_}.obj" for id_ in ids),
        "overlay.png",
    }
    for id_ in ids:
        mesh = trimesh.load(tmp_path / "out" / f"{id_}.obj", process=False)
        np.testing.assert_allclose(mesh.vertices, walk.forward(id_).vertices[0].numpy(), atol=1e-6)


def test_meshes_without_the_image(tmp_path):
    shutil.copytree(SAMPLE / "human36m", tmp_path / "data")
    said = run("extract_meshes.py", tmp_path / "data" / WALK_FILE, "--ids", 5, cwd=tmp_path)
    assert "no overlay: no image" in said
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["5.obj"]


def test_meshes_without_annotations(tmp_path):
    shutil.copy(SAMPLE / "mscoco" / SMPL_FILE, tmp_path)
    said = run("extract_meshes.py", SMPL_FILE, cwd=tmp_path)
    assert "no overlay: which image" in said
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["1.obj"]


def test_joints_of_the_sample(tmp_path):
    before = files_below(SAMPLE)
    run("extract_joints.py", cwd=tmp_path)
    assert files_below(SAMPLE) == before
    gt = load_pseudo_gt(SAMPLE / "human36m", cache=False)
    bodies = gt.forward(want="joints")
    with np.load(tmp_path / "joints.npz", allow_pickle=False) as found:
        assert found["names"].tolist() == [str(id_) for id_ in gt.ids]
        assert tuple(found["joint_names"]) == bodies.joint_names
        np.testing.assert_allclose(found["joints"], bodies.joints.numpy(), atol=1e-6)
        np.testing.assert_allclose(found["joints_2d"], bodies.project().numpy(), atol=1e-3)
        # The sample's 3D joint file was made by the same regressor: as good as ground truth here.
        camera = gt.camera
        truth = camera.world_to_camera(gt.joints_world)
        assert found["regressed"].shape == (96, 17, 3)
        assert found["regressed_names"][0] == "pelvis"
        np.testing.assert_allclose(found["regressed"], truth, atol=1e-4)
        np.testing.assert_allclose(found["regressed_2d"], camera.project(truth), atol=0.1)
        for name in ("joints", "joints_2d", "regressed", "regressed_2d"):
            assert found[name].dtype == np.float32


@pytest.mark.slow
def test_joints_of_own_files(tmp_path):
    shutil.copytree(SAMPLE / "mscoco", tmp_path / "data")
    run("extract_joints.py", tmp_path / "data" / SMPL_FILE, "--ids", 1, "--out", "a/b.npz", cwd=tmp_path)
    with np.load(tmp_path / "a" / "b.npz", allow_pickle=False) as found:
        assert set(found.files) == {"names", "joint_names", "joints", "joints_2d"}
        assert found["joints_2d"].shape == (1, 45, 2)


def test_dataloader_of_the_sample(tmp_path):
    before = files_below(SAMPLE)
    said = run("regressor_dataloader.py", cwd=tmp_path)
    assert "'image': (1, 3, 256, 256)" in said
    assert "'joints_2d': (1, 17, 2)" in said
    assert files_below(SAMPLE) == before


@pytest.mark.slow
def test_dataloader_of_own_files(tmp_path):
    shutil.copytree(SAMPLE / "human36m", tmp_path / "data")
    gt = load_pseudo_gt(tmp_path / "data", cache=False)
    for path, (width, height) in zip(gt.image_path, gt.image_size, strict=True):
        grey = tmp_path / f"{width}x{height}.jpg"
        if not grey.is_file():
            write_image(grey, np.full((height, width, 3), 128, np.uint8))
        target = tmp_path / "images" / str(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(grey)
    said = run("regressor_dataloader.py", tmp_path / "data" / WALK_FILE, "--images", "images", cwd=tmp_path)
    assert "'image': (4, 3, 256, 256)" in said
    assert "'joints_2d': (4, 45, 2)" in said


def test_item(module, walk, images):
    dataset = module.PseudoGTDataset(walk, images)
    assert len(dataset) == len(ROWS)
    shapes = {
        "image": (3, 256, 256),
        "joints_2d": (45, 2),
        "joints_valid": (45,),
        "global_orient": (3,),
        "body_pose": (23, 3),
        "betas": (10,),
        "transl": (3,),
        "K": (3, 3),
    }
    for item in (dataset[1], dataset.sample(1, flip=True, angle=0.3, gain=np.array([0.8, 1.0, 1.2]))):
        assert {name: tuple(value.shape) for name, value in item.items()} == shapes
        for name, value in item.items():
            assert value.dtype == (torch.bool if name == "joints_valid" else torch.float32)
            assert torch.isfinite(value).all()
        assert 0 <= item["image"].min() < 0.01
        assert 0.99 < item["image"].max() <= 1


@pytest.mark.parametrize(("flip", "angle"), AUGMENTATIONS)
def test_body_joints_and_picture_move_together(module, walk, images, flip, angle):
    dataset = module.PseudoGTDataset(walk, images)
    wrist = load_body_model("smpl").joint_names.index("left_wrist" if flip else "right_wrist")
    for row in range(len(ROWS)):
        item = dataset.sample(row, flip=flip, angle=angle)
        expected = in_crop(walk, row, flip, angle)
        # The joints, by the image's own affine.
        np.testing.assert_allclose(item["joints_2d"].numpy(), expected, atol=1e-3)
        # The parameters: exact for a rotation; for a flip as symmetric as the body, which the open one is.
        errors = np.linalg.norm(projected(item) - expected, axis=-1)
        assert errors.max() < (0.02 if flip else 0.002), errors.max()
        # The pixels: the disc drawn at the right wrist.
        light = item["image"].numpy().mean(axis=0)
        y, x = (np.sum(grid * light) / light.sum() for grid in np.indices(light.shape))
        np.testing.assert_allclose([x, y], expected[wrist], atol=0.5)


def test_turned_body_is_turned_about_the_camera(module, walk, images):
    dataset = module.PseudoGTDataset(walk, images)
    plain, turned = posed(dataset.sample(0)), posed(dataset.sample(0, angle=0.5))
    # Counterclockwise in the picture, y down: x' = x cos + y sin.
    R = np.array([[np.cos(0.5), np.sin(0.5), 0], [-np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
    np.testing.assert_allclose(turned, plain @ R.T, atol=1e-5)
    flipped = posed(dataset.sample(0, flip=True))[mirror_index("smpl")]
    np.testing.assert_allclose(flipped, plain * [-1, 1, 1], atol=1e-4)


@pytest.mark.parametrize(("flip", "angle"), AUGMENTATIONS)
def test_square_pixels_keep_a_plain_camera(module, flip, angle):
    """In the wild focal lengths are equal: the augmented K has no skew, only another principal point."""
    gt = load_pseudo_gt(SAMPLE / "mscoco" / SMPL_FILE, cache=False)
    dataset = module.PseudoGTDataset(gt, SAMPLE / "mscoco")
    item = dataset.sample(0, flip=flip, angle=angle)
    K = item["K"].numpy()
    np.testing.assert_allclose(K[0, 0], K[1, 1], rtol=1e-5)
    np.testing.assert_allclose([K[0, 1], K[1, 0]], 0, atol=1e-2)
    np.testing.assert_array_equal(K[2], [0, 0, 1])
    boxes, _ = process_boxes(gt.box_xywh, gt.image_size)
    affine = crop_affine(boxes[0], (256, 256), rotation=angle, flip=flip)
    np.testing.assert_allclose(K[:2, 2], apply_affine(affine, gt.camera.princpt)[0], atol=1e-3)
    errors = np.linalg.norm(projected(item) - in_crop(gt, 0, flip, angle), axis=-1)
    assert errors.max() < (0.02 if flip else 0.002), errors.max()


def test_annotated_keypoints(module):
    """Unlabelled ones are zero and invalid; left and right change places in a flip."""
    gt = load_pseudo_gt(SAMPLE / "mscoco" / SMPL_FILE, cache=False)
    dataset = module.PseudoGTDataset(gt, SAMPLE / "mscoco")
    plain, flipped = dataset.sample(0), dataset.sample(0, flip=True)
    mirror, valid = mirror_index("coco-17"), gt.joints_2d_valid[0]
    assert 0 < valid.sum() < 17
    np.testing.assert_array_equal(plain["joints_valid"], valid)
    np.testing.assert_array_equal(flipped["joints_valid"], valid[mirror])
    for item in (plain, flipped):
        assert not item["joints_2d"][~item["joints_valid"]].any()
        assert item["joints_2d"][item["joints_valid"]].all()
    both = valid & valid[mirror]
    back = flipped["joints_2d"].numpy()[mirror] * [-1, 1] + [256, 0]
    np.testing.assert_allclose(back[both], plain["joints_2d"].numpy()[both], atol=1e-3)


def test_workers_give_what_the_main_process_gives(module, walk, images):
    dataset = module.PseudoGTDataset(walk, images, augment=True)
    own = list(torch.utils.data.DataLoader(dataset, batch_size=2))
    workers = list(torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2))
    assert len(own) == len(workers) == 2
    for one, other in zip(own, workers, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


def test_epochs_and_rows_are_augmented_differently(module, walk, images, monkeypatch):
    dataset = module.PseudoGTDataset(walk, images, augment=True)
    monkeypatch.setattr(dataset, "sample", lambda row, flip, angle, gain: (flip, angle, *gain))
    drawn = []
    for epoch in range(6):
        dataset.epoch = epoch
        drawn += [dataset[row] for row in range(len(ROWS))]
        assert [dataset[row] for row in range(len(ROWS))] == drawn[-len(ROWS) :]
    flips, angles, *gains = np.array(drawn).T
    assert set(flips) == {0, 1}
    assert len(np.unique(angles)) == len(drawn)
    assert 0.2 < np.abs(angles).max() <= np.deg2rad(30)
    assert angles.min() < 0 < angles.max()
    assert (np.abs(np.array(gains) - 1) <= 0.2).all()


def test_plain_items_without_augment(module, walk, images):
    dataset = module.PseudoGTDataset(walk, images)
    for name, value in dataset[2].items():
        assert torch.equal(value, dataset.sample(2)[name]), name


def test_errors(module, walk, images, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*S1_Walking"):
        module.PseudoGTDataset(walk, tmp_path)[0]
    loader = torch.utils.data.DataLoader(module.PseudoGTDataset(walk, tmp_path), num_workers=2)
    with pytest.raises(FileNotFoundError, match=r"no image file at .*S1_Walking"):
        next(iter(loader))
    flame = load_pseudo_gt(SAMPLE / "mscoco" / "MSCOCO_train_FLAME_NeuralAnnot.json", cache=False)
    with pytest.raises(ValueError, match="is for SMPL files; mscoco-flame is of flame"):
        module.PseudoGTDataset(flame, images)
    write_image(tmp_path / str(walk.image_path[0]), np.zeros((501, 500, 3), np.uint8))
    with pytest.raises(ValueError, match="the image is 500x501 px"):
        module.PseudoGTDataset(walk, tmp_path)[0]
