"""Annotations to look at in a browser: people over images, motion capture in its world, two files compared.

    from neuralannot.viewer import Viewer

    with Viewer(gt, images="coco") as viewer:
        print(viewer.url)
        viewer.wait()

What is shown (rows, meshes, colours, texts) is decided in numpy; `scene.py`, `panel.py` and `server.py` alone
know viser, the extra `view`. Stands above `neuralannot.quality` and `neuralannot.report`. Names load when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.viewer.content import Content, decide
    from neuralannot.viewer.listing import Listing
    from neuralannot.viewer.viewer import Viewer
    from neuralannot.viewer.wish import Wish

_ROOMS = {
    "Content": "content",
    "Listing": "listing",
    "Viewer": "viewer",
    "Wish": "wish",
    "decide": "content",
}

__all__ = ["Content", "Listing", "Viewer", "Wish", "decide"]


__getattr__ = late_names(__name__, _ROOMS)
