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

from neuralannot import load_pseudo_gt
from neuralannot.boxes import apply_affine, crop_affine, process_boxes
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image
from neuralannot.joint_sets import mirror_index
from neuralannot.transforms import mirror_parameters, rigid_parameters, rotation_about_axis


class PseudoGTDataset(torch.utils.data.Dataset):
    def __init__(self, gt, images, body_models=None, augment=False):
        if gt.model != "smpl":  # others have parts flagged invalid, and hands mirror to the other model
            raise ValueError(f"this example is for SMPL files; {gt.release} is of {gt.model}")
        boxes, usable = process_boxes(gt.box_xywh, gt.image_size)
        gt, self.boxes = gt.rows(usable).to_camera_space(body_models), boxes[usable]
        self.images, self.paths, self.camera = Path(images), gt.image_path, gt.camera
        self.params, self.rest_root = dict(gt.params), gt.rest_root(body_models)
        self.joints, self.joints_valid = gt.joints_2d, gt.joints_2d_valid
        if gt.joint_set_2d is None:  # no keypoints: the fits' own joints, posed here once, not in workers
            self.joints = gt.forward(want="joints", body_models=body_models).project().numpy()
            self.joints_valid = np.isfinite(self.joints).all(-1)
        self.mirror = mirror_index(gt.joint_set_2d or gt.model)
        self.augment, self.epoch = augment, 0  # set `epoch` before each pass, or its augmentation repeats
        cv2.setNumThreads(0)  # OpenCV's own threads and forked workers do not go together

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        rng = np.random.default_rng((self.epoch, row))  # the same in whichever worker
        flip, angle, gain = rng.random() < 0.5, np.deg2rad(rng.uniform(-30, 30)), rng.uniform(0.8, 1.2, 3)
        return self.sample(row, flip, angle, gain) if self.augment else self.sample(row)

    def sample(self, row, flip=False, angle=0.0, gain=1.0):
        """The picture is mirrored, then turned counterclockwise by `angle` radians; colours times `gain`."""
        image, camera = read_image(self.images / self.paths[row]), self.camera.rows([row])
        camera.check_image(image.shape[1], image.shape[0])
        affine = crop_affine(self.boxes[row], (256, 256), rotation=angle, flip=flip)
        image = np.clip(cv2.warpAffine(image, affine, (256, 256)) * np.float32(gain) / 255, 0, 1)
        valid, params = self.joints_valid[row], {name: values[[row]] for name, values in self.params.items()}
        joints = apply_affine(affine, np.where(valid[:, None], self.joints[row], 0))
        root, turn = self.rest_root[[row]], rotation_about_axis(-angle)
        if flip:
            joints, valid, params = joints[self.mirror], valid[self.mirror], mirror_parameters(params, root)
        moved = rigid_parameters(params["global_orient"], params["transl"], root, turn, np.zeros((1, 3)))
        params["global_orient"], params["transl"] = moved
        # The body's point X is at A K X in the crop. Moved to M X, it is there by the camera A K M^-1.
        M = turn[0] @ np.diag([-1 if flip else 1, 1, 1])
        K = np.float32(np.vstack([affine, [0, 0, 1]]) @ camera.K[0] @ M.T)
        item = {name: values[0] for name, values in params.items()} | {"K": K, "joints_valid": valid}
        item |= {"image": image.transpose(2, 0, 1), "joints_2d": joints * valid[:, None]}
        return {name: torch.tensor(value) for name, value in item.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("file", nargs="?", default=SAMPLE / "mscoco/MSCOCO_train_SMPL_NeuralAnnot.json")
    parser.add_argument("--images")
    parser.add_argument("--body-models")
    args = parser.parse_args()
    folder = Path(args.file).parent
    gt = load_pseudo_gt(args.file, cache=SAMPLE not in folder.parents)  # nothing written into the package
    dataset = PseudoGTDataset(gt, args.images or folder, args.body_models, augment=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
    print({name: tuple(values.shape) for name, values in next(iter(loader)).items()})
