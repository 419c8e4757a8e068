"""`fetch` from a server that drops, lies and changes, by a process that dies: the whole file or none."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from file_server import HTML, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Process

from neuralannot.downloads import DownloadError, Patience, fetch
from neuralannot.downloads.http import checked_url, discard

BODY = random.Random(0).randbytes(700_001)
SOON = Patience(attempts=4, first_wait=0.0, longest_wait=5.0, timeout=5.0)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.part"


def get(served, part, **options):
    options = {"patience": SOON, "loopback": True} | options
    return fetch(f"{served.url}/file", part, **options)


def test_a_file_comes_whole(part):
    seen = []
    with serving({"file": BODY}) as served:
        assert get(served, part, report=lambda *now: seen.append(now)) == len(BODY)
        assert served.asked == [("/file", None)]
    assert part.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert sorted(seen) == seen


def test_dropped_lines_are_taken_up_where_they_broke(part):
    with serving({"file": BODY}, drops=[100_000, 0, 200_000, 1]) as served:
        assert get(served, part) == len(BODY)
        assert served.asked == [
            ("/file", None),
            ("/file", "bytes=100000-"),
            ("/file", "bytes=100000-"),
            ("/file", "bytes=300000-"),
            ("/file", "bytes=300001-"),
        ]
    assert part.read_bytes() == BODY


def test_any_bytes_that_come_make_the_attempts_count_anew(part):
    with serving({"file": BODY}, drops=[1] * 20) as served:
        assert get(served, part, patience=Patience(attempts=2, first_wait=0)) == len(BODY)
        assert len(served.asked) == 21


@settings(max_examples=40)
@given(
    size=st.integers(1, 3000),
    drops=st.lists(st.integers(0, 1500), max_size=6),
    ranges=st.booleans(),
    chunked=st.booleans(),
    dated=st.booleans(),
    calls=st.integers(1, 7),
)
def test_however_it_is_cut_the_file_is_whole(served_file, size, drops, ranges, chunked, dated, calls):
    """Any cuts, with ranges or without, by ETag or date, in one call or several: the file, or an error."""
    served, folder = served_file
    body = BODY[:size]
    served.files = {"file": body}
    served.etag, served.date = (None, email.utils.formatdate(0)) if dated else ('"one"', None)
    served.drops, served.ranges, served.chunked = list(drops), ranges, chunked
    part = folder / "file.part"
    discard(part)
    for _ in range(calls - 1):
        with contextlib.suppress(DownloadError):
            assert get(served, part, patience=Patience(attempts=1, first_wait=0)) == size
            assert part.read_bytes() == body
        assert part.read_bytes() == body[: part.stat().st_size]
    assert get(served, part, patience=Patience(attempts=9, first_wait=0)) == size
    assert part.read_bytes() == body


@pytest.fixture(scope="module")
def served_file():
    with serving({"file": BODY}) as served, tempfile.TemporaryDirectory() as folder:
        yield served, Path(folder)


def test_a_later_call_goes_on(part):
    with serving({"file": BODY}, drops=[123_456]) as served:
        with pytest.raises(
            DownloadError, match="ended after 123456 of 700001 bytes; attempts: 1; 123456 bytes"
        ):
            get(served, part, patience=Patience(attempts=1))
        assert part.read_bytes() == BODY[:123_456]
        assert get(served, part) == len(BODY)
        assert served.asked[-1] == ("/file", "bytes=123456-")
        assert get(served, part) == len(BODY)  # whole: not asked for again
        assert len(served.asked) == 2
    assert part.read_bytes() == BODY


@pytest.mark.parametrize("how", ["etag", "date", "address", "no state", "longer", "weak", "lies"])
def test_a_part_of_another_file_is_dropped(part, how):
    """The part of one version never meets the rest of another."""
    other = bytes(255 - b for b in BODY)
    with serving({"file": BODY, "other": other}, drops=[300_000]) as served:
        if how == "date":
            served.etag, served.date = None, email.utils.formatdate(0)
        elif how == "weak":
            served.etag = 'W/"one"'
        with pytest.raises(DownloadError, match="300000 bytes are kept"):
            get(served, part, patience=Patience(attempts=1))
        served.files["file"] = other + b"more" if how == "longer" else other
        if how == "date":
            served.date = email.utils.formatdate(1)
        elif how == "no state":
            (part.parent / "file.part.json").unlink()
        elif how not in ("address", "weak"):
            served.etag, served.honest = '"two"', how != "lies"
        name = "other" if how == "address" else "file"
        total = fetch(f"{served.url}/{name}", part, loopback=True, patience=SOON)
        assert part.read_bytes() == served.files[name]
        assert total == len(served.files[name])


def test_a_file_that_became_shorter_comes_anew(part):
    with serving({"file": BODY}, drops=[300_000], honest=False) as served:
        with pytest.raises(DownloadError):
            get(served, part, patience=Patience(attempts=1))
        served.files["file"] = BODY[:1000]
        assert get(served, part) == 1000
    assert part.read_bytes() == BODY[:1000]


def test_no_ranges_means_from_the_start(part):
    with serving({"file": BODY}, ranges=False, drops=[300_000, 200_000]) as served:
        assert get(served, part) == len(BODY)
        assert len(served.asked) == 3
    assert part.read_bytes() == BODY


@pytest.mark.parametrize("settings", [{"length": None}, {"chunked": True}])
def test_a_size_that_is_not_told_is_none(part, settings):
    seen = []
    with serving({"file": BODY}, **settings) as served:
        assert get(served, part, report=lambda *now: seen.append(now)) == len(BODY)
    assert {total for _, total in seen} == {None}
    assert part.read_bytes() == BODY


def test_a_length_that_is_too_long_is_an_error(part):
    with serving({"file": BODY}, length=10) as served:
        with pytest.raises(DownloadError, match=r"has 700001 bytes, announced were 700011; att") as caught:
            get(served, part)
        assert caught.value.kind == "changed"
    with serving({"file": BODY}, length=10, ranges=False) as served:
        with pytest.raises(DownloadError, match=r"ended after 700001 of 700011 bytes; attempts: 4") as caught:
            get(served, part)
        assert caught.value.kind == "network"


def test_a_slow_server_is_waited_for_and_a_silent_one_is_asked_again(part):
    with serving({"file": BODY[:200_000]}, block=20_000, pace=0.02, stalls=[60_000]) as served:
        got = get(served, part, patience=Patience(attempts=3, first_wait=0, timeout=0.5))
        assert got == 200_000
        assert served.asked[1] == ("/file", "bytes=60000-")
    assert part.read_bytes() == BODY[:200_000]


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (404, "gone", "404 Not Found: the link is dead"),
        (410, "gone", "410 Gone: the link is dead"),
        (403, "denied", "403 Forbidden: the server does not give it"),
        (401, "denied", "401 Unauthorized: the server"),
        (400, "broken", "400 Bad Request"),
        (204, "broken", "answered 204, expected 200"),
    ],
)
def test_answers_that_are_final(part, code, kind, text):
    with serving({"file": BODY}, statuses=[(code, {})]) as served:
        with pytest.raises(DownloadError, match=text) as caught:
            get(served, part)
        assert caught.value.kind == kind
        assert len(served.asked) == 1
    assert not part.exists()


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_answers_that_may_change_are_asked_again(part, code):
    waits = []
    with serving({"file": BODY}, statuses=[(code, {}), (code, {})]) as served:
        patience = Patience(attempts=3, first_wait=1.5, longest_wait=60)
        assert get(served, part, patience=patience, sleep=waits.append) == len(BODY)
    assert waits == [1.5, 3.0]


def test_waits_double_up_to_the_longest_and_end(part):
    waits = []
    with serving({"file": BODY}, statuses=[(503, {})] * 9) as served:
        patience = Patience(attempts=6, first_wait=1, longest_wait=5)
        with pytest.raises(DownloadError, match="503 Service Unavailable; attempts: 6; 0 bytes") as caught:
            get(served, part, patience=patience, sleep=waits.append)
    assert caught.value.kind == "busy"
    assert waits == [1, 2, 4, 5, 5]


@pytest.mark.parametrize("late", [False, True])
def test_retry_after_is_kept_to(part, late):
    waits = []
    date = email.utils.formatdate(time.time() + (600 if late else 30), usegmt=True)
    with serving(
        {"file": BODY}, statuses=[(429, {"Retry-After": "7"}), (503, {"Retry-After": date})]
    ) as served:
        patience = Patience(attempts=3, first_wait=1, longest_wait=60)
        if late:
            with pytest.raises(DownloadError, match=r"asks to come back in (59\d|600) s"):
                get(served, part, patience=patience, sleep=waits.append)
        else:
            assert get(served, part, patience=patience, sleep=waits.append) == len(BODY)
    assert waits[0] == 7
    assert late or 25 < waits[1] <= 30


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_web_page_is_not_the_file(part, kind):
    with serving({"file": HTML}, kind=kind) as served:
        with pytest.raises(DownloadError, match=r"a web page .*came instead of the file") as caught:
            get(served, part)
        assert caught.value.kind == "page"
    assert not part.exists() or part.stat().st_size == 0


def test_empty_and_encoded_files_are_refused(part):
    with serving({"file": b""}) as served, pytest.raises(DownloadError, match="an empty file came"):
        get(served, part)
    with (
        serving({"file": BODY}, encoding="gzip") as served,
        pytest.raises(DownloadError, match="came encoded as gzip, asked for as it is"),
    ):
        get(served, part)


# --- where it may go


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/file",
        "ftp://example.org/file",
        "file:///etc/passwd",
        "data:,x",
        "example.org/file",
        "https:///file",
        "https://user:secret@example.org/file",
        "https://example.org:99999/file",
        "http://127.0.0.1.example.org/file",
        "http://127.0.0.1@example.org/file",
    ],
)
def test_only_https_is_followed(url, part):
    for loopback in (False, True):
        with pytest.raises(DownloadError) as caught:
            fetch(url, part, loopback=loopback)
        assert caught.value.kind == "insecure"
        assert "secret" not in str(caught.value)


def test_loopback_is_only_for_those_who_ask(part):
    assert checked_url("https://example.org/file") == "https://example.org/file"
    with serving({"file": BODY}) as served:
        with pytest.raises(DownloadError, match="only https:// is followed, got http"):
            fetch(f"{served.url}/file", part)
        assert served.asked == []


@pytest.mark.parametrize(
    "target",
    ["http://example.org/file", "file:///etc/passwd", "ftp://example.org/file", "//example.org/file"],
)
def test_redirects_off_https_are_not_followed(part, target):
    with serving({"file": BODY}, statuses=[(302, {"Location": target})]) as served:
        with pytest.raises(DownloadError, match=r"/file: redirects to .*only https|not allowed") as caught:
            get(served, part)
        assert caught.value.kind == "insecure"
    assert not part.exists()


def test_redirects_are_followed_and_loops_end(part):
    with serving({"file": BODY, "there": BODY}, statuses=[(302, {"Location": "/there"})]) as served:
        assert get(served, part) == len(BODY)
        assert served.asked[1] == ("/there", None)
    discard(part)
    with serving({}, statuses=[(302, {"Location": "/file"})] * 20) as served:
        with pytest.raises(DownloadError, match="infinite loop"):
            get(served, part)
        assert len(served.asked) < 20


def test_nobody_there(part):
    with serving({"file": BODY}) as served:
        pass
    with pytest.raises(DownloadError, match=r"refused; attempts: 4; 0 bytes") as caught:
        get(served, part)
    assert caught.value.kind == "network"


def test_patience_is_checked():
    for wrong in ({"attempts": 0}, {"timeout": 0}, {"first_wait": -1}):
        with pytest.raises(ValueError, match="attempts must be 1 or more"):
            Patience(**wrong)


# --- disks and processes


def test_a_disk_without_room_is_found_before(part, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 700_000))
    with serving({"file": BODY}) as served:
        with pytest.raises(DownloadError, match=r"needs 700,001 bytes more, and 700,000 are free") as caught:
            get(served, part)
        assert caught.value.kind == "disk"


def test_a_disk_that_fills_up_keeps_what_came(part):
    """A limit of the system on the file's size stands for the full disk: the same call fails."""
    code = (
        "import resource, signal, sys\n"
        "from neuralannot.downloads import DownloadError, fetch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    fetch(sys.argv[1], sys.argv[2], loopback=True)\n"
        "except DownloadError as error:\n"
        "    print(error.kind, error)\n"
    )
    with serving({"file": BODY}) as served:
        run = Process("-c", code, f"{served.url}/file", part).ended()
        assert run.stdout.startswith("disk "), run.stdout + run.stderr
        assert "what came is kept" in run.stdout
        assert part.read_bytes() == BODY[:300_000]
        assert get(served, part) == len(BODY)
        assert served.asked[-1] == ("/file", "bytes=300000-")
    assert part.read_bytes() == BODY


def test_an_error_of_the_disk_is_not_taken_for_the_line(part, monkeypatch):
    """A read-only disk is not tried six times."""
    (part.parent / "file.part").mkdir()
    with serving({"file": BODY}) as served:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            get(served, part)
        assert caught.value.errno in (errno.EISDIR, errno.EPERM)
        assert len(served.asked) <= 1


def test_a_killed_process_is_gone_on_with(part):
    code = "import sys; from neuralannot.downloads import fetch; fetch(*sys.argv[1:], loopback=True)"
    with serving({"file": BODY}, block=1 << 14, pace=0.02) as served:
        run = Process("-c", code, f"{served.url}/file", part)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 100_000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        assert run.ended().returncode == -signal.SIGKILL
        have = part.stat().st_size
        assert 0 < have < len(BODY)
        served.pace = 0
        assert get(served, part) == len(BODY)
        assert served.asked[-1] == ("/file", f"bytes={have}-")
    assert part.read_bytes() == BODY
