"""World to camera: the parameters of a multi-view release moved into each annotation's camera."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grids import OURS, Comparison, Table
from benchmarks.layers import quietly
from benchmarks.made import write_human36m_like
from benchmarks.options import Options, say
from benchmarks.plain import PlainHuman36M
from benchmarks.timing import machine

TITLE = "World to camera"
TEXT = """\
Root rotations and translations of a release like Human3.6M's (four cameras a frame), moved from the world
into the cameras: `gt.to_camera_space()` beside the way of the release's demos, row by row with
`cv2.Rodrigues`, and SciPy's `Rotation` on whole columns. The demos take the root joint at rest, about
which a body turns, from a forward pass a row; here both other sides are given it. Before anything is
timed rotations must agree within 1e-3 rad, all that float32 leaves of `cv2.Rodrigues` near half a turn,
and translations within 1e-5 m."""

LOOP, SCIPY = "a loop of cv2.Rodrigues", "SciPy, whole columns"


def run(options: Options) -> Iterator[Table]:
    """One table."""
    count = options.of(options.count, 20_000, 200)
    table = Comparison(TITLE, (OURS, LOOP, SCIPY), (LOOP, SCIPY), machine(), goal=False)
    with tempfile.TemporaryDirectory() as folder, quietly():
        say(f"{TITLE}: writing {count} annotations")
        sides = sides_of(write_human36m_like(Path(folder), count))
        check(sides)
        say(f"{TITLE}: timing")
        table.add(f"{count} rows", sides, repeats=options.repeated(5))
    yield table.table


def sides_of(path: Path) -> dict[str, Any]:
    """Each gives (N, 3) root rotations and (N, 3) translations of the release at `path`."""
    from neuralannot import load_pseudo_gt

    gt = load_pseudo_gt(path)
    rest = gt.rest_root()
    plain = PlainHuman36M(path, rest)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        params = gt.to_camera_space().params
        return params["global_orient"], params["transl"]

    def by_row() -> tuple[np.ndarray, np.ndarray]:
        moved = [plain.moved(row) for row in range(len(plain))]
        return np.stack([pose[0] for pose, _ in moved]), np.stack([transl for _, transl in moved])

    return {OURS: ours, LOOP: by_row, SCIPY: lambda: by_column(gt, rest)}


def by_column(gt: Any, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same on all rows at once."""
    from scipy.spatial.transform import Rotation

    camera = gt.camera
    R = camera.R.astype(np.float64)
    root = Rotation.from_matrix(R) * Rotation.from_rotvec(gt.params["global_orient"])
    moved = np.einsum("nij,nj->ni", R, rest + gt.params["transl"]) + camera.t - rest
    return root.as_rotvec().astype(np.float32), moved.astype(np.float32)


def check(sides: dict[str, Any]) -> None:
    """Raise ValueError where a side turns or moves a body elsewhere than ours does."""
    from scipy.spatial.transform import Rotation

    root, moved = sides[OURS]()
    for name in (LOOP, SCIPY):
        other, elsewhere = sides[name]()
        # Near half a turn the axis may be either: rotations are compared, not their vectors.
        turned = (Rotation.from_rotvec(root).inv() * Rotation.from_rotvec(other)).magnitude().max()
        off = np.abs(moved - elsewhere).max()
        if turned > 1e-3 or off > 1e-5:
            raise ValueError(f"{name} is {turned:.1e} rad and {off:.1e} m off ours")
