"""MPI-INF-3DHP: `MPI-INF-3DHP_1k.json`, `_camera_1k.json` and `_joint_3d.json`, all subjects in one."""

from __future__ import annotations

from neuralannot.cameras import read_cameras
from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data.columns import read_annotations
from neuralannot.train.data.frames import world_joints
from neuralannot.train.data.mocap import mocap_samples
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples

NAME, MODELS = "MPI-INF-3DHP", BODIES
TAKES = frozenset({"subjects", "views", "every", "annotations", "cameras", "joints"})


def read(request: Request) -> Samples:
    """The camera file must be that of the images: `camera_1k` belongs to the 1k images alone."""
    release = release_named(f"mpi-inf-3dhp-{request.model}")
    data = request.find(f"{NAME}_1k.json", what="annotations", given=request.annotations)
    camera = request.find(f"{NAME}_camera_1k.json", what="cameras", given=request.cameras)
    joints = request.find(f"{NAME}_joint_3d.json", what="joints", given=request.joints)
    return mocap_samples(
        request,
        read_annotations(data, release, {}, cache=request.cache),
        read_cameras(camera, NAME),
        world_joints(joints, NAME, None, cache=request.cache),
        JOINT_SETS["mpi-inf-3dhp-17"],
        release=release.name,
    )
