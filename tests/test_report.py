"""`neuralannot report`: the page's form, its numbers, its pictures, and what it says of what is not there."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layouts import FILE_NAMES, Written
from training_runs import studio

from neuralannot import PseudoGT, cli, load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.images import write_image
from neuralannot.quality import measure_quality
from neuralannot.quality_columns import save_quality
from neuralannot.report import coverage, write_report
from neuralannot.report.distributions import joint_angles, places, shapes
from neuralannot.report.errors import errors_of
from neuralannot.report.image_files import image_files
from neuralannot.report.sheets import contact_sheets
from neuralannot.train.evaluation.plots import histogram, spans
from neuralannot.train.evaluation.report import ordered

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

HOSTILE = "<script>alert('1')</script>\" onerror=\"x&amp;"
_VOID = {"meta", "br", "img", "line", "rect"}


class Page(HTMLParser):
    """A page's tags, words and tables; every tag that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.sections: dict[str, list[list[list[str]]]] = {}
        self.headings: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
            self.sections[self._section] = []
        if tag == "table":
            self.sections[self._section].append([])
        if tag == "tr":
            self.sections[self._section][-1].append([])
        if tag in ("td", "th"):
            self.sections[self._section][-1][-1].append("")
        if tag not in ("meta", "br", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words += data
        if self._open and self._open[-1] in ("td", "th"):
            self.sections[self._section][-1][-1][-1] += data
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)


def made(gt: PseudoGT, path: Path, **options: Any) -> tuple[Page, str]:
    """A report's page, of which what holds for every report is true."""
    text = write_report(gt, path, **options).read_text()
    page = Page(text)
    kinds = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base", "form", "embed"} & set(kinds)
    assert not re.search(r"https?://|url\(|@import|javascript:", text)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
        if tag == "a":
            assert str(attributes["href"])[1:] in page.sections
            assert str(attributes["href"])[0] == "#"
    assert [str(at["id"]) for tag, at in page.tags if tag == "section"] == list(page.sections)
    return page, text


def counted(page: Page) -> tuple[dict[str, str], dict[str, list[str]], list[list[str]]]:
    """The coverage's counts, valid parts, and what is missing (none: an empty list)."""
    counts, valid, *gaps = page.sections["coverage"]
    return dict(counts[1:]), {row[0]: row[1:] for row in valid[1:]}, gaps[0][1:] if gaps else []


def cards(page: Page, text: str) -> dict[str, list[tuple[str, str]]]:
    """Section -> the names and texts of its cards, in order."""
    found = {}
    for kind in ("worst", "best", "random"):
        body = re.search(rf'<section id="{kind}">(.*?)</section>', text, re.S)
        if body is not None:
            found[kind] = re.findall(r"<figcaption><b>(.*?)</b> (.*?)<br>", body[1])
    return found


# --- numbers


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_release_and_all_its_counts(
    name: str, released: Callable[[str], Written], tmp_path: Path
) -> None:
    written = released(name)
    gt = load_pseudo_gt(written.path, annotations=written.annotations)
    page, _ = made(gt, tmp_path / "r.html", count=2)
    counts, valid, gaps = counted(page)
    assert int(counts["annotations with a fit"]) == len(written.rows) == len(gt)
    assert int(counts["images"]) == len(set(gt.image_path.tolist()) - {""})
    by_image = [gt.image_path.tolist().count(p) for p in set(gt.image_path.tolist()) - {""}]
    assert counts["annotations on one image, at most"] == str(max(by_image, default=0) or "-")
    fits = len(gt)
    if gt.space == "world" and gt.catalogued.key_names != ("id",):
        sides = [""] * len(gt) if gt.side is None else gt.side.tolist()
        key = [(k, s) for k, s in zip(gt.keys, sides, strict=True)]
        fits = len(set(key))
    assert int(counts["different fits"]) == fits
    camera = gt.require_camera()
    both = {(*f, *c) for f, c in zip(camera.focal.tolist(), camera.princpt.tolist(), strict=True)}
    assert int(counts["different cameras"]) == len(both)
    for gender in set(gt.gender.tolist()):
        assert int(counts[f"gender {gender}"]) == gt.gender.tolist().count(gender)
    assert sum(int(n) for what, n in counts.items() if what.startswith("gender")) == len(gt)
    if gt.side is not None:
        for side in ("right", "left"):
            assert int(counts[f"{side} hands"]) == gt.side.tolist().count(side)
    assert list(valid) == [part.replace("_", " ") for part in gt.valid]
    for part, flags in gt.valid.items():
        share = f"{100 * flags.mean():.2f}"
        assert valid[part.replace("_", " ")] == [str(flags.sum()), str(len(gt)), share]
    lacking = [int(n) for what, n, *_ in gaps if what.endswith("without a fit")]
    assert sum(lacking) == len(gt.missing) == len(written.missing)
    nowhere = [int(n) for what, n, *_ in gaps if what == "annotations without an image"]
    assert sum(nowhere) == gt.image_path.tolist().count("")
    named = {what: first for what, _, _, first in gaps if what.endswith("without a fit")}
    known = {"/".join(map(str, m)) if isinstance(m, tuple) else str(m) for m in gt.missing}
    for first in named.values():
        assert set(first.replace(", …", "").split(", ")) <= known


