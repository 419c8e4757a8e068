"""`download`: a release's files into a folder, each whole, checked, and recorded."""

from __future__ import annotations

import os
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neuralannot.catalog import Release, release_named
from neuralannot.companions import find_beside
from neuralannot.downloads.checking import check_release_file
from neuralannot.downloads.drive import DriveFile, fetch_drive_file, list_drive_folder
from neuralannot.downloads.http import Patience, checked_url, discard, fetch
from neuralannot.downloads.ledger import LEDGER, Ledger, Record, now, read_ledger, sha256_of, update_ledger
from neuralannot.downloads.licences import LicenceNotAccepted, licence_text
from neuralannot.downloads.locks import locked
from neuralannot.downloads.sources import (
    SOURCES,
    Companion,
    companions_of,
    drive_id,
    file_names,
    is_folder,
)
from neuralannot.downloads.trouble import DownloadError

__all__ = ["Download", "download", "is_accepted"]

_QUOTA = (
    "Google Drive gives out each file a limited number of times a day: wait a day; or open the link signed "
    'in, choose "make a copy" into your own Drive, and download the copy'
)


@dataclass(frozen=True)
class Download:
    """What `download` did: which files are there now, and which companions are not.

    `fetched`: came now; `verified`: were there, and are what was recorded; `adopted`: were there without a
    record, are checked and recorded now; `absent`: the companions that are not there.
    """

    folder: Path
    fetched: tuple[Path, ...]
    verified: tuple[Path, ...]
    adopted: tuple[Path, ...]
    absent: tuple[Companion, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the release that are there now."""
        return (*self.fetched, *self.verified, *self.adopted)


def is_accepted(release: str | Release, to: str | Path) -> bool:
    """Whether the terms of a release, as they are now, were accepted for a folder before."""
    release = release if isinstance(release, Release) else release_named(release)
    return read_ledger(to).licences.get(release.name, {}).get("text") == licence_text(release)


def download(
    release: str | Release,
    to: str | Path,
    *,
    accept_licence: bool = False,
    only: Sequence[str] | None = None,
    mirror: str | None = None,
    again: bool = False,
    loopback: bool = False,
    patience: Patience | None = None,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> Download:
    """Get the files of `release` into the folder `to`, made where it is not there.

    A file that is there is not fetched: it is compared with the size and hash in `downloads.json`, or, where
    it has no record (put there by hand), read through and recorded. What an earlier call left of a file is
    gone on with.

    Parameters
    ----------
    accept_licence: that you accept `licence_text(release)`; recorded, so that it is asked once for a folder.
    only: subjects or splits (`["1", "5"]`, `["train"]`) of releases that have several files.
    mirror: an https address under which the files stand by their names, instead of the authors' links.
    again: fetch files anew even where they are there; the old one stays until the new one is whole.
    loopback: allow a mirror at `http://127.0.0.1`, for tests.
    progress: a bar on stderr. `say` is called with lines for the user.

    Raises LicenceNotAccepted (a ValueError); ValueError for unknown names; DownloadError where files were not
    to be had or changed, after all were tried, with what to do by hand for each.
    """
    release = release if isinstance(release, Release) else release_named(release)
    names = file_names(release, only)
    if mirror is not None:
        checked_url(mirror, loopback=loopback)
    folder = Path(to)
    accepted = accept_licence or is_accepted(release, folder)
    if not accepted:
        raise LicenceNotAccepted(
            f"the terms of {release.name} are not accepted; nothing was fetched. Read them and pass "
            f"accept_licence=True (--accept-licence):\n{licence_text(release)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not is_accepted(release, folder):
        update_ledger(folder, lambda ledger: _accept(ledger, release))
    job = _Job(release, folder, mirror, again, loopback, patience or Patience(), progress, say or _silent)
    done: dict[str, list[Path]] = {"fetched": [], "verified": [], "adopted": []}
    wanted, failed = list(names), []
    for name in wanted:  # grows where a folder turns out to hold more
        try:
            done[job.bring(name)].append(folder / name)
        except DownloadError as error:
            failed.append(error)
            if error.kind in ("disk", "extra"):
                break  # the next ones would fail alike
        if only is None:
            wanted.extend(n for n in job.listed() if n not in wanted)
    if failed:
        raise _together(failed)
    companions = companions_of(release, [path.name for paths in done.values() for path in paths])
    return Download(
        folder,
        fetched=tuple(done["fetched"]),
        verified=tuple(done["verified"]),
        adopted=tuple(done["adopted"]),
        absent=tuple(c for c in companions if not _there(folder, c)),
    )


class _Job:
    """One release into one folder."""

    def __init__(
        self,
        release: Release,
        folder: Path,
        mirror: str | None,
        again: bool,
        loopback: bool,
        patience: Patience,
        progress: bool,
        say: Callable[[str], None],
    ) -> None:
        self.release, self.folder, self.mirror, self.again = release, folder, mirror, again
        self.loopback, self.patience, self.progress, self.say = loopback, patience, progress, say
        self._folders: dict[str, list[DriveFile] | DownloadError] = {}

    def bring(self, name: str) -> str:
        """Have a file in the folder: `fetched`, `verified` or `adopted`. Raises DownloadError."""
        path = self.folder / name
        before = path.stat().st_mtime_ns if path.is_file() else None
        with locked(path, waits=lambda: self.say(f"{name}: another process is at it; waiting")):
            # `again` means the file that was there at the call, not one that came while waiting.
            came = path.is_file() and path.stat().st_mtime_ns != before
            if path.exists() and not (self.again and not came):
                return self._verify(path)
            self._fetch(path)
            return "fetched"

    def listed(self) -> list[str]:
        """The names of this release's files in the folders of Drive that were asked."""
        found = [file.name for files in self._folders.values() if isinstance(files, list) for file in files]
        return [name for name in dict.fromkeys(found) if self.release.match(name) is not None]

    def _verify(self, path: Path) -> str:
        if not path.is_file():
            raise DownloadError(f"{path}: there, but not a file; move it away", kind="changed")
        record = read_ledger(self.folder).files.get(path.name)
        if record is None:
            check_release_file(path, self.release)
            self._record(path, None)
            return "adopted"
        size = path.stat().st_size
        digest = sha256_of(path) if size == record.bytes else None
        if digest != record.sha256:
            found = f"{size:,} bytes" if digest is None else f"sha256 {digest}"
            expected = f"{record.bytes:,} bytes" if digest is None else f"sha256 {record.sha256}"
            raise DownloadError(
                f"{path}: not the file that was recorded on {record.time}: {found}, expected {expected}; "
                "run again with --again (again=True) to fetch it anew, or take it out of "
                f"{LEDGER} to keep it as it is",
                kind="changed",
            )
        return "verified"

    def _fetch(self, path: Path) -> None:
        troubles = []
        part = path.with_name(path.name + ".part")
        for link, get in self._ways(path.name, part):
            try:
                with _bar(path.name, self.progress) as report:
                    get(report)
                try:
                    check_release_file(part, self.release)
                except DownloadError:
                    discard(part)
                    raise
            except DownloadError as error:
                if error.kind in ("disk", "extra"):
                    raise DownloadError(f"{path.name}: {error}", kind=error.kind) from error
                troubles.append(error)
                continue
            _flush(part)
            digest = sha256_of(part)
            os.replace(part, path)
            discard(part)
            self._record(path, link, digest)
            return
        raise self._by_hand(path, troubles)

    def _ways(
        self, name: str, part: Path
    ) -> Iterator[tuple[str, Callable[[Callable[[int, int | None], None] | None], int]]]:
        """The ways to a file, one after another: where from, and what fetches it."""
        if self.mirror is not None:
            url = urllib.parse.urljoin(self.mirror.rstrip("/") + "/", urllib.parse.quote(name))
            yield (
                url,
                lambda report: fetch(
                    url, part, loopback=self.loopback, patience=self.patience, report=report
                ),
            )
            return
        for link in SOURCES[self.release.name].links:

            def get(report: Callable[[int, int | None], None] | None, link: str = link) -> int:
                file_id = self._id_in(link, name) if is_folder(link) else drive_id(link)
                return fetch_drive_file(file_id, part, patience=self.patience, report=report)

            yield link, get

    def _id_in(self, link: str, name: str) -> str:
        if link not in self._folders:
            try:
                self._folders[link] = list_drive_folder(drive_id(link), patience=self.patience)
            except DownloadError as error:
                self._folders[link] = error
        listed = self._folders[link]
        if isinstance(listed, DownloadError):
            raise listed
        found = [file.id for file in listed if file.name == name]
        if len(found) != 1:
            there = ", ".join(sorted(file.name for file in listed)[:12]) or "nothing"
            problem = "is not in it" if not found else f"is in it {len(found)} times"
            raise DownloadError(f"{link}: {name} {problem}; it holds {there}", kind="gone")
        return found[0]

    def _record(self, path: Path, url: str | None, digest: str | None = None) -> None:
        record = Record(
            release=self.release.name,
            url=url,
            bytes=path.stat().st_size,
            sha256=digest or sha256_of(path),
            time=now(),
        )
        update_ledger(self.folder, lambda ledger: ledger.files.__setitem__(path.name, record))

    def _by_hand(self, path: Path, troubles: list[DownloadError]) -> DownloadError:
        links = (self.mirror,) if self.mirror is not None else SOURCES[self.release.name].links
        lines = [f"{path.name}: not downloaded"]
        lines += [f"  {trouble}" for trouble in troubles] or [
            f"  {self.release.page} has no direct link to it"
        ]
        if any(trouble.kind in ("quota", "page") for trouble in troubles) and self.mirror is None:
            lines.append(f"  {_QUOTA}")
        if troubles and all(trouble.kind in ("network", "busy") for trouble in troubles):
            lines.append("  run this again when the connection works: what came is kept")
        lines.append(f"  by hand: open {(*links, self.release.page)[0]} in a browser")
        if links:
            lines.append(f"           (new links stand on {self.release.page})")
        lines.append(f"           save the file as {path.absolute()}")
        lines.append("           run this again: it checks the file and records it")
        return DownloadError("\n".join(lines), kind=troubles[-1].kind if troubles else "manual")


def _accept(ledger: Ledger, release: Release) -> None:
    ledger.licences[release.name] = {"text": licence_text(release), "time": now()}


def _there(folder: Path, companion: Companion) -> bool:
    if companion.kind == "images":
        return bool(companion.names) and all((folder / name).is_dir() for name in companion.names)
    found = [find_beside((folder,), name) is not None for name in companion.names]
    return any(found) if companion.kind == "annotations" else all(found)


def _together(failed: list[DownloadError]) -> DownloadError:
    kind = failed[0].kind if len({error.kind for error in failed}) == 1 else "broken"
    return DownloadError("\n".join(str(error) for error in failed), kind=kind)


def _flush(path: Path) -> None:
    """On the disk before it takes its name, so that a power cut leaves no empty file under it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _silent(_: str) -> None:
    pass


@contextmanager
def _bar(name: str, shown: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, file=sys.stderr, miniters=1) as bar:

        def report(have: int, total: int | None) -> None:
            if total != bar.total:
                bar.total = total
            if bar.n == 0 and have:
                bar.initial = have  # what was there counts for no speed
            bar.n = have
            bar.update(0)

        yield report
