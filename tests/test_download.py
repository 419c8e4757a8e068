"""`download` and its command: files that come, are there, changed or are not to be had; terms, links."""

from __future__ import annotations

import errno
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_drive import QUOTA, FakeDrive
from file_server import HTML, serving
from processes import Process

from neuralannot import RELEASES, cli, load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.downloads import (
    DownloadError,
    LicenceNotAccepted,
    Patience,
    companions_of,
    download,
    drive,
    file_names,
    licence_text,
    read_ledger,
    source_of,
)
from neuralannot.downloads.checking import check_release_file
from neuralannot.downloads.locks import locked
from neuralannot.downloads.sources import SOURCES, drive_id, is_folder

COCO = "MSCOCO_train_SMPL_NeuralAnnot.json"
WALK = "Human36M_subject1_SMPL_NeuralAnnot.json"
BODY = (SAMPLE / "mscoco" / COCO).read_bytes()
LONG = json.dumps({str(i): json.loads(BODY)["1"] for i in range(500)}).encode()
SOON = Patience(attempts=2, first_wait=0.0, timeout=5.0)


@pytest.fixture
def mirror():
    with serving({COCO: BODY}) as served:
        yield served


@pytest.fixture
def fetched(tmp_path, mirror):
    """A folder with the file fetched, and the arguments of the call that did it."""
    options = {"accept_licence": True, "mirror": mirror.url, "loopback": True, "patience": SOON}
    download("mscoco-smpl", tmp_path, **options)
    return tmp_path, options


@pytest.fixture
def fake(monkeypatch):
    module = FakeDrive()
    monkeypatch.setitem(sys.modules, "gdown", module)
    return module


def left_over(folder):
    """What is in a folder beside files of a release and the ledger."""
    return [p.name for p in folder.iterdir() if p.suffix != ".json" or p.name.endswith(".part.json")]


# --- a file


def test_a_file_comes_is_recorded_and_not_fetched_again(tmp_path, mirror):
    options = {"mirror": mirror.url, "loopback": True}
    done = download("mscoco-smpl", tmp_path / "new" / "folder", accept_licence=True, **options)
    path = tmp_path / "new" / "folder" / COCO
    assert done.fetched == done.files == (path,)
    assert path.read_bytes() == BODY
    assert left_over(path.parent) == []
    record = read_ledger(path.parent).files[COCO]
    assert (record.release, record.url, record.bytes) == ("mscoco-smpl", f"{mirror.url}/{COCO}", len(BODY))
    assert record.sha256 == hashlib.sha256(BODY).hexdigest()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.time)
    assert len(load_pseudo_gt(path)) == 1

    again = download("mscoco-smpl", path.parent, **options)  # the terms stand accepted
    assert (again.fetched, again.verified, again.adopted) == ((), (path,), ())
    assert len(mirror.asked) == 1


@pytest.mark.parametrize("change", ["longer", "same size"])
def test_a_file_that_changed_is_reported_and_kept(fetched, mirror, change):
    folder, options = fetched
    other = BODY + b" " if change == "longer" else BODY.replace(b"1", b"2", 1)
    (folder / COCO).write_bytes(other)
    with pytest.raises(
        DownloadError, match=r"not the file that was recorded on .* expected .*--again"
    ) as caught:
        download("mscoco-smpl", folder, **options)
    assert caught.value.kind == "changed"
    assert (folder / COCO).read_bytes() == other
    assert len(mirror.asked) == 1

    mirror.statuses = [(404, {})]
    with pytest.raises(DownloadError, match="the link is dead"):
        download("mscoco-smpl", folder, again=True, **options)
    assert (folder / COCO).read_bytes() == other  # the old one stays until the new one is whole
    assert download("mscoco-smpl", folder, again=True, **options).fetched == (folder / COCO,)
    assert (folder / COCO).read_bytes() == BODY


