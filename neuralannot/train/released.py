"""From parameters to the released files: columns as a reader gives them, names as the catalogue has them.

A user's own data takes the layout of a release (`own_release`) under a file name of its own;
`load_pseudo_gt(path, release=..., annotations="their.json")` then reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuralannot.catalog import Release, release_named
from neuralannot.columns import Part, RowView, TableStack
from neuralannot.companions import Companions
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import GENDERS, SIDES, human_model
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import Table

__all__ = ["own_release", "pseudo_gt_of", "save_release"]

# Layouts whose image paths are the annotation file's own, without a data set's folder before them, where
# there is such a one; hands of one image exist as MSCOCO's alone, whose file names want a folder in them.
_OWN = {"smpl": "mpii-smpl", "smplx": "mpii-smplx", "flame": "ffhq-flame", "mano": "mscoco-mano"}
_RECIPES = {"{three}": "Three_Recipes", "{two}": "Two_Recipes"}


def own_release(model: str) -> str:
    """The release whose layout a user's own in-the-wild data is written in: `smpl` -> `mpii-smpl`.

    Rows are keyed by annotation id (hands: and side), each with a virtual camera. `mscoco-mano` reads
    `righthand_box` and `lefthand_box`, and puts `train2017/` before image names that hold no folder.
    Raises ValueError for an unknown model.
    """
    human_model(model)
    return _OWN[model]


def pseudo_gt_of(
    release: str,
    params: Mapping[str, np.ndarray],
    *,
    ids: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    side: np.ndarray | None = None,
    gender: np.ndarray | None = None,
    focal: np.ndarray | None = None,
    princpt: np.ndarray | None = None,
    valid: Mapping[str, np.ndarray] | None = None,
    entries: np.ndarray | None = None,
    groups: Sequence[Mapping[str, str]] = (),
    space: str | None = None,
) -> PseudoGT:
    """N fits of `release`, in memory, as loading their file would give them (not joined with annotations).

    `params`: smplx's names -> (N, ...), rotations also flat; parts of a whole body, and FLAME's `transl`, may
    be left out: zero and not valid. FLAME's `transl` may be NaN where a face has no place.
    `ids` (N,) for releases keyed by annotation id, `keys` (N, K) for the others, as `Release.key_names` says;
    (N, 1) keys do for ids. `side` (N,) for hands. `gender` (N,), neutral where None. `focal`, `princpt`
    (N, 2) px of the whole image, where the release's leaves hold cameras. `valid`: part -> (N,) bool, of
    optional parts; where not said, a part is valid that was given. `entries` (M, K): hands' ids or frames
    that the file shall hold, those without a fit too. `groups`: the file names' `{split}`; subjects follow
    from the keys. `space`: for 3DPW, whose images' cameras decide it, `camera` or `world`.

    Rows keep their order, as files do, except where files nest: frame keys are sorted, hands of one id come
    together, right before left. So loading what was saved gives the same rows.

    Raises ValueError that names the row for what a file cannot hold: NaN, a key twice, a focal length that is
    not positive; and for parameters, shapes, keys or cameras that the release does not have or needs.
    """
    entry = release_named(release)
    names = _key_numbers(entry, ids, keys)
    count = len(names)
    columns = _parameter_columns(entry, params, count)
    columns["gender"] = _codes("gender", gender, GENDERS, count)
    if entry.camera == "leaf":
        columns |= _camera_columns(entry, focal, princpt, count)
    elif focal is not None or princpt is not None:
        raise ValueError(f"{entry.name}: its fits have no cameras of their own; leave focal and princpt out")
    sides = None
    if entry.model == "mano":
        if side is None:
            raise ValueError(f"{entry.name}: side= is missing, (N,) of {', '.join(SIDES)}")
        sides = columns["side"] = _codes("side", side, SIDES, count)
    elif side is not None:
        raise ValueError(f"{entry.name}: {entry.model} has no sides; leave side out")
    columns |= _validity_columns(entry, columns, params, valid, sides)
    columns["id" if entry.key_names == ("id",) else "key"] = (
        names[:, 0].copy() if entry.key_names == ("id",) else names
    )
    _check_numbers(entry, columns, names)
    if sides is None and entries is not None:
        raise ValueError(f"{entry.name}: only hands' files hold entries without a fit; leave entries out")
    whole = None if sides is None else _entries(entry, names, entries)
    order = _file_order(entry, names, sides, whole)
    columns = {name: values[order] for name, values in columns.items()}
    if whole is not None:
        columns["all/entry"] = whole
    for values in columns.values():
        values.flags.writeable = False
    stack = TableStack((Table(columns),), "param/betas")
    companions = Companions((), _groups(entry, names, groups), entry.annotations, entry.cameras, entry.joints)
    return PseudoGT(
        RowView(count, (Part(stack),)), entry.name, space=_space(entry, space), companions=companions
    )


def save_release(gt: PseudoGT, folder: str | Path, *, name: str | None = None) -> list[Path]:
    """Write the rows under their released file name (or `name`) in `folder`, made if it is not there.

    Human3.6M: one file a subject. Returns the paths. Raises ValueError where the name needs a `{split}` that
    `gt` does not know (pass `groups=` to `pseudo_gt_of`), for `name` that is no .json name or for Human3.6M,
    and as `PseudoGT.save`.
    """
    folder, entry = Path(folder), gt.catalogued
    if name is not None and (Path(name).name != name or Path(name).suffix != ".json"):
        raise ValueError(f"name must be a file name that ends in .json, got {name!r}")
    parts: list[tuple[str, PseudoGT]] = []
    if entry.data_set == "Human3.6M":
        subjects = gt.view.column("key")[:, 0]
        wanted = {int(g["subject"]) for g in gt.companions.groups if "subject" in g} | set(subjects.tolist())
        if name is not None:
            raise ValueError(
                f"{entry.name}: the subject is in no other place than the file's name, {entry.files}; "
                "leave name out"
            )
        for subject in sorted(wanted):
            parts.append((_file_name(entry, {"subject": str(subject)}), gt.rows(subjects == subject)))
    else:
        split = dict(gt.companions.groups[0]) if gt.companions.groups else {}
        parts.append((name or _file_name(entry, split), gt))
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, rows in parts:
        rows.save(folder / file_name)
    return [folder / file_name for file_name, _ in parts]


def _file_name(entry: Release, groups: Mapping[str, str]) -> str:
    name = entry.files
    for key, value in groups.items():
        name = name.replace(f"{{{key}}}", value)
    for key, value in _RECIPES.items():
        name = name.replace(key, value)
    if entry.match(name) is None:
        raise ValueError(
            f"{entry.name}: its files are called {entry.files}; say which with "
            "pseudo_gt_of(groups=({'split': 'train'},)), or pass name="
        )
    return name


def _key_numbers(entry: Release, ids: np.ndarray | None, keys: np.ndarray | None) -> np.ndarray:
    """(N, K) int64."""
    by_id = entry.key_names == ("id",)
    given = keys if keys is not None else ids
    if given is None or (ids is not None and (keys is not None or not by_id)):
        what = "ids= (N,)" if by_id else f"keys= (N, {len(entry.key_names)})"
        raise ValueError(f"{entry.name} is keyed by ({', '.join(entry.key_names)}); pass {what}, that alone")
    numbers = np.asarray(given)
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise ValueError(f"{entry.name}: ids and keys must be integers, got {numbers.dtype}")
    if numbers.ndim == 1 and by_id:
        numbers = numbers[:, None]
    if numbers.ndim != 2 or numbers.shape[1] != len(entry.key_names):
        raise ValueError(
            f"{entry.name}: keys must be (N, {len(entry.key_names)}) as ({', '.join(entry.key_names)}), "
            f"got {numbers.shape}"
        )
    return np.array(numbers, np.int64)


def _parameter_columns(entry: Release, params: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    model = human_model(entry.model)
    unknown = [name for name in params if name not in model.shapes]
    if unknown:
        raise ValueError(f"{entry.name}: no parameter {unknown[0]!r}; there are {', '.join(model.shapes)}")
    columns = {}
    for field in model.fields:
        for name in field.parameters:
            shape = (count, *model.shapes[name])
            if name not in params:
                if field.required:
                    raise ValueError(f"{entry.name}: no {name!r} among the parameters; expected {shape}")
                columns[f"param/{name}"] = np.zeros(shape, np.float32)
                continue
            values = np.asarray(params[name])
            if values.shape not in (shape, (count, model.width(name))):
                raise ValueError(f"{entry.name}: {name} must be {shape}, got {values.shape}")
            columns[f"param/{name}"] = np.array(values, np.float32).reshape(shape)
    return columns


def _codes(name: str, values: np.ndarray | None, known: tuple[str, ...], count: int) -> np.ndarray:
    """(N,) uint8: places in `known`; zero where nothing is given."""
    if values is None:
        return np.zeros(count, np.uint8)
    texts = np.asarray(values)
    if texts.shape != (count,) or not np.isin(texts, known).all():
        raise ValueError(f"{name} must be ({count},) of {', '.join(known)}, got {texts!r:.80}")
    return np.array([known.index(text) for text in texts.tolist()], np.uint8)


def _camera_columns(
    entry: Release, focal: np.ndarray | None, princpt: np.ndarray | None, count: int
) -> dict[str, np.ndarray]:
    columns = {}
    for name, values in (("focal", focal), ("princpt", princpt)):
        if values is None:
            raise ValueError(f"{entry.name}: every fit has a camera; {name}= is missing, (N, 2) px")
        if np.shape(values) != (count, 2):
            raise ValueError(f"{entry.name}: {name} must be {(count, 2)}, got {np.shape(values)}")
        columns[name] = np.array(values, np.float32)
    return columns


def _validity_columns(
    entry: Release,
    columns: dict[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray] | None,
    sides: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """`valid/<part>` as the reader has them. FLAME's NaN translations become zero and not there."""
    model, count = human_model(entry.model), len(columns["gender"])
    if sides is not None:
        valid = {f"{side}_hand": sides == code for code, side in enumerate(SIDES)}
    else:
        valid = {part: np.ones(count, bool) for part in model.parts}
    optional: dict[str, list[str]] = {}
    for field in model.fields:
        if not field.required:
            optional.setdefault(field.part, []).extend(field.parameters)
    for part, names in optional.items():
        there = [name in params for name in names]
        if any(there) and not all(there):
            raise ValueError(f"{entry.name}: {part} needs {' and '.join(names)}, or none of them")
        valid[part] = np.full(count, all(there))
    if "transl" in valid:
        placed = np.isfinite(columns["param/transl"]).all(axis=1)
        valid["transl"] &= placed
        columns["param/transl"] = np.where(placed[:, None], columns["param/transl"], np.float32(0))
    for part, flags in (given or {}).items():
        if part not in optional:
            raise ValueError(
                f"{entry.name}: a file cannot say whether {part!r} is valid, only "
                f"{', '.join(optional) or 'nothing'}"
            )
        flags = np.asarray(flags)
        if flags.shape != (count,) or flags.dtype != bool:
            raise ValueError(f"{entry.name}: valid[{part!r}] must be ({count},) bool, got {flags.shape}")
        valid[part] = flags if part != "transl" else flags & valid[part]
        if part == "transl":
            columns["param/transl"] = np.where(flags[:, None], columns["param/transl"], np.float32(0))
    return {f"valid/{part}": np.array(flags) for part, flags in valid.items()}


