"""The terms of a release in full: shown before anything is fetched, and kept when they are accepted."""

from __future__ import annotations

from neuralannot.catalog import Release, release_named
from neuralannot.downloads.sources import terms_page

__all__ = ["LicenceNotAccepted", "licence_text"]

_MODELS = {
    "smpl": "https://smpl.is.tue.mpg.de",
    "smplx": "https://smpl-x.is.tue.mpg.de",
    "mano": "https://mano.is.tue.mpg.de",
    "flame": "https://flame.is.tue.mpg.de",
}
_PAPER = "Moon, Choi and Lee, NeuralAnnot: Neural Annotator for 3D Human Mesh Training Sets, CVPRW 2022"
_RECIPES = (
    "Moon, Choi, Chun, Lee and Yun, Three Recipes for Better 3D Pseudo-GTs of 3D Human Mesh Estimation in "
    "the Wild, CVPRW 2023"
)


class LicenceNotAccepted(ValueError):
    """The terms of a release were not accepted; nothing was fetched."""


def licence_text(release: str | Release) -> str:
    """The terms of a release as far as they are known: of the parameters, the data set, the body model.

    Raises ValueError for an unknown name.
    """
    release = release if isinstance(release, Release) else release_named(release)
    return "\n".join(
        (
            f"{release.name}: {release.model.upper()} parameters of {release.data_set}",
            f"  parameters   {release.licence}",
            f"               from {release.page}",
            f"  data set     {release.data_set}, on its own terms: {terms_page(release)}",
            f"  body model   {release.model.upper()}, under its own licence: {_MODELS[release.model]}",
            f"  please cite  {_RECIPES if 'recipes' in release.name else _PAPER}",
        )
    )