def test_a_file_put_there_by_hand_is_checked_and_recorded(tmp_path, fake):
    (tmp_path / COCO).write_bytes(BODY)
    done = download("mscoco-smpl", tmp_path, accept_licence=True)
    assert done.adopted == (tmp_path / COCO,)
    assert read_ledger(tmp_path).files[COCO].url is None
    assert download("mscoco-smpl", tmp_path).verified == (tmp_path / COCO,)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (HTML, "a browser saved the page instead of the file"),
        (BODY[:-2], "ends|truncated|broken"),
        (BODY[: len(BODY) // 2] + BODY[:40], "not a whole file of mscoco-smpl"),
        (b"", "the file is empty"),
        (b"[]", "not a JSON object"),
        (b"{}", "its first fit holds nothing, expected 'smpl_param'"),
        (b'{"1": {"smplx_param": {}, "cam_param": {}}}', "first fit holds smplx_param, cam_param, expected"),
        (b'{"1": [1]}', "not .*mscoco-smpl"),
        (BODY + BODY, "not a whole file"),
    ],
)
def test_what_is_not_the_file_is_not_taken(tmp_path, mirror, body, text):
    (tmp_path / COCO).write_bytes(body)
    with pytest.raises(DownloadError, match=text):
        download("mscoco-smpl", tmp_path, accept_licence=True)
    assert COCO not in read_ledger(tmp_path).files

    (tmp_path / COCO).unlink()
    mirror.files[COCO] = body
    mirror.kind = "application/octet-stream"
    with pytest.raises(DownloadError, match="not downloaded"):
        download(
            "mscoco-smpl", tmp_path, accept_licence=True, mirror=mirror.url, loopback=True, patience=SOON
        )
    assert not (tmp_path / COCO).exists()
    mirror.files[COCO] = BODY  # and nothing of it is in the way of the right one
    download("mscoco-smpl", tmp_path, mirror=mirror.url, loopback=True)
    assert (tmp_path / COCO).read_bytes() == BODY


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_files_of_every_release_pass_the_check(released, name):
    path = released(name).path
    check_release_file(path, RELEASES[name])
    others = {"smpl": "mscoco-smplx", "smplx": "mscoco-smpl", "mano": "mscoco-flame", "flame": "mscoco-mano"}
    with pytest.raises(DownloadError, match="not "):
        check_release_file(path, RELEASES[others[RELEASES[name].model]])


def test_a_folder_in_the_files_place_and_a_bad_ledger(tmp_path):
    (tmp_path / COCO).mkdir()
    with pytest.raises(DownloadError, match="there, but not a file"):
        download("mscoco-smpl", tmp_path, accept_licence=True)
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "files": {"x": {}}, "licences": {}}'):
        (tmp_path / "downloads.json").write_text(text)
        with pytest.raises(ValueError, match="not the record of downloads that this program writes"):
            download("mscoco-smpl", tmp_path, accept_licence=True)


def test_errors_say_what_to_do_by_hand(tmp_path, mirror):
    mirror.files.clear()
    with pytest.raises(DownloadError) as caught:
        download("mscoco-smpl", tmp_path, accept_licence=True, mirror=mirror.url, loopback=True)
    said = str(caught.value)
    assert said.splitlines()[0] == f"{COCO}: not downloaded"
    assert "404" in said
    assert "the link is dead" in said
    assert f"save the file as {tmp_path / COCO}" in said
    assert "run this again: it checks the file and records it" in said
    assert RELEASES["mscoco-smpl"].page in said

    mirror.statuses = [(503, {})] * 2
    with pytest.raises(DownloadError, match="run this again when the connection works: what came is kept"):
        download("mscoco-smpl", tmp_path, mirror=mirror.url, loopback=True, patience=SOON)


# --- several files


def test_some_of_several_files(tmp_path):
    body = (SAMPLE / "human36m" / WALK).read_bytes()
    names = file_names("human36m-smpl")
    assert len(names) == 7
    with serving(dict.fromkeys(names[:5], body)) as served:
        options = {"accept_licence": True, "mirror": served.url + "/", "loopback": True}
        done = download("human36m-smpl", tmp_path, only=["5", "1", "5"], **options)
        assert [p.name for p in done.fetched] == [names[1], names[0]]
        with pytest.raises(DownloadError) as caught:  # all are tried, and all that fail are named
            download("human36m-smpl", tmp_path, **options)
    assert caught.value.kind == "gone"
    for name in names[:5]:
        assert (tmp_path / name).read_bytes() == body
    for name in names[5:]:
        assert f"{name}: not downloaded" in str(caught.value)


