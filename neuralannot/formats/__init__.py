"""Annotations in the formats of other people's code, and other people's fits read as annotations."""

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.formats.amass import write_amass
    from neuralannot.formats.bedlam import write_bedlam
    from neuralannot.formats.coco import write_coco
    from neuralannot.formats.eft import read_eft
    from neuralannot.formats.hmr import write_hmr, write_hmr2
    from neuralannot.formats.humandata import write_humandata
    from neuralannot.formats.parquet import write_parquet
    from neuralannot.formats.shards import write_shards
    from neuralannot.formats.spin import read_spin

_ROOMS = {
    "read_eft": "eft",
    "read_spin": "spin",
    "write_amass": "amass",
    "write_bedlam": "bedlam",
    "write_coco": "coco",
    "write_hmr": "hmr",
    "write_hmr2": "hmr",
    "write_humandata": "humandata",
    "write_parquet": "parquet",
    "write_shards": "shards",
}

__all__ = [
    "read_eft",
    "read_spin",
    "write_amass",
    "write_bedlam",
    "write_coco",
    "write_hmr",
    "write_hmr2",
    "write_humandata",
    "write_parquet",
    "write_shards",
]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
