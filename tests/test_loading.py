"""`load_pseudo_gt` and `PseudoGT` by their contract, for every release."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import FILE_NAMES, MOCAP, SIDES, dump, joints_of, leaf, write_release
from row_checks import check_rows
from torch.utils.data import DataLoader, Dataset

from neuralannot import RELEASES, PseudoGT, load_pseudo_gt

WILD = [name for name in FILE_NAMES if name not in MOCAP]


@pytest.fixture(scope="session")
def load(released):
    return lambda name, **options: load_pseudo_gt(released(name).path, **options)


# --- rows, ids, order


@pytest.mark.parametrize("name", FILE_NAMES)
def test_rows_are_what_the_files_say(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    check_rows(gt, written.rows)
    check_rows(load_pseudo_gt(written.path), written.rows)  # now from the mapped columns
    assert gt.missing == written.missing
    assert gt.release == name
    assert gt.model == RELEASES[name].model
    world = RELEASES[name].space in ("world", "image")
    assert gt.space == ("world" if world else "camera")
    assert gt.joined
    assert name in repr(gt)
    assert f"{len(gt)} annotations" in repr(gt)


def test_genders(tmp_path):
    written = write_release(tmp_path, "mpii-smplx", genders=True)
    gt = load_pseudo_gt(written.path)
    check_rows(gt, written.rows)
    assert set(gt.gender) == {"neutral", "female", "male"}


def test_without_a_cache_nothing_is_written(tmp_path):
    for name in ("mscoco-smplx", "human36m-smpl", "instavariety-smpl", "interhand26m-mano"):
        written = write_release(tmp_path / name, name)
        before = {path: path.stat().st_mtime_ns for path in written.path.parent.iterdir()}
        gt = load_pseudo_gt(written.path, cache=False)
        check_rows(gt, written.rows)
        if name in MOCAP:
            assert np.isfinite(gt.joints_world).any()
        assert {path: path.stat().st_mtime_ns for path in written.path.parent.iterdir()} == before


@pytest.mark.parametrize("name", WILD)
def test_unjoined_rows_of_flat_files_are_the_same(name, released):
    written = released(name)
    if name == "3dpw-smplx":
        gt = load_pseudo_gt(written.path, annotations=False)
        assert gt.camera is None  # its cameras are the annotations'
        assert gt.space == "camera"
        assert gt.ids.tolist() == [row.id for row in written.rows]
        with pytest.raises(ValueError, match=r"3dpw-smplx: .*3DPW_train.json"):
            gt.require_camera()
        return
    gt = load_pseudo_gt(written.path, annotations=False)
    check_rows(gt, written.rows)
    assert not gt.joined
    expected = [] if gt.model != "mano" else written.missing
    assert sorted(gt.missing) == sorted(expected)


@pytest.mark.parametrize("name", MOCAP)
def test_unjoined_rows_of_mocap_are_the_fits(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path, annotations=False)
    keys, sides = [], []

    def walk(entry: dict, key: tuple[int, ...]) -> None:
        for text, below in entry.items():
            if text in SIDES or "shape" in below:
                continue
            walk(below, (*key, int(text)))
        if len(key) == len(gt.catalogued.key_names):
            for side in SIDES if gt.model == "mano" else (None,):
                if side is None or entry.get(side) is not None:
                    keys.append(key)
                    sides.append(side)

    def leaves(entry: dict, key: tuple[int, ...]) -> None:
        for text, below in entry.items():
            if "shape" in below:
                keys.append((*key, int(text)))
            else:
                leaves(below, (*key, int(text)))

    lead = (1,) if name.startswith("human36m") else ()
    (walk if gt.model == "mano" else leaves)(written.fits, lead)
    assert gt.keys == keys
    assert list(gt) == keys
    if gt.model == "mano":
        assert gt.side.tolist() == sides
        nulls = [
            (int(c), int(f), side)
            for c, frames in written.fits.items()
            for f, hands in frames.items()
            for side in SIDES
            if hands.get(side) is None
        ]
        assert gt.missing == nulls
    else:
        assert gt.missing == []
    assert gt.camera is None
    assert gt.space == "world"
    named = re.escape(written.annotations.name)
    with pytest.raises(ValueError, match=rf"{name} is keyed by \(.*frame\), .*annotations='{named}'"):
        _ = gt.ids
    with pytest.raises(ValueError, match=rf"{name}: no image paths without annotations; .*{named}"):
        _ = gt.image_path
    with pytest.raises(ValueError, match=rf"{name}: no boxes without annotations; load with .*{named}"):
        _ = gt.box_xywh
    assert gt.joints_2d is None
    assert f"{len(gt)} fits" in repr(gt)


def test_releases_keyed_by_id_have_no_keys(load):
    with pytest.raises(ValueError, match=r"mscoco-smpl is keyed by annotation id; use gt.ids"):
        _ = load("mscoco-smpl").keys


def test_an_empty_file_has_no_rows(tmp_path):
    for name in ("mscoco-smpl", "human36m-smpl", "mscoco-mano", "interhand26m-mano"):
        written = write_release(tmp_path / name, name)
        dump(written.path, {})
        bare = load_pseudo_gt(written.path, annotations=False)
        assert len(bare) == 0
        assert bare.params["betas"].shape == (0, 10)
        gt = load_pseudo_gt(written.path)
        assert len(gt) == 0
        assert gt.ids.tolist() == []
        assert len(gt.missing) > 0


# --- selecting


def test_one_id_is_a_release_of_length_one(released):
    written = released("mscoco-smplx")
    gt = load_pseudo_gt(written.path)
    for row in written.rows:
        for id_ in (row.id, np.int64(row.id), np.int32(row.id), (row.id,)):
            check_rows(gt[id_], [row])
            assert id_ in gt
    assert gt.rows_of([row.id for row in written.rows[::-1]]).tolist() == list(range(len(gt)))[::-1]
    assert list(gt) == [row.id for row in written.rows]


@pytest.mark.parametrize("name", ["mscoco-mano", "interhand26m-mano"])
def test_hands_of_one_id(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    for id_ in {row.id for row in written.rows}:
        own = [row for row in written.rows if row.id == id_]
        check_rows(gt[id_], own)
        for row in own:
            check_rows(gt[id_, row.side], [row])
            assert (id_, row.side) in gt
    both = [row.id for row in written.rows]
    assert len(set(both)) < len(both)
    with pytest.raises(KeyError, match=r"has no side 'both'"):
        gt[both[0], "both"]


@pytest.mark.parametrize("name", MOCAP)
def test_frame_keys_select_every_camera_s_row(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    for key in {row.key for row in written.rows}:
        own = [row for row in written.rows if row.key == key]
        check_rows(gt[key], own)
        assert key in gt
        for side in {row.side for row in own} - {None}:
            check_rows(gt[(*key, side)], [row for row in own if row.side == side])
    assert any(sum(row.key == key for row in written.rows) > 1 for key in {r.key for r in written.rows})


def test_slices_masks_and_row_numbers(released):
    written = released("human36m-smpl")
    gt = load_pseudo_gt(written.path)
    rows = written.rows
    check_rows(gt[2:5], rows[2:5])
    check_rows(gt[::-2], rows[::-2])
    check_rows(gt[3:3], [])
    check_rows(gt[-2:], rows[-2:])
    check_rows(gt.rows([3, 0, 3]), [rows[3], rows[0], rows[3]])
    check_rows(gt.rows([-1, -len(rows)]), [rows[-1], rows[0]])
    check_rows(gt.rows(np.array([], int)), [])
    check_rows(gt.rows([]), [])
    check_rows(gt.rows(slice(1, 4)), rows[1:4])
    mask = np.arange(len(rows)) % 3 == 0
    check_rows(gt.rows(mask), rows[::3])
    check_rows(gt.rows(mask.tolist()), rows[::3])
    twice = gt[1:].rows([2, 0])[::-1]  # views of views
    check_rows(twice, [rows[1], rows[3]])
    check_rows(twice[rows[3].id], [rows[3]])
    assert twice.missing == gt.missing  # in the whole of the files
    for wrong in ([len(rows)], [-len(rows) - 1], np.ones(len(rows) + 1, bool)):
        with pytest.raises(IndexError):
            gt.rows(wrong)
    with pytest.raises(TypeError):
        gt.rows([0.5])
    for several in ([rows[0].id], np.array([rows[0].id])):
        with pytest.raises(TypeError, match=r"use gt.rows\(array\) for row numbers"):
            gt[several]


def test_what_is_not_there_says_why(released):
    coco = released("mscoco-smpl")
    gt = load_pseudo_gt(coco.path)
    unfitted, present = coco.missing[0], coco.rows[0].id
    cases = {
        5: "id 5: unknown to mscoco-smpl",
        unfitted: f"id {unfitted}: known to mscoco-smpl, but has no fit",
    }
    for key, message in cases.items():
        assert key not in gt
        with pytest.raises(KeyError, match=re.escape(message)):
            gt[key]
        with pytest.raises(KeyError, match=re.escape(message)):
            gt.rows_of([present, key])
    with pytest.raises(
        KeyError, match=rf"id {present}: has a fit in mscoco-smpl, but is not among these row"
    ):
        gt[1:][present]
    with pytest.raises(KeyError, match=r"\(1, 2\): not a key of mscoco-smpl; its keys are id"):
        gt[1, 2]
    with pytest.raises(KeyError, match=r"mscoco-smpl has no side 'right'"):
        gt[present, "right"]
    for strange in ("476384", 3.5, None):
        assert strange not in gt
        with pytest.raises(TypeError, match=r"an id is an int, a key a tuple of id; got "):
            gt[strange]


def test_frames_that_are_not_there_say_why(released):
    h36m = load_pseudo_gt(released("human36m-smpl").path)
    cases = {
        (1, 9, 9, 9): "(1, 9, 9, 9): unknown to human36m-smpl",
        (1, 11, 2, 5): "(1, 11, 2, 5): known to human36m-smpl, but has no fit",
        (1, 2, 1, 5): "(1, 2, 1, 5): has a fit in human36m-smpl, but is not among these rows",
        (1, 2, 1): "its keys are (subject, action, subaction, frame)",
    }
    bare = load_pseudo_gt(released("human36m-smpl").path, annotations=False)
    for key, message in cases.items():
        assert key not in h36m
        with pytest.raises(KeyError, match=re.escape(message)):
            h36m[key]
    assert len(bare[1, 2, 1, 5]) == 1


def test_hands_that_are_not_there_say_why(released):
    for options in ({}, {"annotations": False}):
        ih = load_pseudo_gt(released("interhand26m-mano").path, **options)
        for key, message in {
            (0, 3, "left"): "(0, 3, 'left'): known to interhand26m-mano, but that hand has no fit",
            (3, 7): "(3, 7): known to interhand26m-mano, but has no fit",
            (3, 3): "(3, 3): unknown to interhand26m-mano",
        }.items():
            with pytest.raises(KeyError, match=re.escape(message)):
                ih[key]
    joined = load_pseudo_gt(released("interhand26m-mano").path)
    with pytest.raises(KeyError, match=r"id 3: unknown to interhand26m-mano"):
        joined[3]
    coco = load_pseudo_gt(released("mscoco-mano").path)
    with pytest.raises(KeyError, match=r"\(23, 'left'\): known to mscoco-mano, but that hand has no fit"):
        coco[23, "left"]
    with pytest.raises(KeyError, match=r"id 40: known to mscoco-mano, but has no fit"):
        coco[40]


def test_columns_cannot_be_changed_by_accident(load):
    gt = load("mscoco-smpl")
    with pytest.raises(ValueError, match="read-only"):
        gt.params["betas"][0] = 0
    with pytest.raises(KeyError, match=r"'pose'; there are global_orient, body_pose, betas, transl"):
        gt.params["pose"]
    with pytest.raises(KeyError, match=r"'face'; there are body"):
        gt.valid["face"]


# --- which files


def test_names_paths_and_folders(released, tmp_path):
    written = released("mscoco-smpl")
    check_rows(load_pseudo_gt(str(written.path)), written.rows)
    check_rows(load_pseudo_gt([written.path]), written.rows)
    check_rows(load_pseudo_gt(written.path.parent), written.rows)
    check_rows(load_pseudo_gt(written.path.parent.parent), written.rows)  # one folder further up
    renamed = shutil.copy(written.path, tmp_path / "mine.json")
    check_rows(load_pseudo_gt(renamed, release="mscoco-smpl", annotations=written.annotations), written.rows)
    with pytest.raises(
        ValueError, match=r"mine.json: not a released file name; pass release=, one of mscoco-s"
    ):
        load_pseudo_gt(renamed)
    with pytest.raises(ValueError, match=r"unknown release 'mscoco-smlp'; did you mean 'mscoco-smpl'\?"):
        load_pseudo_gt(renamed, release="mscoco-smlp")
    # What the user says goes before the name; the content is checked all the same.
    assert load_pseudo_gt(written.path, release="mpii-smpl", annotations=False).release == "mpii-smpl"
    with pytest.raises(ValueError, match=r"no 'flame_param', got smpl_param, cam_param"):
        load_pseudo_gt(written.path, release="ffhq-flame", annotations=False)
    with pytest.raises(FileNotFoundError, match=r"nowhere.json: no such file; `neuralannot releases`"):
        load_pseudo_gt(tmp_path / "nowhere.json")
    with pytest.raises(FileNotFoundError, match=r"no NeuralAnnot files in it"):
        load_pseudo_gt(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no FFHQ_FLAME_NeuralAnnot.json in it"):
        load_pseudo_gt(written.path.parent, release="ffhq-flame")
    with pytest.raises(ValueError, match=r"no path given"):
        load_pseudo_gt([])
    with pytest.raises(
        ValueError, match=r"mscoco-smpl: got .*pass one of them: only Human3.6M's subjects are loaded tog"
    ):
        load_pseudo_gt([written.path, written.path])


def test_a_folder_of_several_releases(tmp_path):
    smpl, flame = write_release(tmp_path, "mscoco-smpl"), write_release(tmp_path, "mscoco-flame")
    with pytest.raises(ValueError, match=r"holds .*mscoco-smpl.*; say which with release="):
        load_pseudo_gt(tmp_path)
    check_rows(load_pseudo_gt(tmp_path, release="mscoco-flame"), flame.rows)
    body = load_pseudo_gt(tmp_path, release="mscoco-smpl")
    check_rows(body, smpl.rows)


def test_several_subjects(tmp_path):
    written = [write_release(tmp_path, "human36m-smpl", subject=s) for s in (1, 5, 11)]
    rows = [row for one in written for row in one.rows]
    paths = [one.path for one in written]
    gt = load_pseudo_gt(paths)
    check_rows(gt, rows)
    assert gt.missing == [id_ for one in written for id_ in one.missing]
    check_rows(load_pseudo_gt(tmp_path), rows)  # 11 after 5, not before
    check_rows(load_pseudo_gt([paths[1]]), written[1].rows)
    check_rows(gt[written[2].rows[0].id], written[2].rows[:1])
    assert {key[0] for key in gt.keys} == {1, 5, 11}
    with_lists = load_pseudo_gt(
        paths, annotations=[w.annotations for w in written], cameras=[w.cameras for w in written]
    )
    check_rows(with_lists, rows)
    expected = [joints_of(w, row) for w in written for row in w.rows]
    np.testing.assert_allclose(gt.joints_world, expected, atol=1e-6)
    some = gt.rows([len(rows) - 1, 0])
    check_rows(some, [rows[-1], rows[0]])
    assert some.image_path.tolist() == [rows[-1].image["file_name"], rows[0].image["file_name"]]
    written[1].annotations.unlink()
    bare = load_pseudo_gt(paths)  # an error only when something needs it, which then names it
    assert len(bare) == 15
    with pytest.raises(ValueError, match=r"load with annotations='Human36M_subject5_data.json'"):
        _ = bare.ids
    with pytest.raises(ValueError, match=r"human36m-smpl: subject 1 twice, .*subject1.* and .*subject1"):
        load_pseudo_gt([paths[0], paths[0]])


def test_a_human36m_file_without_its_subject(tmp_path):
    written = write_release(tmp_path, "human36m-smpl")
    renamed = written.path.rename(tmp_path / "fits.json")
    with pytest.raises(
        ValueError, match=r"the subject is in no other place than the file's name; expected Human"
    ):
        load_pseudo_gt(renamed, release="human36m-smpl")


def test_ids_in_two_annotation_files(tmp_path):
    written = [write_release(tmp_path, "human36m-smpl", subject=s) for s in (1, 5)]
    shutil.copy(written[0].annotations, written[1].annotations)
    with pytest.raises(ValueError, match=r"annotation 1000: in more than one of .*ids must be unique"):
        load_pseudo_gt([w.path for w in written])


# --- companions


def coco_of(path: Path):
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("name", ["mscoco-smplx", "human36m-smplx", "interhand26m-mano", "3dpw-smplx"])
def test_annotations_as_path_list_and_coco(name, released):
    written = released(name)
    for given in (written.annotations, str(written.annotations), [written.annotations], True, None):
        check_rows(load_pseudo_gt(written.path, annotations=given), written.rows)
    gt = load_pseudo_gt(written.path, annotations=coco_of(written.annotations))
    check_rows(gt, written.rows)
    by_path = load_pseudo_gt(written.path)
    np.testing.assert_array_equal(gt.box_xywh, by_path.box_xywh)
    if name == "interhand26m-mano":  # an object does not say which split its images are of
        assert all(one.endswith(two) for one, two in zip(by_path.image_path, gt.image_path, strict=True))
    else:
        assert gt.image_path.tolist() == by_path.image_path.tolist()


def test_annotations_in_several_files(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    content = json.loads(written.annotations.read_text())
    halves = []
    for k in range(2):
        half = content | {"annotations": content["annotations"][k::2]}
        halves.append(dump(tmp_path / f"half{k}.json", half))
    gt = load_pseudo_gt(written.path, annotations=halves)
    check_rows(gt, written.rows)
    assert gt.image_path.tolist() == load_pseudo_gt(written.path).image_path.tolist()
    assert sorted(gt.missing) == sorted(written.missing)


@pytest.mark.parametrize("name", ["mscoco-smpl", "human36m-smpl", "interhand26m-mano"])
@pytest.mark.parametrize("place", ["beside", "annotations"])
def test_companions_are_found(name, place, tmp_path):
    written = write_release(tmp_path / "fits", name)
    folder = written.path.parent / {"beside": "."}.get(place, place)
    folder.mkdir(exist_ok=True)
    for companion in (written.annotations, written.cameras, written.joints):
        if companion is not None:
            companion.rename(folder / companion.name)
    gt = load_pseudo_gt(written.path)
    check_rows(gt, written.rows)
    if written.joints is not None:
        assert np.isfinite(gt.joints_world).any()


def test_absent_companions_are_errors_only_when_needed(tmp_path):
    written = write_release(tmp_path, "mpi-inf-3dhp-smpl")
    written.joints.unlink()
    gt = load_pseudo_gt(written.path)
    check_rows(gt, written.rows)
    with pytest.raises(FileNotFoundError, match=r"MPI-INF-3DHP_joint_3d.json: not in "):
        _ = gt.joints_world
    written.cameras.unlink()
    gt = load_pseudo_gt(written.path)
    assert gt.ids.tolist() == [row.id for row in written.rows]
    assert gt.camera is None
    with pytest.raises(ValueError, match=r"no camera file; put MPI-INF-3DHP_camera_1k.json beside the file"):
        gt.require_camera()
    written.annotations.unlink()
    gt = load_pseudo_gt(written.path)
    assert not gt.joined
    with pytest.raises(
        ValueError, match=r"put MPI-INF-3DHP_1k.json .*and MPI-INF-3DHP_camera_1k.json beside"
    ):
        gt.require_camera()
    with pytest.raises(
        FileNotFoundError, match=r"MPI-INF-3DHP_1k.json: not beside the file; pass annotations="
    ):
        load_pseudo_gt(written.path, annotations=True)
    with pytest.raises(FileNotFoundError, match=r"gone.json: no such annotation file"):
        load_pseudo_gt(written.path, annotations=tmp_path / "gone.json")


def test_cameras_from_elsewhere(tmp_path):
    for name in ("human36m-smpl", "mpi-inf-3dhp-smpl", "interhand26m-mano"):
        written = write_release(tmp_path / name, name)
        moved = written.cameras.rename(written.cameras.with_name("calibration.json"))
        check_rows(load_pseudo_gt(written.path, cameras=moved), written.rows)
        check_rows(load_pseudo_gt(written.path, cameras=[str(moved)]), written.rows)
        with pytest.raises(FileNotFoundError, match=r"gone.json: no such camera file"):
            load_pseudo_gt(written.path, cameras=tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (
            "human36m-smpl",
            "3",
            r"annotation \d+: camera \(1, 3\) \(subject, cam\) is not in Human36M_subject1_cam",
        ),
        (
            "mpi-inf-3dhp-smpl",
            "4/2/8",
            r"camera \(4, 2, 8\) \(subject, seq, cam\) is not in MPI-INF-3DHP_camera_1",
        ),
        (
            "interhand26m-mano",
            "3/campos/410028",
            r"camera \(3, 410028\) \(capture, cam\) is not in InterHand2.6M",
        ),
    ],
)
def test_a_camera_that_the_file_lacks(name, keys, message, tmp_path):
    written = write_release(tmp_path, name)
    cameras = json.loads(written.cameras.read_text())
    place = cameras
    *outer, last = keys.split("/")
    for key in outer:
        place = place[key]
    del place[last]
    dump(written.cameras, cameras)
    with pytest.raises(ValueError, match=message):
        load_pseudo_gt(written.path)


def test_images_of_another_resolution_than_their_cameras(tmp_path):
    """The 2048 px originals of MPI-INF-3DHP with the cameras of the 1k images, as users do."""
    written = write_release(tmp_path, "mpi-inf-3dhp-smpl")
    content = json.loads(written.annotations.read_text())
    for image in content["images"]:
        image |= {"width": 2048, "height": 2048}
    originals = dump(tmp_path / "MPI-INF-3DHP_2048.json", content)
    with pytest.raises(
        ValueError,
        match=r"its image is 2048x2048 px, its camera's principal point .*of different resolutions",
    ):
        load_pseudo_gt(written.path, annotations=originals)
    cameras = json.loads(written.cameras.read_text())
    for sequences in cameras.values():
        for views in sequences.values():
            for view in views.values():
                view["princpt"] = [2 * v for v in view["princpt"]]
                view["focal"] = [2 * v for v in view["focal"]]
    doubled = dump(tmp_path / "MPI-INF-3DHP_camera_2048.json", cameras)
    gt = load_pseudo_gt(written.path, annotations=originals, cameras=doubled)
    np.testing.assert_allclose(gt.camera.focal[0], 2 * np.array(written.rows[0].camera.focal), rtol=1e-6)
    assert gt.camera.resized((1024, 1024)).image_size.tolist() == [[1024, 1024]] * len(gt)


def test_fits_of_other_annotations(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    other = write_release(tmp_path / "other", "mscoco-smpl", seed=1)
    with pytest.raises(
        ValueError, match=r"none of the 6 ids of the fits is in the annotations; expected those of"
    ):
        load_pseudo_gt(written.path, annotations=other.annotations)


def test_fits_whose_annotation_is_not_in_the_file(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    content = json.loads(written.annotations.read_text())
    gone = written.rows[2].id
    content["annotations"] = [ann for ann in content["annotations"] if ann["id"] != gone]
    dump(written.annotations, content)
    gt = load_pseudo_gt(written.path)
    check_rows(gt, written.rows)  # flat rows are the fits
    assert np.isnan(gt[gone].box_xywh).all()
    assert gt[gone].image_path.tolist() == [""]
    assert gt[gone].image_size.tolist() == [[0, 0]]
    assert not gt[gone].joints_2d_valid.any()
    assert np.isfinite(gt.rows(gt.ids != gone).box_xywh).all()


# --- workers


class Rows(Dataset):
    """What someone's data loader does with a row."""

    def __init__(self, gt: PseudoGT) -> None:
        self.gt = gt

    def __len__(self) -> int:
        return len(self.gt)

    def __getitem__(self, index: int) -> dict:
        row = self.gt.rows([index])
        return {
            "id": int(row.ids[0]),
            "pose": torch.tensor(row.params["body_pose"][0]),
            "t": torch.tensor(row.camera.t[0]),
            "path": str(row.image_path[0]),
        }


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_rows(method, released):
    written = released("human36m-smpl")
    gt = load_pseudo_gt(written.path)
    loader = DataLoader(Rows(gt), batch_size=3, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    assert torch.cat([b["id"] for b in batches]).tolist() == [row.id for row in written.rows]
    np.testing.assert_array_equal(torch.cat([b["pose"] for b in batches]), gt.params["body_pose"])
    np.testing.assert_array_equal(torch.cat([b["t"] for b in batches]), gt.camera.t)
    assert [path for b in batches for path in b["path"]] == gt.image_path.tolist()


@pytest.mark.parametrize("name", FILE_NAMES)
def test_pickles_are_equal(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    for one, rows in (
        (gt, written.rows),
        (gt[1:4], written.rows[1:4]),
        (gt.rows([2, 0])[1:], written.rows[:1]),
    ):
        again = pickle.loads(pickle.dumps(one))
        check_rows(again, rows)
        assert again.missing == gt.missing
        np.testing.assert_array_equal(again.box_xywh, one.box_xywh)


def test_pickles_are_small(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    entry = next(iter(written.fits.values()))
    path = dump(written.path, {str(id_): entry for id_ in range(2000)})
    annotations = json.loads(written.annotations.read_text())
    annotations["annotations"] = [annotations["annotations"][0] | {"id": id_} for id_ in range(2000)]
    dump(written.annotations, annotations)
    gt = load_pseudo_gt(path)
    _ = gt[5], gt.params["body_pose"], gt.camera  # what has been looked up does not travel
    assert sum(gt.params[name].nbytes for name in gt.params) > 600_000
    assert len(pickle.dumps(gt)) < 5000
    assert len(pickle.dumps(gt.rows([7, 8]))) < 5000
    # Without a cache there is no file to share: the columns travel, and stay right.
    bare = load_pseudo_gt(path, annotations=False, cache=False)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bare)).params["betas"], gt.params["betas"])