def test_names_of_parts_are_checked(tmp_path):
    assert file_names("3dpw-smplx", ["test"]) == ("3DPW_test_SMPLX_NeuralAnnot.json",)
    with pytest.raises(ValueError, match=r"'train' is no subject; expected 1, 5, 6, 7, 8, 9, 11"):
        file_names("human36m-smpl", ["train"])
    with pytest.raises(ValueError, match=r"'\.\./x' is no split"):
        file_names("3dpw-smplx", ["../x"])
    with pytest.raises(ValueError, match="no file chosen; expected some of train, validation, test"):
        file_names("3dpw-smplx", [])
    with pytest.raises(ValueError, match=f"mscoco-smpl is one file, {COCO}; there is no train"):
        download("mscoco-smpl", tmp_path, accept_licence=True, only=["train"])
    with pytest.raises(ValueError, match="unknown release 'mscoco-smlp'; did you mean 'mscoco-smpl'"):
        download("mscoco-smlp", tmp_path)


# --- processes


def fetching(folder, served):
    return Process(
        *("-m", "neuralannot", "download", "mscoco-smpl", "--to", folder, "--accept-licence"),
        *("--mirror", served.url, "--loopback"),
    )


def test_two_processes_fetch_once(tmp_path):
    with serving({COCO: LONG}, block=1 << 16, pace=0.05) as served:
        runs = [fetching(tmp_path, served) for _ in range(2)]
        for run in runs:
            assert run.ended().returncode == 0, run.stderr
        assert len(served.asked) == 1
    assert sorted("downloaded" in run.stdout for run in runs) == [False, True]
    assert (tmp_path / COCO).read_bytes() == LONG
    assert left_over(tmp_path) == []


def test_a_killed_process_is_gone_on_with(tmp_path):
    part = tmp_path / f"{COCO}.part"
    with serving({COCO: LONG}, block=1 << 13, pace=0.05) as served:
        run = fetching(tmp_path, served)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.ended()
        have = part.stat().st_size
        assert 0 < have < len(LONG)
        assert not (tmp_path / COCO).exists()
        served.pace = 0
        run = fetching(tmp_path, served).ended()
        assert run.returncode == 0, run.stderr
        assert served.asked[-1] == (f"/{COCO}", f"bytes={have}-")
    assert (tmp_path / COCO).read_bytes() == LONG
    assert left_over(tmp_path) == []


def test_a_lock_is_held_by_one_and_left_by_the_dead(tmp_path):
    path = tmp_path / "file"
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom neuralannot.downloads.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n    Path(sys.argv[2]).touch()\n    time.sleep(60)\n"
    )
    run = Process("-c", code, path, tmp_path / "held")
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with locked(path, waits=lambda: os.kill(run.pid, signal.SIGKILL)):
        run.ended()
    assert run.returncode == -signal.SIGKILL  # it was waited for
    assert not (tmp_path / ".file.lock").exists()


# --- terms


def test_terms_are_shown_in_full_and_asked_for(tmp_path, mirror, monkeypatch, capsys):
    with pytest.raises(LicenceNotAccepted) as caught:
        download("mscoco-smpl", tmp_path / "new", mirror=mirror.url, loopback=True)
    assert licence_text("mscoco-smpl") in str(caught.value)
    arguments = [
        "download",
        "mscoco-smpl",
        "--to",
        str(tmp_path / "new"),
        "--mirror",
        mirror.url,
        "--loopback",
    ]

    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))  # no terminal
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert licence_text("mscoco-smpl") in out
    assert "no terminal to ask at" in err
    assert "Run again with --accept-licence" in err

    for answer, status in (("no\n", 2), ("", 2), ("yes\n", 0)):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        assert not (tmp_path / "new").exists()
        assert cli.main(arguments) == status
        assert "Do you accept these terms? Type yes: " in capsys.readouterr().out
    assert (tmp_path / "new" / COCO).read_bytes() == BODY
    kept = read_ledger(tmp_path / "new").licences["mscoco-smpl"]
    assert kept["text"] == licence_text("mscoco-smpl")

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(arguments) == 0  # accepted once for a folder


