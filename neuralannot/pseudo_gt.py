"""`PseudoGT`: the fits of one release as columns, with their ids, cameras and images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neuralannot import joints_gt, quality_columns
from neuralannot.cameras import Camera
from neuralannot.catalog import RELEASES, Release
from neuralannot.columns import ColumnGroup, RowView, bytes_to_texts
from neuralannot.companions import Companions
from neuralannot.lookup import Id, Lookup, as_integers
from neuralannot.parameters import GENDERS, SIDES, human_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from neuralannot.bodies import Bodies
    from neuralannot.quality_columns import Limits


class PseudoGT:
    """N fits of one release: parameters, validity, ids, cameras and, where joined, images and boxes.

    Made by `load_pseudo_gt`. Nothing is copied from the mapped file until it is asked for: selecting rows,
    pickling and forking cost next to nothing. Arrays of whole columns are read-only views of the file.
    """

    def __init__(self, view: RowView, release: str, *, space: str, companions: Companions) -> None:
        self._view, self._release, self._space = view, RELEASES[release], space
        self._companions = companions

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k in _STATE}

    # --- what it is

    @property
    def release(self) -> str:
        """The release's name, as in `neuralannot.RELEASES`."""
        return self._release.name

    @property
    def model(self) -> str:
        """`smpl`, `smplx`, `mano` or `flame`."""
        return self._release.model

    @property
    def space(self) -> str:
        """`camera` or `world`: where a plain forward of the parameters puts the bodies."""
        return self._space

    @property
    def joined(self) -> bool:
        """Whether rows are annotations, with images, boxes and cameras, rather than bare fits."""
        return "ann/id" in self._view

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        rows = "annotations" if self.joined or self._by_id else "fits"
        return f"<PseudoGT {self.release}: {len(self)} {rows}, {self.model}, {self.space} space>"

    @property
    def _by_id(self) -> bool:
        return self._release.key_names == ("id",)

    # --- ids and keys

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64 annotation ids; a hand's is its person's or image's.

        Raises ValueError for frame-keyed releases that are not joined with annotations.
        """
        if self._id_column is None:
            raise ValueError(self._companions.no_ids(self._release))
        return self._view.column(self._id_column)

    @property
    def _id_column(self) -> str | None:
        return "id" if self._by_id else "ann/id" if self.joined else None

    @property
    def keys(self) -> list[tuple[int, ...]]:
        """The fits' frame keys: Human3.6M `(subject, action, subaction, frame)`, MPI-INF-3DHP `(subject, seq,
        frame)`, InterHand2.6M `(capture, frame)`.

        Raises ValueError for releases keyed by annotation id.
        """
        if self._by_id:
            raise ValueError(f"{self.release} is keyed by annotation id; use gt.ids")
        return [tuple(key) for key in self._view.column("key").tolist()]

    def __iter__(self) -> Iterator[Id]:
        return iter(self.ids.tolist() if self._by_id or self.joined else self.keys)

    def __contains__(self, key: object) -> bool:
        try:
            return bool(len(self._lookup.find(key)))
        except (KeyError, ValueError, TypeError):
            return False

    @property
    def missing(self) -> list[Id]:
        """What is known but has no fit, in the whole of the files loaded.

        Ids of annotations; for hands `(id, side)`. Hand files not joined: the null sides, by id or frame key.
        Columns that were saved hold rows with fits only: nothing is missing there.
        """
        return self._companions.missing(self._view, self._release)

    # --- selecting

    def __getitem__(self, key: Any) -> PseudoGT:
        """The row(s) of an id, an `(id, side)`, a frame key or `(*frame key, side)`; or a slice of rows.

        Raises KeyError that says whether the id is unknown or known and without a fit.
        """
        if isinstance(key, slice):
            return self.rows(key)
        if isinstance(key, (list, np.ndarray)):
            raise TypeError("gt[...] takes one id, one key or a slice; use gt.rows(array) for row numbers")
        return self._take(self._lookup.one(key))

    def rows(self, index: np.ndarray | slice | Sequence[int]) -> PseudoGT:
        """The rows at these row numbers, negative ones from the end, or where a (N,) bool mask is true.

        Raises IndexError for a row that is not there.
        """
        count = len(self)
        if isinstance(index, slice):
            return self._take(np.arange(*index.indices(count)))
        picked = np.atleast_1d(np.asarray(index))
        if picked.dtype == bool:
            if picked.shape != (count,):
                raise IndexError(f"a mask must be ({count},), got {picked.shape}")
            return self._take(np.flatnonzero(picked))
        picked = as_integers(picked)
        outside = (picked < -count) | (picked >= count)
        if outside.any():
            raise IndexError(f"row {picked[outside][0]}: there are {count} rows")
        return self._take(np.where(picked < 0, picked + count, picked))

    def _take(self, rows: np.ndarray) -> PseudoGT:
        return PseudoGT(self._view.take(rows), self.release, space=self._space, companions=self._companions)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self._view, self._release, self._companions, self._id_column)

    def rows_of(self, ids: Any) -> np.ndarray:
        """Row numbers (M,) int64 of ids or frame keys, in the order asked; an id of two hands gives two rows.

        `ids`: one id, one key (a tuple), or a sequence of them. Raises KeyError for one without a row,
        TypeError for what is neither.
        """
        return self._lookup.rows(ids)

    # --- the fits

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """smplx's parameter names -> (N, ...) float32, as stored, whatever `valid` says; absent parts zero.

        Rotations axis-angle in radians, `transl` in metres. Whole columns are read-only views of the file:
        `torch.tensor(...)` copies them, `torch.from_numpy` would warn.
        """
        return ColumnGroup(self._view, "param", tuple(human_model(self.model).shapes))

    @property
    def valid(self) -> Mapping[str, np.ndarray]:
        """Part (`body`, `left_hand`, `right_hand`, `face`, as the model has them) -> (N,) bool."""
        return ColumnGroup(self._view, "valid", human_model(self.model).parts)

    @property
    def gender(self) -> np.ndarray:
        """(N,) str: `neutral` where the file says nothing."""
        genders: np.ndarray = np.array(GENDERS)[self._view.column("gender")]
        return genders

    @property
    def side(self) -> np.ndarray | None:
        """(N,) str, `right` or `left`, for hands; None for the other models."""
        return np.array(SIDES)[self._view.column("side")] if "side" in self._view else None

    @property
    def camera(self) -> Camera | None:
        """The rows' cameras: intrinsics in pixels of the original image, extrinsics in metres.

        Gathered at each access. The extrinsics are the identity where the fits are camera-space. None where
        there is no camera: world releases that are not joined with annotations and a camera file.
        """
        prefix = next((p for p in ("", "cam/", "ann/") if f"{p}focal" in self._view), None)
        if prefix is None:
            return None
        size = self._view.column("ann/image_size") if self.joined else None
        focal, princpt = self._view.column(f"{prefix}focal"), self._view.column(f"{prefix}princpt")
        if f"{prefix}R" not in self._view:
            return Camera.from_intrinsics(focal, princpt, size)
        R, t = self._view.column(f"{prefix}R"), self._view.column(f"{prefix}t")
        return Camera(focal, princpt, R, t, size)

    @property
    def camera_problem(self) -> str:
        """Why there are no cameras, where there are none: the companion file to give."""
        return self._companions.camera_problem(self._release, joined=self.joined)

    def require_camera(self) -> Camera:
        """The cameras; raises ValueError that names the companion file where there are none."""
        camera = self.camera
        if camera is None:
            raise ValueError(self.camera_problem)
        return camera

    # --- their quality

    @property
    def quality(self) -> Mapping[str, np.ndarray]:
        """Measure -> (N,) float32, NaN where not measurable, or bool flags; empty where none was attached.

        `neuralannot.quality_columns.MEASURES` says what they are and their units (metres, radians, pixels).
        """
        return quality_columns.quality_of(self._view)

    def with_quality(self, columns: Mapping[str, Any]) -> PseudoGT:
        """The same rows with these columns, name -> (N,) numbers or flags, those of the same names replaced.

        They stay with rows that are selected, pickled and saved: in a `.safetensors`, and beside a `.json` as
        `X.quality.safetensors`, which loading finds. Raises ValueError for another shape or a name that is
        not small letters, digits and _; TypeError for what is neither numbers nor flags.
        """
        checked = quality_columns.checked_columns(columns, len(self))
        view = self._view.overlaid(checked) if checked else self._view
        return PseudoGT(view, self.release, space=self.space, companions=self._companions)

    def filter(
        self, *, plausible: bool = False, unmeasured: str = "keep", **limits: Unpack[Limits]
    ) -> PseudoGT:
        """The rows whose quality is within all limits given, in their order.

        `limits`: `max_<column>=`, of any column that is no flag, in its unit: metres for `max_error`, pixels
        for `max_reprojection` (`quality_columns.LIMITS`). `plausible`: only rows without `implausible_bend`
        and `self_penetration`, those of the two that were measured. `unmeasured`: rows where a column that is
        asked for is NaN, which no limit speaks about, are kept (`keep`) or left out (`drop`); a joint behind
        its camera has an error of infinity and is never kept.

        Raises ValueError for an unknown limit, one that is negative or NaN, and a column that is not there.
        """
        kept = quality_columns.passing(
            self.quality, len(self), limits, plausible=plausible, unmeasured=unmeasured
        )
        return self.rows(kept)

    # --- the annotations

    def _annotation(self, column: str, what: str) -> np.ndarray:
        if not self.joined:
            raise ValueError(
                f"{self.release}: no {what} without annotations; load with "
                f"annotations={self._companions.annotation_name()!r}"
            )
        if column not in self._view:
            raise ValueError(f"{self.release}: the annotation file has no {what}")
        return self._view.column(column)

    @property
    def image_path(self) -> np.ndarray:
        """(N,) str, relative to the data set's image folder (`train2017/000000000785.jpg`).

        Empty for fits whose id is not in the annotation file. Made anew at each access: in a loop over rows,
        ask once, or ask `gt.rows([row])`.
        Raises ValueError where there are no annotations.
        """
        return bytes_to_texts(self._annotation("ann/image_path", "image paths"))

    @property
    def image_size(self) -> np.ndarray:
        """(N, 2) int64 width, height px of the annotated images, 0 where unknown. Raises as `image_path`."""
        return self._annotation("ann/image_size", "image sizes")

    @property
    def box_xywh(self) -> np.ndarray:
        """(N, 4) float32 px, raw, as annotated; NaN where there is none.

        Hands: `righthand_box` / `lefthand_box`; COCO's faces: `face_box`; InterHand2.6M: the box of the valid
        GT joints on the image, times 1.5. Raises ValueError where the annotations have none,
        FileNotFoundError where InterHand2.6M's joint file is not there.
        """
        return joints_gt.boxes(self)

    @property
    def joints_2d(self) -> np.ndarray | None:
        """(N, K, 2) float32 px: the annotated keypoints, those of the hand or face for MANO and FLAME.

        `joint_set_2d` names them. None where the annotations have none.
        """
        points = joints_gt.keypoints(self)
        return None if points is None else points[..., :2]

    @property
    def joints_2d_valid(self) -> np.ndarray | None:
        """(N, K) bool: the keypoints that are annotated."""
        points = joints_gt.keypoints(self)
        return None if points is None else points[..., 2] > 0

    @property
    def joint_set_2d(self) -> str | None:
        """The name of the joint set of `joints_2d`; None where it has none. Both hands: the right's."""
        return joints_gt.keypoint_set(self)

    @property
    def joints_world(self) -> np.ndarray:
        """(N, K, 3) float32 metres in the world: the MoCap data sets' GT joints, invalid ones NaN.

        Human3.6M and MPI-INF-3DHP 17, InterHand2.6M the 21 of the row's hand: `joint_set_world`.
        Raises ValueError for releases without, FileNotFoundError that names the companion file.
        """
        return joints_gt.joints_world(self)

    @property
    def joints_world_valid(self) -> np.ndarray:
        """(N, K) bool: the joints that the data set gives."""
        valid: np.ndarray = np.isfinite(self.joints_world).all(axis=-1)
        return valid

    @property
    def joint_set_world(self) -> str | None:
        """The name of the joint set of `joints_world`, as `joint_set_2d`; None where the release has none."""
        return joints_gt.joint_set_world(self)

    # --- bodies

    def forward(
        self,
        ids: Any = None,
        *,
        want: Literal["mesh", "joints"] = "mesh",
        body_models: str | os.PathLike[str] | None = None,
        space: str = "camera",
        regressor: Any = None,
        only_valid: bool = False,
        device: Any = None,
        batch_size: int = 256,
    ) -> Bodies:
        """Pose the bodies of `ids` (all rows for None), in the order asked.

        `ids`: annotation ids or frame keys, one or a sequence. `want`: `mesh`, or `joints` for joints alone.
        `body_models`: the folder of official files; for None the environment variable
        NEURALANNOT_BODY_MODELS, or else the shipped open body. `space`: `camera` or `world`. `regressor`: a
        (K, V) array, an .npy file, a name (`human36m-17`), vertex numbers or a `JointRegressor`, whose joints
        then take the place of smplx's own. With `joints` only the vertices that they need are posed.
        `only_valid`: zero the parts that are flagged invalid. `device`: where torch computes and results lie.

        Returns `Bodies` of float32 metres. Raises ValueError for camera space on a world release without
        cameras (naming the companion), and for results over 4 GB; KeyError for ids without a fit;
        FileNotFoundError for body model files.
        """
        from neuralannot.bodies import forward

        gt = self if ids is None else self._take(self.rows_of(ids))
        return forward(
            gt,
            want=want,
            body_models=body_models,
            space=space,
            regressor=regressor,
            only_valid=only_valid,
            device=device,
            batch_size=batch_size,
        )

    def forward_batches(
        self,
        ids: Any = None,
        *,
        want: Literal["mesh", "joints"] = "mesh",
        body_models: str | os.PathLike[str] | None = None,
        space: str = "camera",
        regressor: Any = None,
        only_valid: bool = False,
        device: Any = None,
        batch_size: int = 256,
    ) -> Iterator[Bodies]:
        """As `forward`, but yields `Bodies` of at most `batch_size` rows at a time, in order."""
        from neuralannot.bodies import forward_batches

        gt = self if ids is None else self._take(self.rows_of(ids))
        return forward_batches(
            gt,
            want=want,
            body_models=body_models,
            space=space,
            regressor=regressor,
            only_valid=only_valid,
            device=device,
            batch_size=batch_size,
        )

    def rest_root(self, body_models: str | os.PathLike[str] | None = None) -> np.ndarray:
        """(N, 3) float32 metres: J0, the root joint of each shaped body at rest, before `transl`."""
        from neuralannot.bodies import rest_roots

        return rest_roots(self, body_models)

    def to_camera_space(self, body_models: str | os.PathLike[str] | None = None) -> PseudoGT:
        """The same fits with parameters whose plain forward gives camera-space bodies, exactly.

        `root' = log(R exp(root))`, `transl' = R (J0 + transl) + t - J0`, with J0 the rest root of the body
        models that will be forwarded: pass the same folder. Camera-space releases are returned as they are.
        The two columns that change lie in memory, 24 bytes a row, and travel with a pickle.
        Raises ValueError where there are no cameras.
        """
        from neuralannot.transforms import camera_space_columns

        if self.space == "camera":
            return self
        moved = camera_space_columns(self.params, self.rest_root(body_models), self.require_camera())
        view = self._view.overlaid(moved)
        return PseudoGT(view, self.release, space="camera", companions=self._companions)

    def save(self, path: str | Path) -> None:
        """Write the released JSON layout (`.json`) or the columns (`.safetensors`), in one step.

        Loading gives the same columns back. Raises ValueError for another suffix, and for rows that the JSON
        layout cannot hold.
        """
        from neuralannot.writers import save_pseudo_gt

        save_pseudo_gt(self, Path(path))

    @property
    def view(self) -> RowView:
        """The rows' columns, for the library's own rooms."""
        return self._view

    @property
    def catalogued(self) -> Release:
        """The release's entry in the catalogue."""
        return self._release

    @property
    def companions(self) -> Companions:
        """The files beside the release's, found or given."""
        return self._companions


_STATE = ("_view", "_release", "_space", "_companions")
