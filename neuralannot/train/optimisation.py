"""`Optimisation`: SMPLify-X on the samples of a data set, and SPIN's rule with it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.method_options import SmplifyOptions
from neuralannot.train.picture_cameras import image_cameras, virtual_cameras
from neuralannot.train.priors import PosePrior, load_prior
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.smplify.fits import fit_smplify
from neuralannot.train.smplify.parts import parts_of
from neuralannot.train.smplify.settings import published, tuned

__all__ = ["Optimisation", "lower_error"]

_PRIORS = {"smpl": "open", "smplx": "open", "mano": "mano-pca"}
_PUBLISHED = {"mano": "mano-pca:12"}  # where it is another


class Optimisation:
    """Ready to optimise rows of the first data set of `data`, on the body's device."""

    def __init__(
        self, machinery: Machinery, data: TrainingData, options: SmplifyOptions | None = None
    ) -> None:
        self.options = options or SmplifyOptions()
        self.machinery, self.data = machinery, data
        body, samples = machinery.body, data.samples[0]
        self.device = body.J_regressor.device
        self.is_mocap = samples.is_mocap
        picture = not self.is_mocap
        if self.options.setting == "published":
            self.setting = published(body.model, picture=picture)
        else:
            self.setting = tuned(body.model, picture=picture, joints=self.options.joints)
        crops, options = data.crops[0], self.options
        self.cameras = virtual_cameras(len(crops))
        if picture and options.camera == "image":
            self.cameras = image_cameras(crops, focal=options.focal)
        self.prior: PosePrior | None = None
        if self.setting.pose == "latents":
            usual = _PRIORS | (_PUBLISHED if self.options.setting == "published" else {})
            self.prior = load_prior(self.options.prior or usual[body.model], body.model).to(self.device)
        joints = [joint for one in data.samples for joint in one.joint_set.joints]
        self.parts = parts_of(body.model, joints, machinery.points.known.cpu())

    @property
    def stamp(self) -> str:
        """What tells this optimisation's results from another's."""
        prior = None if self.prior is None else self.prior.fingerprint
        return repr((self.options, self.setting, prior))

    def __call__(
        self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Parameters of rows (M,) in their crops' cameras' frames, `transl` and `error` among them, as of
        `estimates`; rows without a joint have NaN. With the image's camera its `focal` and `princpt` too, as
        of `Refinement`. `start`: a network's, from which the last stage is run."""
        targets = self.data.targets.rows(torch.from_numpy(rows)).to(self.device)
        if self.is_mocap:
            evidence = Evidence(targets.joints_cam, targets.valid_cam, 1.0, 1.0)
        else:
            seen = self.cameras.rows(rows)
            pictured = {
                "focal": torch.from_numpy(seen.focal).to(self.device),
                "princpt": torch.from_numpy(seen.princpt).to(self.device),
            }
            evidence = Evidence(targets.joints_2d, targets.valid_2d, 1.0, 1.0, **pictured)
        begun = None
        if start is not None:
            begun = {n: torch.from_numpy(np.nan_to_num(v)).to(self.device) for n, v in start.items()}
        fits = fit_smplify(
            self.machinery.body,
            self.machinery.points,
            evidence,
            setting=self.setting,
            torso=self.parts.torso.to(self.device),
            prior=self.prior,
            hands=None if self.parts.hands is None else self.parts.hands.to(self.device),
            face=None if self.parts.face is None else self.parts.face.to(self.device),
            start=begun,
        )
        made = {name: value.cpu().numpy() for name, value in fits.parameters.items()}
        made["error"] = fits.error.cpu().numpy()
        if not self.is_mocap and self.options.camera == "image":
            placed = self.cameras.rows(rows).in_images(self.data.crops[0].rows(rows))
            made |= dict(zip(("focal", "princpt"), placed, strict=True))
        return made


def lower_error(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SPIN's rule (Kolotouros et al., 2019): of two fits of each sample the one nearer to its joints.

    Columns by the same names, `error` among them; an error that is no number is the larger one.
    """
    errors = [np.nan_to_num(np.asarray(one["error"]), nan=np.inf) for one in (first, second)]
    is_first = errors[0] <= errors[1]
    return {
        name: np.where(is_first.reshape(-1, *[1] * (np.ndim(value) - 1)), value, second[name])
        for name, value in first.items()
        if name in second
    }