def _check_numbers(entry: Release, columns: Mapping[str, np.ndarray], names: np.ndarray) -> None:
    for name, values in columns.items():
        if values.dtype.kind != "f":
            continue
        bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if len(bad):
            raise ValueError(
                f"{entry.name}: {_row(names, bad[0])}: {name.removeprefix('param/')} is not finite "
                f"({len(bad)} such rows); a file cannot hold it: leave such rows out"
            )
    if "focal" in columns and (columns["focal"] <= 0).any():
        bad = np.flatnonzero((columns["focal"] <= 0).any(axis=1))
        raise ValueError(f"{entry.name}: {_row(names, bad[0])}: focal must be positive")
    whole = np.column_stack([names, columns["side"]]) if "side" in columns else names
    order = np.lexsort(whole.T[::-1])
    same = np.flatnonzero((whole[order[1:]] == whole[order[:-1]]).all(axis=1))
    if len(same):
        row = order[same[0]]
        side = f", {SIDES[columns['side'][row]]}" if "side" in columns else ""
        raise ValueError(
            f"{entry.name}: {_row(names, row)}{side}: in more than one row; a file holds one "
            "(choose or fuse the views of a frame first)"
        )


def _row(names: np.ndarray, row: int) -> str:
    return f"row {row} (key {'/'.join(map(str, names[row].tolist()))})"