def test_other_terms_are_asked_for_anew(fetched):
    folder, options = fetched
    ledger = json.loads((folder / "downloads.json").read_text())
    ledger["licences"]["mscoco-smpl"]["text"] = "what they were before"
    (folder / "downloads.json").write_text(json.dumps(ledger))
    with pytest.raises(LicenceNotAccepted):
        download("mscoco-smpl", folder, **(options | {"accept_licence": False}))


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_terms_links_and_companions_of_every_release(name):
    release = RELEASES[name]
    text = licence_text(name)
    for said in (
        release.licence,
        release.page,
        release.data_set,
        release.model.upper(),
        "under its own licence",
    ):
        assert said in text
    source = source_of(name)
    assert source.links or name == "interhand26m-mano"
    assert len({drive_id(link) for link in source.links}) == len(source.links)
    assert all(is_folder(link) == bool("{" in release.files) for link in source.links) or name in (
        "instavariety-smpl",
        "mscoco-smpl-three-recipes",
        "mscoco-smpl-two-recipes",
    )
    for file in file_names(name):
        assert release.match(file) is not None
    kinds = [c.kind for c in companions_of(name)]
    assert kinds[0] == "annotations"
    assert kinds[-1] == "images"
    assert ("cameras" in kinds) == (release.cameras is not None)
    assert ("3D joints" in kinds) == (release.joints is not None)
    for companion in companions_of(name):
        assert companion.where
        assert not any("{" in text for text in (*companion.names, *companion.where))


def test_every_release_has_a_source():
    assert SOURCES.keys() == RELEASES.keys()


def test_what_is_no_link_of_drive_is_refused():
    for url in ("https://example.org/file/d/abcdefghijkl", "https://drive.google.com/file/d/../view"):
        with pytest.raises(ValueError, match="not a link to a file or folder of Google Drive"):
            drive_id(url)


def test_companions_that_are_not_there_are_named(tmp_path, mirror):
    options = {"accept_licence": True, "mirror": mirror.url, "loopback": True}
    absent = download("mscoco-smpl", tmp_path, **options).absent
    assert [c.kind for c in absent] == ["annotations", "images"]
    assert absent[0].names == ("person_keypoints_train2017.json", "coco_wholebody_train_v1.0.json")
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    assert download("mscoco-smpl", tmp_path, **options).absent == ()
    subject = companions_of("human36m-smpl", [WALK])
    assert [c.names for c in subject[:3]] == [
        (f"Human36M_subject1_{kind}.json",) for kind in ("data", "camera", "joint_3d")
    ]


# --- Google Drive


def test_drive_newest_link_first(tmp_path, fake):
    ids = [drive_id(link) for link in source_of("mscoco-smpl").links]
    fake.files = dict.fromkeys(ids, BODY)
    done = download("mscoco-smpl", tmp_path, accept_licence=True)
    assert done.fetched == (tmp_path / COCO,)
    assert fake.calls == ids[:1]
    assert read_ledger(tmp_path).files[COCO].url == source_of("mscoco-smpl").links[0]
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("first", [QUOTA, ConnectionError("reset"), HTML, BODY[:-5], None])
def test_drive_older_link_where_the_newest_fails(tmp_path, fake, first):
    new, old = [drive_id(link) for link in source_of("mscoco-smpl").links]
    fake.files = {old: BODY} if first is None else {new: first, old: BODY}
    assert download("mscoco-smpl", tmp_path, accept_licence=True).fetched
    assert fake.calls == [new, old]
    assert (tmp_path / COCO).read_bytes() == BODY
    assert read_ledger(tmp_path).files[COCO].url == source_of("mscoco-smpl").links[1]
    assert left_over(tmp_path) == []


def test_drive_quota_says_what_to_do(tmp_path, fake):
    for link in source_of("mscoco-smpl").links:
        fake.files[drive_id(link)] = QUOTA
    with pytest.raises(DownloadError) as caught:
        download("mscoco-smpl", tmp_path, accept_licence=True)
    assert caught.value.kind == "quota"
    said = str(caught.value)
    assert "Too many users have viewed" in said
    assert "make a copy" in said
    assert f"open {source_of('mscoco-smpl').links[0]} in a browser" in said
    assert f"save the file as {tmp_path / COCO}" in said


def test_drive_goes_on_and_starts_anew_where_the_size_changed(tmp_path, fake):
    part = tmp_path / "file.part"
    fake.files["id"] = LONG
    fake.dies_after = 20_000
    for _ in range(2):
        with pytest.raises(DownloadError, match="incomplete") as caught:
            drive.fetch_drive_file("id", part)
        assert caught.value.kind == "network"
    fake.dies_after = None
    assert drive.fetch_drive_file("id", part) == len(LONG)
    assert fake.starts == [0, 20_000, 40_000]
    assert part.read_bytes() == LONG

    fake.dies_after, fake.starts = 20_000, []
    with pytest.raises(DownloadError):
        drive.fetch_drive_file("id", part)
    fake.dies_after, fake.files["id"], fake.files["other"] = None, BODY * 100, LONG[::-1]
    assert drive.fetch_drive_file("id", part) == len(BODY) * 100
    assert fake.starts == [0, 20_000, 0]
    assert part.read_bytes() == BODY * 100

    fake.dies_after, fake.starts = 20_000, []
    with pytest.raises(DownloadError):
        drive.fetch_drive_file("id", part)
    fake.dies_after = None
    drive.fetch_drive_file("other", part)
    assert fake.starts == [0, 0]
    assert part.read_bytes() == LONG[::-1]
    assert not Path(f"{part}.drive").exists()


