"""How good annotations are: a written file against parameters, joints, meshes or scans that are true.

`evaluate` puts the comparisons together; each is of use alone. Rooms are opened when a name of theirs is
asked for: the command line imports this package at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.train.evaluation.comparison import compare
    from neuralannot.train.evaluation.errors import AnnotationErrors, annotation_errors
    from neuralannot.train.evaluation.joints import JointErrors, joint_errors
    from neuralannot.train.evaluation.meshes import TrueMeshes, mesh_errors, read_meshes
    from neuralannot.train.evaluation.page import write_page
    from neuralannot.train.evaluation.report import Evaluation, evaluate
    from neuralannot.train.evaluation.scans import ScanErrors, read_scan, scan_errors
    from neuralannot.train.evaluation.tables import Table

_ROOMS = {
    "AnnotationErrors": "errors",
    "Evaluation": "report",
    "JointErrors": "joints",
    "ScanErrors": "scans",
    "Table": "tables",
    "TrueMeshes": "meshes",
    "annotation_errors": "errors",
    "compare": "comparison",
    "evaluate": "report",
    "joint_errors": "joints",
    "mesh_errors": "meshes",
    "read_meshes": "meshes",
    "read_scan": "scans",
    "scan_errors": "scans",
    "write_page": "page",
}

__all__ = [
    "AnnotationErrors",
    "Evaluation",
    "JointErrors",
    "ScanErrors",
    "Table",
    "TrueMeshes",
    "annotation_errors",
    "compare",
    "evaluate",
    "joint_errors",
    "mesh_errors",
    "read_meshes",
    "read_scan",
    "scan_errors",
    "write_page",
]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