def test_a_pickle_of_a_file_rewritten_since(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    frozen = pickle.dumps(load_pseudo_gt(written.path))
    fits = written.fits
    first = str(written.rows[0].id)
    fits[first]["smpl_param"] = leaf(np.random.default_rng(9), "mscoco-smpl")
    dump(written.path, fits)
    check = load_pseudo_gt(written.path)
    assert check.params["betas"][0, 0] == np.float32(fits[first]["smpl_param"]["shape"][0])
    with pytest.raises(
        ValueError, match=r"rewritten since it was opened; load the pseudo ground truth again"
    ):
        pickle.loads(frozen)


def test_rows_of_a_join_are_not_pickled(tmp_path):
    """Which camera and fit a row has lies in the mapped join: a pickle is no larger for more rows."""
    written = write_release(tmp_path / "human36m", "human36m-smpl")
    load_pseudo_gt(written.path)
    gt = load_pseudo_gt(written.path)
    assert all(part.reference is not None for part in gt.view.parts if part.rows is not None)
    again = pickle.loads(pickle.dumps(gt))
    np.testing.assert_array_equal(again.camera.R, gt.camera.R)
    np.testing.assert_array_equal(again.ids, gt.ids)


def test_another_camera_file_is_not_the_join_of_before(tmp_path):
    written = write_release(tmp_path / "human36m", "human36m-smpl")
    first = load_pseudo_gt(written.path)
    camera_file = next(written.path.parent.glob("*_camera.json"))
    content = json.loads(camera_file.read_text())
    names = list(content)
    camera_file.write_text(json.dumps({name: content[name] for name in reversed(names)}))
    second = load_pseudo_gt(written.path)  # the same cameras in another order
    np.testing.assert_array_equal(second.camera.t, first.camera.t)
    content[names[0]]["t"][0] += 1000
    camera_file.write_text(json.dumps(content))
    moved = load_pseudo_gt(written.path)
    shift = moved.camera.t[:, 0] - first.camera.t[:, 0]
    assert set(np.round(shift, 3)) <= {0.0, 1.0}
    assert (np.round(shift, 3) == 1.0).any()


@pytest.mark.parametrize("name", ["mscoco-smpl", "mscoco-mano", "human36m-smpl"])
def test_ids_in_every_form(name, load):
    gt = load(name)
    ids = list(dict.fromkeys(gt.ids.tolist()))[:2]
    expected = gt.rows_of(ids)
    for form in (
        np.array(ids),
        torch.tensor(ids),
        [torch.tensor(i) for i in ids],
        iter(ids),
        dict.fromkeys(ids),
    ):
        np.testing.assert_array_equal(gt.rows_of(form), expected)
    assert torch.tensor(ids[0]) in gt
    assert len(gt[torch.tensor(ids[0])]) == len(gt[ids[0]])
    assert len(gt.rows_of([])) == 0
    for absent in (2**70, -(2**70), -5):
        assert absent not in gt
        with pytest.raises(KeyError, match="unknown"):
            _ = gt[absent]
    for wrong in (True, np.ones(len(gt), bool), 1.5, np.array([1.5]), "5"):
        with pytest.raises((TypeError, KeyError)):
            gt.rows_of(wrong)


def test_frame_keys_in_every_form(load):
    gt = load("human36m-smpl")
    key = gt.keys[0]
    expected = gt.rows_of(key)
    for form in ([key], [list(key)], np.array([key]), torch.tensor([key]), {key}):
        np.testing.assert_array_equal(gt.rows_of(form), expected)
    assert tuple(map(float, key)) not in gt


def test_companions_of_links(tmp_path):
    """Fits and annotations that are linked into one folder from two belong together."""
    written = write_release(tmp_path / "one", "mscoco-smpl")
    (tmp_path / "two").mkdir()
    moved = written.annotations.rename(tmp_path / "two" / written.annotations.name)
    links = tmp_path / "links"
    links.mkdir()
    for file in (written.path, moved):
        (links / file.name).symlink_to(file)
    check_rows(load_pseudo_gt(links / written.path.name), written.rows)
    assert not load_pseudo_gt(written.path).joined


def test_a_dict_of_annotations(load, released):
    written = released("mscoco-smpl")
    content = json.loads(written.annotations.read_text())
    check_rows(load("mscoco-smpl", annotations=content), written.rows)
    with pytest.raises(
        TypeError, match=r"annotations must be a COCO-format file, several, its dict, .*got 5"
    ):
        load("mscoco-smpl", annotations=5)
    with pytest.raises(TypeError, match="path must be a path or several, got None"):
        load_pseudo_gt(None)


def test_cameras_of_no_use_are_refused(load):
    with pytest.raises(ValueError, match="mscoco-smpl: cameras= is of no use: it has no camera file"):
        load("mscoco-smpl", cameras="nowhere.json")
    with pytest.raises(ValueError, match="cameras= is of no use: without annotations rows have no camera"):
        load("human36m-smpl", cameras="nowhere.json", annotations=False)


def test_3dpw_without_annotations_says_what_is_not_known(tmp_path, recwarn):
    written = write_release(tmp_path, "3dpw-smplx")
    written.annotations.unlink()
    with pytest.warns(UserWarning, match=r"3DPW_\w+\.json is not beside the file, so whether these"):
        assert load_pseudo_gt(written.path).space == "camera"
    recwarn.clear()
    assert load_pseudo_gt(written.path, annotations=False).space == "camera"
    assert not recwarn.list


def test_image_paths_do_not_depend_on_what_was_loaded_before(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    renamed = tmp_path / "fits.json"
    shutil.copy(written.path, renamed)
    one = load_pseudo_gt(
        renamed, release="interhand26m-mano", annotations=written.annotations, cameras=written.cameras
    )
    assert not one.image_path[0].startswith("t")
    check_rows(load_pseudo_gt(written.path), written.rows)


def test_rows_of_an_image():
    from neuralannot.lookup import rows_of_image

    paths = np.array(["seqA/image_0.jpg", "seqB/image_0.jpg", "seqB/image_1.jpg", "seqB/image_0.jpg"])
    assert rows_of_image(paths, "/data/3DPW/seqB/image_0.jpg").tolist() == [1, 3]
    assert rows_of_image(paths, "image_1.jpg").tolist() == [2]
    with pytest.raises(ValueError, match=r"may be any of 2 images: seqA/image_0.jpg, seqB/image_0.jpg"):
        rows_of_image(paths, "image_0.jpg")
    with pytest.raises(ValueError, match=r"called image_9.jpg"):
        rows_of_image(paths, "seqA/image_9.jpg")