class _Refused(OSError):
    """As requests' HTTPError: an OSError with a response."""

    def __init__(self, code):
        super().__init__(f"{code} Client Error")
        self.response = type("Response", (), {"status_code": code})()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QUOTA, "quota"),
        (_Refused(404), "gone"),
        (_Refused(403), "denied"),
        (ConnectionError("reset"), "network"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (RuntimeError("The page structure may have changed."), "broken"),
    ],
)
def test_drive_errors_have_a_kind(tmp_path, fake, error, kind):
    fake.files["id"] = fake.folders["folder"] = error
    with pytest.raises(DownloadError) as caught:
        drive.fetch_drive_file("id", tmp_path / "part")
    assert caught.value.kind == kind
    with pytest.raises(DownloadError) as caught:
        drive.list_drive_folder("folder")
    assert caught.value.kind == kind


def test_a_full_disk_ends_the_call(tmp_path, fake):
    for link in source_of("mscoco-smpl").links:
        fake.files[drive_id(link)] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DownloadError, match="no room on the disk") as caught:
        download("mscoco-smpl", tmp_path, accept_licence=True)
    assert caught.value.kind == "disk"
    assert len(fake.calls) == 1


def test_drive_folder_is_asked_once_and_names_are_the_catalogues(tmp_path, fake):
    body = (SAMPLE / "human36m" / WALK).read_bytes()
    new, _ = [drive_id(link) for link in source_of("human36m-smpl").links]
    names = file_names("human36m-smpl")
    listed = [(f"id-{name}", f"sub/{name}") for name in names]
    fake.folders[new] = [
        *listed,
        ("bad", "../../../evil.json"),
        ("bad", "/etc/passwd"),
        ("bad", "readme.txt"),
    ]
    fake.files = {f"id-{name}": body for name in names}
    done = download("human36m-smpl", tmp_path, accept_licence=True)
    assert [p.name for p in done.fetched] == list(names)
    assert fake.calls == [f"folder {new}", *(f"id-{name}" for name in names)]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted((*names, "downloads.json"))


def test_drive_folder_that_holds_more_or_less(tmp_path, fake, released):
    body = released("crowdpose-smpl").path.read_bytes()
    new, old = [drive_id(link) for link in source_of("crowdpose-smpl").links]
    fake.folders[new] = [(s, f"CrowdPose_{s}_SMPL_NeuralAnnot.json") for s in ("train", "val", "val2")]
    fake.files = {"train": body, "val": body}
    done = download("crowdpose-smpl", tmp_path, accept_licence=True)
    assert [p.name.split("_")[1] for p in done.fetched] == ["train", "val"]
    with pytest.raises(DownloadError, match=r"CrowdPose_test_\S+ is not in it; it holds CrowdPose_train"):
        download("crowdpose-smpl", tmp_path, only=["test"])
    assert fake.calls[-2:] == [f"folder {new}", f"folder {old}"]
    fake.folders[new] = [("train", "CrowdPose_test_SMPL_NeuralAnnot.json")] * 2
    with pytest.raises(DownloadError, match="is in it 2 times"):
        download("crowdpose-smpl", tmp_path, only=["test"])


def test_without_gdown_and_with_an_old_one(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DownloadError, match=r'pip install "neuralannot\[download\]"') as caught:
        download("human36m-smpl", tmp_path, accept_licence=True)
    assert caught.value.kind == "extra"
    assert str(caught.value).count("pip install") == 1  # not once a file

    class Old:
        def download(self, url=None, output=None, quiet=False): ...

    monkeypatch.setitem(sys.modules, "gdown", Old())
    with pytest.raises(DownloadError, match="this gdown is too old"):
        download("mscoco-smpl", tmp_path, accept_licence=True)


def test_only_a_page_has_interhand(tmp_path, fake):
    with pytest.raises(DownloadError) as caught:
        download("interhand26m-mano", tmp_path, accept_licence=True, only=["val"])
    assert caught.value.kind == "manual"
    assert f"open {RELEASES['interhand26m-mano'].page} in a browser" in str(caught.value)
    assert fake.calls == []