def test_fits_alone_say_what_they_lack(released: Callable[[str], Written], tmp_path: Path) -> None:
    gt = load_pseudo_gt(released("human36m-smpl").path, annotations=False)
    page, _ = made(gt, tmp_path / "r.html", images=tmp_path)
    counts, _, gaps = counted(page)
    assert counts["fits"] == str(len(gt))
    assert counts["images"] == counts["different cameras"] == "-"
    assert gaps[0][0] == "annotation file"
    assert "without the annotation file no images are known" in page.words
    assert "No depth: " in page.words
    assert "In the world: root joint, m" in page.words


def test_missing_fits_are_told_apart_by_their_annotations(
    released: Callable[[str], Written], tmp_path: Path
) -> None:
    written = released("mscoco-smpl")
    content = json.loads(written.annotations.read_text())
    lacks = set(written.missing)
    template = next(a for a in content["annotations"] if a["id"] in lacks)
    shape = len(template["keypoints"])
    for number, change in enumerate(
        ({"keypoints": [0] * shape}, {"bbox": [1, 2, 0, 0]}, {"keypoints": [0] * shape, "bbox": [1, 2, 0, 5]})
    ):
        content["annotations"].append({**template, "id": 10**6 + number, **change})
    notes = tmp_path / "notes.json"
    notes.write_text(json.dumps(content))
    gt = load_pseudo_gt(written.path, annotations=notes, cache=False)
    gaps = {g.why: g for g in coverage(gt).gaps}
    assert "1000000" in gaps["no joint is annotated"].first
    assert "1000001" in gaps["no box is annotated"].first
    assert gaps["neither a joint nor a box is annotated"].first == ("1000002",)
    assert sum(g.count or 0 for g in gaps.values() if g.what.endswith("a fit")) == len(gt.missing)