def _file_order(
    entry: Release, names: np.ndarray, sides: np.ndarray | None, entries: np.ndarray | None
) -> np.ndarray:
    """The rows as a file of the layout holds them."""
    if entry.layout == "flat":
        return np.arange(len(names))
    lead = names
    if entry.layout == "hands" and entries is not None:
        lead = KeyIndex(entries).first(names)[:, None]
    columns = [*lead.T, *([] if sides is None else [sides])]
    return np.lexsort(columns[::-1])


def _entries(entry: Release, names: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """(M, K) ids or frames of a hand file, once each, in the file's order."""
    wanted = names if given is None else np.asarray(given, np.int64).reshape(-1, names.shape[1])
    together = np.concatenate([wanted, names])
    unique, first = np.unique(together, axis=0, return_index=True)
    if len(first) and first.max() >= len(wanted):
        lost = "/".join(map(str, together[first.max()].tolist()))
        raise ValueError(f"{entry.name}: {lost} has a fit, but is not among entries")
    return together[np.sort(first)] if entry.layout == "hands" else unique


def _groups(
    entry: Release, names: np.ndarray, given: Sequence[Mapping[str, str]]
) -> tuple[dict[str, str], ...]:
    groups = tuple(dict(group) for group in given)
    if entry.data_set != "Human3.6M":
        return groups
    subjects = {int(g["subject"]) for g in groups if "subject" in g} | set(names[:, 0].tolist())
    return tuple({"subject": str(subject)} for subject in sorted(subjects))


def _space(entry: Release, space: str | None) -> str:
    if entry.space == "image":
        if space not in ("camera", "world"):
            raise ValueError(
                f"{entry.name}: pass space='world' where its images' cameras carry R and t, else 'camera'"
            )
        return space
    if space not in (None, entry.space):
        raise ValueError(f"{entry.name}: its fits are in {entry.space} space, not {space}")
    return entry.space
