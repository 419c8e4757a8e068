"""A torch data set of image crops with pseudo ground truth, to train your own SMPL regressor on.

    python examples/regressor_dataloader.py [MPII_train_SMPL_NeuralAnnot.json --images DIR --body-models DIR]

An item: `image` (3, 256, 256) RGB 0..1; `joints_2d` (J, 2) px of the crop, 0 where not `joints_valid`; SMPL's
parameters in camera space; `K` (3, 3), the camera by which the body that they give projects into the crop.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.boxes import apply_affine, crop_affine, process_boxes
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image
from neuralannot.joint_sets import mirror_index
from neuralannot.transforms import mirror_parameters, rigid_parameters, rotation_about_axis

Item = dict[str, torch.Tensor]


class PseudoGTDataset(torch.utils.data.Dataset[Item]):
    def __init__(self, gt: PseudoGT, images: Path, body_models: str | None = None, augment: bool = False):
        if gt.model != "smpl":  # others have parts flagged invalid, and hands mirror to the other model
            raise ValueError(f"this example is for SMPL files; {gt.release} is of {gt.model}")
        boxes, usable = process_boxes(gt.box_xywh, gt.image_size)
        gt, self.boxes = gt.rows(usable).to_camera_space(body_models), boxes[usable]
        assert gt.camera is not None  # in camera space every fit has one
        self.images, self.paths, self.camera, self.params = images, gt.image_path, gt.camera, dict(gt.params)
        self.rest_root, self.mirror = gt.rest_root(body_models), mirror_index(gt.joint_set_2d or gt.model)
        joints, valid = gt.joints_2d, gt.joints_2d_valid
        if joints is None or valid is None:  # the fits' own joints then, posed here once, not in workers
            joints = gt.forward(want="joints", body_models=body_models).project().numpy()
            valid = np.isfinite(joints).all(-1)
        self.joints, self.joints_valid = joints, valid
        self.augment, self.epoch = augment, 0  # set `epoch` before each pass, or its augmentation repeats
        cv2.setNumThreads(0)  # OpenCV's own threads and forked workers do not go together

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Item:
        rng = np.random.default_rng((self.epoch, row))  # the same in whichever worker
        flip, angle, gain = rng.random() < 0.5, np.deg2rad(rng.uniform(-30, 30)), rng.uniform(0.8, 1.2, 3)
        return self.sample(row, flip, angle, gain) if self.augment else self.sample(row)

    def sample(self, row: int, flip: bool = False, angle: float = 0, gain: float | np.ndarray = 1) -> Item:
        """The picture is mirrored, then turned counterclockwise by `angle` radians; colours times `gain`."""
        image, camera = read_image(self.images / self.paths[row]), self.camera.rows([row])
        camera.check_image(image.shape[1], image.shape[0])
        affine = crop_affine(self.boxes[row], (256, 256), rotation=angle, flip=flip)
        image = np.clip(cv2.warpAffine(image, affine, (256, 256)) * np.float32(gain) / 255, 0, 1)
        valid, params = self.joints_valid[row], {name: values[[row]] for name, values in self.params.items()}
        joints = apply_affine(affine, np.where(valid[:, None], self.joints[row], 0)) * valid[:, None]
        root, turn = self.rest_root[[row]], rotation_about_axis(-angle)
        if flip:
            joints, valid, params = joints[self.mirror], valid[self.mirror], mirror_parameters(params, root)
        moved = rigid_parameters(params["global_orient"], params["transl"], root, turn, np.zeros((1, 3)))
        params["global_orient"], params["transl"] = moved
        # The body's point X is at A K X in the crop. Mirrored and turned to M X, it is there by A K M^-1.
        K = np.float32(np.vstack([affine, [0, 0, 1]]) @ camera.K[0] * [-1 if flip else 1, 1, 1] @ turn[0].T)
        item = {"image": image.transpose(2, 0, 1), "joints_2d": joints, "joints_valid": valid, "K": K}
        return {n: torch.tensor(v) for n, v in (item | {n: v[0] for n, v in params.items()}).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("file", nargs="?", default=SAMPLE / "mscoco/MSCOCO_train_SMPL_NeuralAnnot.json")
    parser.add_argument("--images")
    parser.add_argument("--body-models")
    file = Path((args := parser.parse_args()).file)
    gt = load_pseudo_gt(file, cache=SAMPLE not in file.parents)  # nothing written into the package
    dataset = PseudoGTDataset(gt, Path(args.images or file.parent), args.body_models, augment=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
    print({name: tuple(values.shape) for name, values in next(iter(loader)).items()})