def test_distributions_are_of_what_the_columns_hold(released: Callable[[str], Written]) -> None:
    for name in ("mscoco-smplx", "human36m-smpl", "interhand26m-mano", "ffhq-flame", "mscoco-mano"):
        gt = load_pseudo_gt(released(name).path, annotations=released(name).annotations)
        rotations = sum(v[0].size // 3 for n, v in gt.params.items() if n == "global_orient" or "pose" in n)
        angles = joint_angles(gt)
        assert sum(len(a.joints) for a in angles) == rotations * (1 if gt.side is None else len(angles))
        for one in angles:
            assert one.degrees.shape[1] == len(one.joints) == len(set(one.joints))
        root = np.degrees(np.linalg.norm(gt.params["global_orient"], axis=1))
        root = np.minimum(root % 360, 360 - root % 360)
        if gt.side is None:
            assert angles[0].joints[0] == "root"
            np.testing.assert_allclose(angles[0].degrees[:, 0], root, rtol=1e-4, atol=1e-3)
        else:
            for one in angles:
                mine = gt.side == one.title.removesuffix(" hands")
                np.testing.assert_allclose(one.degrees[:, 0], root[mine], rtol=1e-4, atol=1e-3)
        if gt.model == "smplx":
            hand = next(a for a in angles if a.title == "left hand")
            assert (np.isnan(hand.degrees).all(axis=1) == ~gt.valid["left_hand"]).all()
            assert (np.isnan(shapes(gt)[1].codes).all(axis=1) == ~gt.valid["face"]).all()
        np.testing.assert_array_equal(shapes(gt)[0].codes, gt.params["betas"])
        # Without a mesh the same as the first joint that is posed.
        for place in places(gt):
            posed = gt.forward(want="joints", space=place.space).joints[:, 0].numpy()
            np.testing.assert_allclose(place.root, posed, atol=2e-4)


# --- pictures


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> tuple[PseudoGT, Path]:
    """Hands of both sides on made images, each moved away from its own."""
    folder = studio("interhand26m", count=12, views=1)
    notes = folder / "annotations"
    for file in notes.glob("*.json"):
        shutil.copy(file, folder / "truth")
    gt = load_pseudo_gt(folder / "truth")
    rng = np.random.default_rng(0)
    moved = gt.params["transl"] + rng.uniform(-0.04, 0.04, (len(gt), 3))
    view = gt.view.overlaid({"param/transl": moved.astype(np.float32)})
    gt = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
    return gt.with_quality(measure_quality(gt, batch_size=64)), folder / "images"


def test_the_worst_are_the_worst_and_the_best_the_best(hands: tuple[PseudoGT, Path], tmp_path: Path) -> None:
    gt, images = hands
    assert set(gt.side.tolist()) == {"right", "left"}  # type: ignore[union-attr]
    page, text = made(gt, tmp_path / "r.html", images=images, count=4)
    values = 1000 * np.array(gt.quality["error"])
    names = [f"{i}-{s}" for i, s in zip(gt.ids.tolist(), gt.side, strict=True)]  # type: ignore[arg-type]
    order = [k for k in np.argsort(values, kind="stable").tolist() if not np.isnan(values[k])]
    shown = cards(page, text)
    assert [n for n, _ in shown["best"]] == [names[k] for k in order[:4]]
    assert {n for n, _ in shown["worst"]} == {names[k] for k in order[-4:]}
    said = [float(re.search(r"error ([\d.e+-]+) mm", t)[1]) for _, t in shown["worst"]]  # type: ignore[index]
    assert said == sorted(said, reverse=True)
    np.testing.assert_allclose(said, sorted(values[order], reverse=True)[:4], rtol=6e-3)
    assert len(shown["random"]) == 4
    assert text.count("<img ") == 12
    for data in re.findall(r'base64,([^"]+)"', text):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (240, 480, 3)
        left, right = np.split(pixels.astype(float), 2, axis=1)
        assert abs(left - right).max() > 40  # the fit is drawn
    # Ranked by another column, the list below too.
    page, text = made(gt, tmp_path / "s.html", images=images, count=1, by="bend")
    assert cards(page, text)["worst"][0][0] == names[int(np.argmax(gt.quality["bend"]))]
    assert page.sections["errors"][-1][1][0] == names[int(np.argmax(gt.quality["bend"]))]


def test_same_input_same_bytes_and_the_seed_counts(hands: tuple[PseudoGT, Path], tmp_path: Path) -> None:
    gt, images = hands
    first = write_report(gt, tmp_path / "a.html", images=images, count=3).read_bytes()
    shutil.copytree(images, tmp_path / "copy")
    again = write_report(gt, tmp_path / "b.html", images=tmp_path / "copy", count=3).read_bytes()
    assert first == again
    other = write_report(gt, tmp_path / "c.html", images=images, count=3, seed=1).read_text()
    both = [cards(Page(t), t) for t in (first.decode(), other)]
    assert both[0]["worst"] == both[1]["worst"]
    assert both[0]["random"] != both[1]["random"]


def test_missing_and_broken_images_are_said_and_the_rest_shown(
    hands: tuple[PseudoGT, Path], tmp_path: Path
) -> None:
    gt, images = hands
    own = tmp_path / "images"
    shutil.copytree(images, own)
    values = np.nan_to_num(gt.quality["error"], nan=-1)
    order = np.argsort(-values, kind="stable")
    gone = gt.image_path[order[:1]].tolist()
    (own / gone[0]).unlink()
    there = [int(k) for k in order if gt.image_path[k] not in gone]
    broken = str(gt.image_path[there[0]])
    (own / broken).write_bytes((own / broken).read_bytes()[:300])
    page, text = made(gt, tmp_path / "r.html", images=own, count=2)
    gap = next(g for g in counted(page)[2] if g[0] == "image files")
    rows = int((gt.image_path == gone[0]).sum())
    assert gap[1:] == [
        "1",
        f"not in the image folder; {rows} annotations of theirs are measured, but not drawn",
        gone[0],
    ]
    name = f"{gt.ids[there[0]]}-{gt.side[there[0]]}"  # type: ignore[index]
    assert cards(page, text)["worst"][0][0] == name
    assert f"{broken} is not an image that opencv can read (300 bytes)" in page.words
    assert str(own) not in text
    worse = int((values[gt.image_path == gone[0]] > values[there[1]]).sum())
    assert f"{worse} as bad are left out: their images are not there" in page.words
    # The numbers are of all rows.
    assert page.sections["errors"][0][1][2] == str(int((~np.isnan(gt.quality["reprojection"])).sum()))
    shutil.rmtree(own)
    own.mkdir()
    page, text = made(gt, tmp_path / "r.html", images=own)
    gap = next(g for g in counted(page)[2] if g[0] == "image files")
    assert gap[1] == str(len(set(gt.image_path.tolist())))
    assert gap[3].count(", ") == 5  # five are named
    assert "none of the images is in the folder" in page.words
    assert "<img " not in text
    assert "no image folder was given" in made(gt, tmp_path / "r.html")[0].words


def test_motion_capture_is_drawn_through_its_cameras(tmp_path: Path) -> None:
    """A studio's true fits cover the person of the picture in every view; one view stands for a fit."""
    folder = studio("human36m", count=12)
    notes = folder / "annotations"
    gt = load_pseudo_gt(
        sorted((folder / "truth").glob("*.json")),
        annotations=sorted(notes.glob("*_data.json")),
        cameras=sorted(notes.glob("*_camera.json")),
    )
    page, text = made(gt, tmp_path / "r.html", images=folder / "images", count=2)
    shown = cards(page, text)
    keys = dict(zip(map(str, gt.ids.tolist()), gt.keys, strict=True))
    chosen = [keys[name] for kind in ("worst", "best") for name, _ in shown[kind]]
    assert len(set(chosen)) == len(chosen)
    assert "In the world: root joint, m" in page.words
    assert "depth, m" in page.words
    sheet = contact_sheets(gt, errors_of(gt, by="shape"), image_files(gt, folder / "images"), count=1, seed=0)
    pixels = sheet[0].cards[0].picture.pixels
    assert pixels is not None
    left, right = np.split(pixels.astype(float), 2, axis=1)
    changed = (abs(left - right).max(axis=2) > 25)[60:180, 60:180]
    assert changed.mean() > 0.05


# --- what comes from files


def write_hostile(folder: Path) -> tuple[PseudoGT, Path]:
    """The shipped photograph under a name that is markup, in a file that says so."""
    for name in ("MSCOCO_train_SMPL_NeuralAnnot.json", "person_keypoints_train2017.json"):
        shutil.copy(SAMPLE / "mscoco" / name, folder / name)
    notes = folder / "person_keypoints_train2017.json"
    content = json.loads(notes.read_text())
    for image in content["images"]:
        image["file_name"] = f"train2017/{HOSTILE.replace('/', '-')}\u202e.png"
    notes.write_text(json.dumps(content))
    images = folder / "images"
    place = images / content["images"][0]["file_name"]
    place.parent.mkdir(parents=True)
    shutil.copy(SAMPLE / "mscoco" / "train2017" / "astronaut.png", place)
    return load_pseudo_gt(folder / "MSCOCO_train_SMPL_NeuralAnnot.json"), images


def test_names_from_files_are_text(tmp_path: Path) -> None:
    gt, images = write_hostile(tmp_path)
    hostile = HOSTILE.replace("/", "-")
    page, text = made(gt, tmp_path / "r.html", images=images, title=HOSTILE, files=[HOSTILE])
    assert text.count("<img ") == 2  # one row: among the worst and the random
    assert page.words.count(hostile) == 3  # two cards and the list
    assert page.words.count(HOSTILE) == 2  # the title, and its heading
    assert "\u202e" not in text
    shutil.rmtree(images)
    images.mkdir()
    page, _ = made(gt, tmp_path / "r.html", images=images)
    assert hostile in counted(page)[2][0][3]


@pytest.mark.parametrize("name", ["../secret.png", "/{}/secret.png", "train2017/../../secret.png"])
def test_no_file_outside_the_image_folder_is_shown(name: str, tmp_path: Path) -> None:
    gt, images = write_hostile(tmp_path)
    write_image(tmp_path / "secret.png", np.full((512, 512, 3), 200, np.uint8))
    notes = tmp_path / "person_keypoints_train2017.json"
    content = json.loads(notes.read_text())
    for image in content["images"]:
        image["file_name"] = name.format(str(tmp_path).strip("/"))
    notes.write_text(json.dumps(content))
    gt = load_pseudo_gt(tmp_path / "MSCOCO_train_SMPL_NeuralAnnot.json")
    page, text = made(gt, tmp_path / "r.html", images=images)
    assert "<img " not in text
    assert counted(page)[2][0][:2] == ["image files", "1"]


# --- few rows, and none


def test_no_row_and_one_row(hands: tuple[PseudoGT, Path], tmp_path: Path) -> None:
    gt, images = hands
    page, text = made(gt[:0], tmp_path / "r.html", images=images)
    counts, valid, _ = counted(page)
    assert counts["annotations with a fit"] == counts["different fits"] == "0"
    assert set(valid) == {"right hand", "left hand"}
    assert "There is no row to measure" in page.words
    assert "<img " not in text
    page, text = made(gt[:1], tmp_path / "r.html", images=images)
    assert {kind: len(c) for kind, c in cards(page, text).items()} == {"worst": 1, "random": 1}
    bare = load_pseudo_gt(gt.companions.folders[0], annotations=False)
    made(bare[:0], tmp_path / "r.html")
    made(bare[:1], tmp_path / "r.html")


def test_rows_that_cannot_be_measured(hands: tuple[PseudoGT, Path], tmp_path: Path) -> None:
    gt, images = hands
    values = np.full(len(gt), np.nan, np.float32)
    unknown = ("error", "reprojection_percent", "reprojection", "own_measure")
    gt = gt.with_quality(dict.fromkeys(unknown, values))
    page, _ = made(gt, tmp_path / "r.html", images=images, count=1)
    table = {row[0]: row for row in page.sections["errors"][0][1:]}
    assert table["reprojection"][2:8] == table["own measure"][2:8] == ["0", *["-"] * 5]
    assert "The largest of bend" in page.words  # the first that any row has
    some = values.copy()
    some[[1, 3, 5]] = [2, np.inf, 1]
    gt = gt.with_quality({"error": some})
    page, text = made(gt, tmp_path / "r.html", images=images, count=2)
    names = [f"{i}-{s}" for i, s in zip(gt.ids.tolist(), gt.side, strict=True)]  # type: ignore[arg-type]
    shown = cards(page, text)
    assert [n for n, _ in shown["worst"]] == [names[3], names[1]]
    assert [n for n, _ in shown["best"]] == [names[5]]
    assert "error inf mm" in shown["worst"][0][1]
    everything = dict.fromkeys(gt.quality, values)
    page, text = made(gt.with_quality(everything), tmp_path / "r.html", images=images, count=2)
    assert list(cards(page, text)) == ["random"]


def test_columns_beside_the_file_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    file = "MSCOCO_train_SMPL_NeuralAnnot.json"
    arguments = ["report", file, "--images", ".", "--out", "new/r.html"]
    assert cli.main(arguments) == 0
    assert "written: new/r.html" in capsys.readouterr().out
    assert "Measured before" not in Path("new/r.html").read_text()
    gt = load_pseudo_gt(file)
    save_quality(gt.with_quality({**measure_quality(gt), "error": np.full(1, 0.123)}), file)
    assert cli.main(arguments) == 0
    page = Page(Path("new/r.html").read_text())
    assert "Measured before, and kept beside the file" in page.words
    assert ["error", "mm", "1", "123.00"] in [row[:4] for row in page.sections["errors"][0]]
    assert cli.main([*arguments, "--again"]) == 0
    assert "123.00" not in Page(Path("new/r.html").read_text()).words
    save_quality(gt.with_quality({"error": np.full(1, 0.456)}), "elsewhere.quality.safetensors")
    assert cli.main([*arguments, "--columns", "elsewhere.quality.safetensors"]) == 0
    assert "456.00" in Page(Path("new/r.html").read_text()).words


MISTAKES = {
    "suffix": (("--out", "r.pdf"), "r.pdf: a page is written as .html, got '.pdf'"),
    "count": (("--count", "-1"), "--count must be from 0, got -1"),
    "folder": (("--images", "nowhere"), "--images: nowhere: no such folder"),
    "by": (("--by", "error"), "no ranking by 'error': MSCOCO has no 3D joints; there are reprojection, "),
    "flag": (("--by", "self_penetration"), "no ranking by 'self_penetration': "),
    "prior": (("--prior", "nothing"), "nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_take_one_line_and_leave_no_page(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    arguments, text = MISTAKES[mistake]
    assert cli.main(["report", "MSCOCO_train_SMPL_NeuralAnnot.json", *arguments]) == 2
    out, err = capsys.readouterr()
    assert text in err.splitlines()[-1]
    assert out == ""
    assert not list(tmp_path.glob("*.html"))
    with pytest.raises(NotADirectoryError, match="no such image folder"):
        write_report(
            load_pseudo_gt("MSCOCO_train_SMPL_NeuralAnnot.json"),
            "r.html",
            images="person_keypoints_train2017.json",
        )


# --- what it shares with evaluate


def test_order_of_rows_and_one_for_each_fit() -> None:
    values = np.array([3, np.nan, np.inf, 1, 3, 2])
    assert ordered(values, largest_first=True).tolist() == [2, 0, 4, 5, 3]
    assert ordered(values, largest_first=False).tolist() == [3, 5, 0, 4, 2]
    fits = np.array([0, 0, 1, 1, 2, 0])
    assert ordered(values, fits, largest_first=True).tolist() == [2, 0, 4]
    assert ordered(values, fits, largest_first=False).tolist() == [3, 5, 4]
    assert ordered(np.full(2, np.nan), np.zeros(2), largest_first=True).tolist() == []


def test_spans_and_histograms_count_every_value() -> None:
    values = np.array([[-1.0, np.nan], [0, np.nan], [2, np.inf]])
    svg = spans((HOSTILE, "b"), values, title=HOSTILE, unit="m")
    page = Page(svg)
    assert page.words.count(HOSTILE) >= 2
    assert f"{HOSTILE}: 1% -0.98, 25% -0.5, 50% 0, 75% 1, 99% 1.96 m" in page.words
    assert [tag for tag, _ in page.tags].count("rect") == 1
    with pytest.raises(ValueError, match=r"^values must be \(N, 1\)"):
        spans(("a",), values, title="", unit="")
    for scale in ([5.0], [4.1, 4.2, 4.9, 40], [-3, -2.5, np.nan, np.inf], [1e6 + 1, 1e6]):
        page = Page(histogram(np.array(scale), title="t", unit="m", from_zero=False, noun="fits"))
        bars = [int(n) for n in re.findall(r" m: (\d+)", page.words)]
        total, beyond = re.search(r"(\d+) fits(?:, (\d+) beyond)?", page.words).groups()  # type: ignore[union-attr]
        known = int((~np.isnan(scale)).sum())
        assert int(total) == known == sum(bars) + int(beyond or 0)
