"""Where the releases' files and their companions are to be had: links as the authors' pages give them.

The pages moved their files several times; `Source.links` are newest first. What was a link once may be dead
now: `Release.page` is where new ones appear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from neuralannot.catalog import Release, release_named

__all__ = [
    "SOURCES",
    "Companion",
    "Source",
    "companions_of",
    "drive_id",
    "file_names",
    "is_folder",
    "source_of",
]


@dataclass(frozen=True)
class Source:
    """The links of one release, newest first: files or folders of Google Drive. None: only its page has them.

    `parts`: the subjects or splits that are known to exist; a folder may hold more.
    """

    links: tuple[str, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Companion:
    """What stands beside a release: `kind` (annotations, cameras, 3D joints, images), its file `names`, of
    which one will do for annotations, and `where` to get them, newest first."""

    kind: str
    names: tuple[str, ...]
    where: tuple[str, ...]


@dataclass(frozen=True)
class _DataSet:
    companions: tuple[str, ...]
    images: tuple[str, ...]
    terms: str


def _file(*ids: str) -> tuple[str, ...]:
    return tuple(f"https://drive.google.com/file/d/{i}/view" for i in ids)


def _folder(*ids: str) -> tuple[str, ...]:
    return tuple(f"https://drive.google.com/drive/folders/{i}" for i in ids)


_SUBJECTS = ("1", "5", "6", "7", "8", "9", "11")

# Newest first: the release's page of 2023, then that of 2022.
SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "human36m-smpl": Source(
            _folder("1ySxiuTCSdUEqbgTcx7bx02uMglPOkKjc", "1xLkuyrjB832o5aG_M3g3EEf0PXqKkvS8"), _SUBJECTS
        ),
        "human36m-smplx": Source(
            _folder("19ifIQtAB3ll8d37-kerL1eQWp31mOwJM", "1opns6ta471PPzvVhhm9Anv5HMd5hCdoj"), _SUBJECTS
        ),
        "mpi-inf-3dhp-smpl": Source(
            _file("1A6yxW1cs2MVH3awQ-Yrgb7DNSRjGBI2p", "1mxyPTnwM7D5L0NhtSEY1-pl3k5mS2IV6")
        ),
        "mpi-inf-3dhp-smplx": Source(
            _file("1ADOJlaqaBDjZ3IEgrgLTQwNf6iHd-rGH", "1lBJyu95xN4EhDyDA1GLkLqlh0SfAKU9a")
        ),
        "mscoco-smpl": Source(
            _file("1pFFCKuAyGY6uh112Uafw-hkbJtKCrhL_", "14XDSCdvpW_fJe_plbQ9wPwLv2VjdNuYZ")
        ),
        "mscoco-smplx": Source(
            _file("1RVJiI2Y1TjiAPcRnDZk5CX5L7Vehfinm", "1Jrx7IWdjg-1HYwv0ztLNv0oy3Y_MOkVy")
        ),
        "mscoco-mano": Source(
            _file("1OuWlMor5f0TZLVSsojz5Mh6Ut93WkcJc", "183lpJD88LNxZH9iDJackWCQrg9LBrQ0p")
        ),
        "mscoco-flame": Source(
            _file("1HlaGmwIEM6nqXXlkaNN_Cygi39oakddy", "1VIsrPk9Ub547AN3dZH-XyfZbfNl0OYtX")
        ),
        "mscoco-smpl-three-recipes": Source(_file("15xrGRmmusKsKVdvCh2TYYlnXTzoBE0TZ")),
        "mscoco-smpl-two-recipes": Source(_file("1xP2paU8WAoelPoKOJQ05xA9WEDNgigL1")),
        "mpii-smpl": Source(_file("1Zat9Wf41IIt9P1TVW8dPh7dckF7N-Ed-", "1dvtXmRWuTw1Rv89I8uGFl-YkZbhg3Lqz")),
        "mpii-smplx": Source(_file("1alkKvhkqQGqriKst83uS-kUG7v6SkM7W", "13YsJra9b_EONRexNxG7k1F9zp10SiWt5")),
        "3dpw-smplx": Source(
            _folder("1gSyUatSvER6IwWvwNpdQGtN8mcg3YS7N", "1iff6d8_BJmbWCcnBGnGgLO5_n4Cvk77e"),
            ("train", "validation", "test"),
        ),
        "crowdpose-smpl": Source(
            _folder("1bGGfavBh0yVGabb7EJbOwrazfhKnIR4y", "1cTLcsb54LcUjlaiqdmwfg0UEZJ7IftFi"), ("train",)
        ),
        "ffhq-flame": Source(_file("1u2Y2B5tVuZOnWy5oiNOKMkI22QUxiOKL", "1MtEtal-mmE9j36f_Nz160E_N1CLK07yf")),
        "instavariety-smpl": Source(
            _folder("1PKKATOObwJ_NEk6oGIhIl9qBELfYuTlv", "1W6LK4h6_dr1gfBMY7gas375M9LxrqDSD")
        ),
        "interhand26m-mano": Source((), ("train", "test", "val")),
    }
)

_COCO_PAGE = "https://cocodataset.org/#download"
_DATA_SETS: Mapping[str, _DataSet] = {
    "Human3.6M": _DataSet(
        _folder("1r0B9I3XxIIW_jsXjYinDpL6NFcxTZart", "1kgVH-GugrLoc9XyvP6nRoaFpw3TmM5xK"),
        _folder("1r0B9I3XxIIW_jsXjYinDpL6NFcxTZart", "1kgVH-GugrLoc9XyvP6nRoaFpw3TmM5xK"),
        "http://vision.imar.ro/human3.6m/",
    ),
    "MPI-INF-3DHP": _DataSet(
        _folder("1wQbHEXPv-WH1sNOLwdfMVB7OWsiJkq2M", "1oHzb4oJHPZllLgN_yjyatp1LdqdP0R61"),
        _folder("1wQbHEXPv-WH1sNOLwdfMVB7OWsiJkq2M", "1oHzb4oJHPZllLgN_yjyatp1LdqdP0R61"),
        "https://vcai.mpi-inf.mpg.de/3dhp-dataset/",
    ),
    "MSCOCO": _DataSet(
        (f"{_COCO_PAGE} (person_keypoints)", "https://github.com/jin-s13/COCO-WholeBody (coco_wholebody)"),
        (f"{_COCO_PAGE} (train2017)",),
        "https://cocodataset.org/#termsofuse",
    ),
    "MPII": _DataSet(
        _folder("1rrL_RxhwQgwhq5BU1iIRPwl285B_KTpU", "1MmQ2FRP0coxHGk0Ntj0JOGv9OxSNuCfK"),
        ("http://human-pose.mpi-inf.mpg.de",),
        "http://human-pose.mpi-inf.mpg.de",
    ),
    "3DPW": _DataSet(
        _folder("1HByTBsdg_A_o-d89qd55glTl44ya3dOs", "1fWrx0jnWzcudU6FN6QCZWefaOFSAadgR"),
        ("https://virtualhumans.mpi-inf.mpg.de/3DPW/ (imageFiles)",),
        "https://virtualhumans.mpi-inf.mpg.de/3DPW/",
    ),
    "CrowdPose": _DataSet(
        ("https://github.com/Jeff-sjtu/CrowdPose",),
        ("https://github.com/Jeff-sjtu/CrowdPose",),
        "https://github.com/Jeff-sjtu/CrowdPose",
    ),
    "FFHQ": _DataSet(
        _file("1GbS5LaKgBlNuOfSXH82Lytni3yY6XI4x"),
        ("https://github.com/NVlabs/ffhq-dataset",),
        "https://github.com/NVlabs/ffhq-dataset",
    ),
    "InstaVariety": _DataSet(
        _folder("1l6-Xj0txn6-rh_t81PpdE5oG7VRdtKE-"),
        ("https://github.com/akanazawa/human_dynamics (InstaVariety)",),
        "https://github.com/akanazawa/human_dynamics",
    ),
    "InterHand2.6M": _DataSet(
        ("https://mks0601.github.io/InterHand2.6M/",),
        ("https://mks0601.github.io/InterHand2.6M/",),
        "https://mks0601.github.io/InterHand2.6M/",
    ),
}


def source_of(release: str | Release) -> Source:
    """The links of a release. Raises ValueError for an unknown name."""
    return SOURCES[_release(release).name]


def terms_page(release: str | Release) -> str:
    """Where the data set's own terms stand."""
    return _DATA_SETS[_release(release).data_set].terms