def test_the_fake_asks_what_the_real_gdown_takes():
    gdown = pytest.importorskip("gdown")
    fake = FakeDrive()
    for name in ("download", "download_folder"):
        real = inspect.signature(getattr(gdown, name)).parameters
        for parameter in inspect.signature(getattr(fake, name)).parameters.values():
            assert real[parameter.name].default == parameter.default, (name, parameter.name)


def test_the_real_gdown_under_the_adapter(tmp_path, monkeypatch):
    """gdown itself, sent to this machine instead of Drive: its part file, its resuming, its progress."""
    gdown = pytest.importorskip("gdown")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    real, part = gdown.download, tmp_path / "part"
    body = LONG * 8
    with serving({"id": body}, drops=[1_500_000]) as served:

        def here(*, id, **options):
            return real(url=f"{served.url}/{id}", **options)

        monkeypatch.setattr(gdown, "download", here)
        with pytest.raises(DownloadError, match="incomplete") as caught:
            drive.fetch_drive_file("id", part, patience=Patience(attempts=1))
        assert caught.value.kind == "network"
        seen = []
        got = drive.fetch_drive_file("id", part, patience=SOON, report=lambda *now: seen.append(now))
        assert got == len(body)
        assert seen[-1] == (len(body), len(body))
        assert served.asked[-1] == ("/id", f"bytes={1 << 20}-")  # gdown writes half megabytes
        assert part.read_bytes() == body
        served.files["id"] = HTML
        with pytest.raises(DownloadError, match="a web page came instead of the file"):
            drive.fetch_drive_file("id", tmp_path / "other", patience=SOON)
        served.statuses = [(404, {})]
        with pytest.raises(DownloadError) as caught:
            drive.fetch_drive_file("id", tmp_path / "other", patience=SOON)
        assert caught.value.kind == "gone"


# --- the command


def test_the_command_shows_without_fetching(tmp_path, fake, capsys):
    assert cli.main(["download", "human36m-smpl", "--to", str(tmp_path), "--only", "1", "--show"]) == 0
    out = capsys.readouterr().out
    assert licence_text("human36m-smpl") in out
    assert f"{WALK}: not there" in out
    for link in source_of("human36m-smpl").links:
        assert link in out
    assert "Human36M_subject1_camera.json" in out
    assert list(tmp_path.iterdir()) == []
    assert fake.calls == []


def test_the_command_fetches_and_names_companions(tmp_path, mirror, capsys):
    arguments = ["download", "mscoco-smpl", "--to", str(tmp_path), "--mirror", mirror.url, "--loopback"]
    assert cli.main([*arguments, "--accept-licence"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / COCO}: downloaded, {len(BODY):,} bytes" in out
    assert "still needed beside:" in out
    assert "person_keypoints_train2017.json or coco_wholebody_train_v1.0.json" in out
    assert "https://cocodataset.org/#download" in out
    assert cli.main(arguments) == 0
    assert "there, and as it was recorded" in capsys.readouterr().out
    (tmp_path / COCO).write_bytes(BODY + b"\n")
    assert cli.main(arguments) == 2
    assert "not the file that was recorded" in capsys.readouterr().err
    assert cli.main([*arguments, "--again"]) == 0
    assert (tmp_path / COCO).read_bytes() == BODY


def test_a_mirror_is_https(tmp_path, mirror, capsys):
    arguments = ["download", "mscoco-smpl", "--to", str(tmp_path), "--accept-licence", "--mirror", mirror.url]
    assert cli.main(arguments) == 2
    assert "only https:// is followed" in capsys.readouterr().err
    assert mirror.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_bar_on_a_terminal(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments = ["download", "mscoco-smpl", "--to", str(tmp_path), "--mirror", mirror.url, "--loopback"]
    assert cli.main([*arguments, "--accept-licence"]) == 0
    assert f"{COCO}: 100%" in capsys.readouterr().err


def test_the_catalogue_prints_the_links(capsys):
    assert cli.main(["releases", "mscoco-smpl"]) == 0
    out = capsys.readouterr().out
    for link in source_of("mscoco-smpl").links:
        assert link in out


def test_importing_asks_for_no_extra():
    code = (
        "import sys, neuralannot.downloads.commands, neuralannot.downloads.getting\n"
        "heavy = {'gdown', 'requests', 'simdjson', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