def file_names(release: str | Release, only: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of a release's files: all that are known, or those of the subjects or splits in `only`.

    Raises ValueError where the release has one file, or no file of such a name can be.
    """
    release = _release(release)
    parts = SOURCES[release.name].parts
    template = release.files.replace("{three}", "ThreeRecipes").replace("{two}", "TwoRecipes")
    placeholder = next((p for p in ("{subject}", "{split}") if p in template), None)
    if placeholder is None:
        if only:
            raise ValueError(f"{release.name} is one file, {template}; there is no {', '.join(only)}")
        return (template,)
    names = []
    for part in dict.fromkeys(str(p) for p in (parts if only is None else only)):
        name = template.replace(placeholder, part)
        if release.match(name) is None:
            raise ValueError(
                f"{release.name}: {part!r} is no {placeholder.strip('{}')}; expected {', '.join(parts)}"
            )
        names.append(name)
    if not names:
        raise ValueError(f"{release.name}: no file chosen; expected some of {', '.join(parts)}")
    return tuple(names)


def companions_of(release: str | Release, files: Sequence[str] | None = None) -> tuple[Companion, ...]:
    """What a release needs beside it, and where that is: for the `files` named, by default for all."""
    release = _release(release)
    found = _DATA_SETS[release.data_set]
    groups = [release.match(name) or {} for name in (file_names(release) if files is None else files)]

    def named(*templates: str | None) -> tuple[str, ...]:
        filled = (_filled(t, g) for t in templates if t for g in groups)
        return tuple(dict.fromkeys(filled))

    kinds = (
        ("annotations", named(*release.annotations)),
        ("cameras", named(release.cameras)),
        ("3D joints", named(release.joints)),
    )
    listed = [Companion(kind, names, found.companions) for kind, names in kinds if names]
    folder = tuple(dict.fromkeys(_filled(release.image_folder, g) for g in groups if release.image_folder))
    return (*listed, Companion("images", folder, found.images))


def drive_id(url: str) -> str:
    """The id in a link to a file or folder of Google Drive. Raises ValueError for another URL."""
    found = re.fullmatch(r"https://drive\.google\.com/(?:file/d|drive/folders)/([\w-]{10,})(?:[/?].*)?", url)
    if found is None:
        raise ValueError(f"{url}: not a link to a file or folder of Google Drive")
    return found[1]


def is_folder(url: str) -> bool:
    """Whether a link of Google Drive is to a folder."""
    return "/drive/folders/" in url


def _release(release: str | Release) -> Release:
    return release if isinstance(release, Release) else release_named(release)


def _filled(template: str, groups: Mapping[str, str]) -> str:
    for key, value in groups.items():
        template = template.replace(f"{{{key}}}", value)
    return template
