"""Make `neuralannot/sample/mscoco`: one photograph, annotated by hand and fitted, in the MSCOCO layout.

    python -m tools.fit_astronaut astronaut.png

The picture is NASA's portrait of Eileen Collins (public domain; scikit-image and others carry it as
`astronaut`, 512x512). The points below were read off the enlarged picture. The fit minimises their
reprojection error and the distance from a relaxed pose and a mean shape, once with the open SMPL-X-layout
body, once with the open SMPL-layout body and once with the open FLAME-layout head. It uses no random numbers.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import roma
import torch
from scipy.optimize import least_squares

from neuralannot.body_models import load_body_model
from neuralannot.boxes import process_boxes, virtual_camera

PACKAGE = Path(__file__).resolve().parent.parent / "neuralannot"
FOLDER = PACKAGE / "sample" / "mscoco"
OPEN_BODIES = PACKAGE / "body_models" / "open"
NASA_PAGE = "https://www.nasa.gov/nasa-brand-center/images-and-media/"
ANNOTATION, IMAGE, WIDTH, HEIGHT = 1, 1, 512, 512

COCO_NAMES = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
]  # fmt: skip
COCO_SKELETON = [
    [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9],
    [8, 10], [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
]  # fmt: skip

# Seen in the picture: x, y (px), flag (2 visible; 1 hidden, but its place is clear: ears under hair, the arm
# behind the helmet; not listed: outside the picture, or nobody could say). The joints are those of the person
# in the suit.
KEYPOINTS = {
    "nose": (225, 127, 2),
    "left_eye": (247, 103, 2),
    "right_eye": (203, 101, 2),
    "left_ear": (279, 118, 1),
    "right_ear": (174, 113, 1),
    "left_shoulder": (311, 288, 2),
    "right_shoulder": (99, 272, 2),
    "left_elbow": (338, 440, 1),
    "right_elbow": (60, 442, 2),
    "right_wrist": (138, 498, 2),
}
# The 51 inner points of the 68-point face mark-up, in its order: brows, nose, eyes, mouth; image left first.
FACE = np.array([
    [190, 91], [194, 89], [199, 88.3], [206, 90], [213, 92.3],
    [238, 94], [245, 92.5], [251, 92], [257, 92.8], [263, 96],
    [224, 99], [224.5, 109], [225, 118], [225.5, 126.5],
    [215, 130.5], [219.5, 132], [224.5, 133.5], [230, 133], [234.5, 131.5],
    [192, 100.8], [198, 97.3], [207, 97.8], [213.5, 103.3], [208, 105], [199, 104],
    [236, 105], [242, 100], [252, 100], [258.5, 104.3], [253, 107.3], [243, 107.3],
    [202.8, 139.5], [210.5, 138.8], [219, 138.4], [224, 139], [229, 138.6], [237.5, 140], [246.5, 139.8],
    [240, 147.5], [233, 152.3], [224, 154.6], [215.5, 153.3], [208.5, 147.5],
    [205, 140.5], [214, 141.8], [224, 142.6], [234, 142.2], [244.3, 140.9],
    [235, 147.8], [224, 150], [213, 148],
])  # fmt: skip
# Around the part of her that can be seen, the suit included and the helmet not: COCO's segmentation.
OUTLINE = [
    230, 15, 262, 25, 285, 40, 297, 65, 302, 90, 297, 108, 283, 125, 278, 133, 268, 137, 262, 152,
    258, 160, 256, 175, 280, 195, 298, 220, 305, 242, 325, 252, 343, 268, 352, 290, 358, 320, 363, 345,
    340, 352, 318, 363, 300, 385, 285, 420, 279, 455, 278, 511, 40, 511, 28, 490, 25, 450, 20, 410,
    19, 390, 24, 350, 38, 300, 50, 265, 75, 240, 100, 218, 115, 205, 112, 195, 118, 178, 135, 160,
    160, 150, 186, 149, 181, 132, 172, 126, 170, 118, 160, 108, 154, 90, 153, 70, 160, 50, 180, 35,
    195, 25, 210, 19,
]  # fmt: skip
# Around brows, cheeks and chin: COCO-WholeBody's face box, x, y, w, h (px)
FACE_BOX = np.array([180.0, 84.0, 90.0, 96.0])


@dataclass(frozen=True)
class Hint:
    """A place of the skin that helps the fit.

    `rest`: where it is on the SMPL-X-layout template (metres); `pixel`: where the picture shows it; `sigma`:
    how well, px in x and y (inf: not at all).
    """

    rest: tuple[float, float, float]
    pixel: tuple[float, float]
    sigma: tuple[float, float]


INF = float("inf")
HINTS = {
    "chin": Hint((0.0, 0.183, 0.166), (226, 178.5), (1.5, 1.5)),
    "right jaw": Hint((-0.054, 0.209, 0.110), (190, 160), (4, 8)),
    "left jaw": Hint((0.054, 0.209, 0.110), (258, 162), (4, 8)),
    "right cheek": Hint((-0.066, 0.242, 0.091), (182, 136), (4, 8)),
    "left cheek": Hint((0.066, 0.242, 0.091), (267, 139), (4, 8)),
    "top of the skull, under the hair": Hint((0.0, 0.399, 0.082), (228, 28), (8, 5)),
    "breast bone, behind the zip": Hint((0.0, 0.023, 0.139), (241, 330), (6, INF)),
    "belly, behind the zip": Hint((0.0, -0.073, 0.162), (248, 420), (8, INF)),
}
# How well (px) the other points are known: a joint is somewhere inside a space suit
KEYPOINT_SIGMA = {"eye": 1.5, "nose": 1.5, "ear": 4.0, "shoulder": 5.0, "elbow": 10.0, "wrist": 10.0}
FACE_SIGMA = 1.5

# Where smplx's joint output has COCO's joints and, for SMPL-X and FLAME, the 51 face points
COCO_JOINTS = {
    "smpl": {
        "nose": 24, "left_eye": 26, "right_eye": 25, "left_ear": 28, "right_ear": 27, "left_shoulder": 16,
        "right_shoulder": 17, "left_elbow": 18, "right_elbow": 19, "left_wrist": 20, "right_wrist": 21,
    },
    "smplx": {
        "nose": 55, "left_eye": 57, "right_eye": 56, "left_ear": 59, "right_ear": 58, "left_shoulder": 16,
        "right_shoulder": 17, "left_elbow": 18, "right_elbow": 19, "left_wrist": 20, "right_wrist": 21,
    },
    "flame": {},
}  # fmt: skip
FACE_JOINTS = {"smplx": 76, "flame": 5}
PIXELS_PER_METRE = 700  # of this picture, about: eyes 62 mm apart are 44 px apart
FACE_WITHOUT_MOUTH = 31  # an SMPL-layout face cannot smile: only brows, nose and eyes count for it

# Relaxed arms: down at the sides, forearms forward (joint of body_pose: axis-angle), and how far (radians)
# each joint may be expected to be from there
RELAXED = {15: (0.6, -0.4, -1.15), 16: (0.6, 0.4, 1.15), 17: (0, -1.1, 0), 18: (0, 1.1, 0)}
POSE_SIGMA = {
    **dict.fromkeys((2, 5, 8, 12, 13), 0.12),
    **dict.fromkeys((11, 14), 0.2),
    **dict.fromkeys((15, 16, 17, 18), 0.4),
}
POSE_SIGMA_ELSEWHERE = 0.05  # legs, feet, wrists and hands: nothing in the picture moves them


def person_box() -> np.ndarray:
    """COCO's box x, y, w, h (px) around the outline."""
    points = np.array(OUTLINE, dtype=np.float64).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return np.concatenate([low, high - low + 1])


def camera_of(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The release's camera of an annotated box x, y, w, h: `focal` (2,) and `princpt` (2,), px."""
    crop, _ = process_boxes(box, (WIDTH, HEIGHT))
    return virtual_camera(crop)


@dataclass(frozen=True)
class Fit:
    """What a fit found: smplx's parameter names -> flat arrays, and the error (px) of every point it used."""

    params: dict[str, np.ndarray]
    errors: dict[str, float]


class Problem:
    """The points that one model can explain, its free parameters, and what is expected of both."""

    def __init__(self, model: str, box: np.ndarray) -> None:
        self.model, self.body = model, load_body_model(model, folder=OPEN_BODIES)
        self.focal, self.princpt = (torch.from_numpy(part) for part in camera_of(box))
        self._collect()
        of_models: dict[str, dict[str, tuple[int, ...]]] = {
            "smpl": {"body_pose": (23, 3)},
            "smplx": {"body_pose": (21, 3), "jaw_pose": (3,), "expression": (10,)},
            "flame": {"jaw_pose": (3,), "expression": (10,)},
        }
        widths = {"turn": (3,), "transl": (3,), "betas": (10,), **of_models[model]}
        self.rest = {name: torch.zeros(1, *shape) for name, shape in widths.items()}
        self.sigma: dict[str, torch.Tensor | float] = {
            "turn": 0.25,
            "betas": 1.3,
            "jaw_pose": torch.tensor([0.15, 0.03, 0.03]),
            "expression": 1.2,
        }
        if "body_pose" in self.rest:
            sigma = torch.full((widths["body_pose"][0], 1), POSE_SIGMA_ELSEWHERE)
            for joint, value in POSE_SIGMA.items():
                sigma[joint] = value
            for joint, axis_angle in RELAXED.items():
                self.rest["body_pose"][0, joint] = torch.tensor(axis_angle)
            self.sigma["body_pose"] = sigma

    def _collect(self) -> None:
        """Names, indices into joints + vertices, pixels and sigmas of the points."""
        rows: list[tuple[str, int, tuple[float, ...], tuple[float, float]]] = []
        for name, joint in COCO_JOINTS[self.model].items():
            if name in KEYPOINTS:
                about = KEYPOINT_SIGMA[name.split("_")[-1]]
                rows.append((name, joint, KEYPOINTS[name][:2], (about, about)))
        # The open bodies are one body: their templates differ by a shift, which a joint that both have shows.
        twin = load_body_model("smplx", folder=OPEN_BODIES)
        own, other = (2, 22) if self.model == "flame" else (0, 0)  # the jaw, the pelvis
        template, joints = self.body.v_template, {"smpl": 45, "smplx": 127, "flame": 56}[self.model]
        shift = self.body.J_regressor[own] @ template - twin.J_regressor[other] @ twin.v_template

        def nearest(place: torch.Tensor) -> int:
            return joints + int((template - place - shift).norm(dim=1).argmin())

        for name, hint in HINTS.items():
            if self.model != "flame" or hint.rest[1] > 0.18:
                rows.append((name, nearest(torch.tensor(hint.rest)), hint.pixel, hint.sigma))
        if self.model in FACE_JOINTS:
            places = [FACE_JOINTS[self.model] + i for i in range(len(FACE))]
        else:
            at_rest = twin(betas=torch.zeros(1, 10)).joints[0, FACE_JOINTS["smplx"] :]
            places = [nearest(place) for place in at_rest[:FACE_WITHOUT_MOUTH]]
        sigma = (FACE_SIGMA, FACE_SIGMA)
        rows += [(f"face {i}", at, tuple(FACE[i]), sigma) for i, at in enumerate(places)]
        self.names = [row[0] for row in rows]
        self.indices = torch.tensor([row[1] for row in rows])
        self.pixels = torch.tensor([row[2] for row in rows], dtype=torch.float32)
        self.pixel_sigma = torch.tensor([row[3] for row in rows], dtype=torch.float32)

    def project(self, params: dict[str, torch.Tensor]) -> torch.Tensor:
        """Pixels (P, 2) of the points under smplx parameters."""
        out = self.body(**params)
        points = torch.cat([out.joints[0], out.vertices[0]])[self.indices]
        return points[:, :2] / points[:, 2:] * self.focal + self.princpt

    def parameters(self, free: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """smplx parameters of the free ones: `turn` is relative to upright and facing the camera."""
        upright = torch.tensor([[np.pi, 0.0, 0.0]])  # the camera's y runs down, the body's up
        params = {name: value for name, value in free.items() if name != "turn"}
        return {"global_orient": roma.rotvec_composition((upright, free["turn"])), **params}

    def residuals(self, free: dict[str, torch.Tensor]) -> torch.Tensor:
        """Everything that should be zero, each in units of its sigma."""
        parts = [(self.project(self.parameters(free)) - self.pixels) / self.pixel_sigma]
        known = [name for name in self.sigma if name in free]
        parts += [(free[name] - self.rest[name]) / self.sigma[name] for name in known]
        return torch.cat([part.flatten() for part in parts])

    def solve(self) -> Fit:
        """Start upright, facing the camera, the first point in place; then least squares over everything."""
        start = {name: value.clone() for name, value in self.rest.items()}
        start["transl"][0, 2] = float(self.focal[0]) / PIXELS_PER_METRE
        with torch.no_grad():
            offset = (self.pixels - self.project(self.parameters(start)))[0]
        start["transl"][0, :2] += offset / PIXELS_PER_METRE

        def split(flat: torch.Tensor) -> dict[str, torch.Tensor]:
            parts = flat.split([value.numel() for value in start.values()])
            return {name: part.reshape(start[name].shape) for name, part in zip(start, parts, strict=True)}

        def function(flat: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return self.residuals(split(torch.tensor(flat, dtype=torch.float32))).double().numpy()

        def jacobian(flat: np.ndarray) -> np.ndarray:
            at = torch.tensor(flat, dtype=torch.float32)
            rows = torch.autograd.functional.jacobian(lambda x: self.residuals(split(x)), at, vectorize=True)
            slopes: np.ndarray = rows.double().numpy()
            return slopes

        first = torch.cat([value.flatten() for value in start.values()]).double().numpy()
        # The body's forward pass is float32: it cannot tell apart energies that differ by less than 1e-5.
        found = least_squares(function, first, jacobian, x_scale="jac", ftol=1e-5, xtol=1e-7, max_nfev=60)
        with torch.no_grad():
            params = self.parameters(split(torch.tensor(found.x, dtype=torch.float32)))
            params = {name: torch.round(value, decimals=5) + 0.0 for name, value in params.items()}
            gap = (self.project(params) - self.pixels) * self.pixel_sigma.isfinite()
        errors = gap.norm(dim=1).tolist()
        return Fit(
            {name: value.numpy() for name, value in params.items()},
            dict(zip(self.names, errors, strict=True)),
        )


def numbers(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in np.ravel(values)]


def leaf(model: str, fit: Fit, box: np.ndarray) -> dict[str, Any]:
    """The released leaf of a fit."""
    params = fit.params
    root, shape, trans = (numbers(params[name]) for name in ("global_orient", "betas", "transl"))
    if model == "smpl":
        content: dict[str, Any] = {
            "pose": root + numbers(params["body_pose"]),
            "shape": shape,
            "trans": trans,
        }
    elif model == "flame":
        jaw, expression = numbers(params["jaw_pose"]), numbers(params["expression"])
        content = {"root_pose": root, "jaw_pose": jaw, "shape": shape, "expr": expression, "trans": trans}
    else:
        content = {
            "root_pose": root,
            "body_pose": numbers(params["body_pose"]),
            "shape": shape,
            "trans": trans,
            "lhand_pose": [0.0] * 45,
            "rhand_pose": [0.0] * 45,
            "jaw_pose": numbers(params["jaw_pose"]),
            "expr": numbers(params["expression"]),
            "lhand_valid": False,
            "rhand_valid": False,
            "face_valid": True,
        }
    focal, princpt = camera_of(box)
    return {f"{model}_param": content, "cam_param": {"focal": numbers(focal), "princpt": numbers(princpt)}}


def annotation_file(*, whole_body: bool) -> dict[str, Any]:
    """The COCO-format annotation of the picture, with or without COCO-WholeBody's fields."""
    keypoints = [value for name in COCO_NAMES for value in KEYPOINTS.get(name, (0, 0, 0))]
    points = np.array(OUTLINE, dtype=np.float64).reshape(-1, 2)
    x, y = points.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    annotation: dict[str, Any] = {
        "id": ANNOTATION,
        "image_id": IMAGE,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": numbers(person_box()),
        "area": area,
        "segmentation": [OUTLINE],
        "num_keypoints": len(KEYPOINTS),
        "keypoints": keypoints,
    }
    if whole_body:
        face = np.zeros((68, 3))
        face[8], face[17:] = (*HINTS["chin"].pixel, 1), np.concatenate([FACE, np.ones((len(FACE), 1))], 1)
        annotation |= {
            "face_box": numbers(FACE_BOX),
            "face_kpts": numbers(face),
            "face_valid": True,
            "foot_kpts": [0.0] * 18,
            "foot_valid": False,
        }
        for side in ("lefthand", "righthand"):
            annotation |= {f"{side}_box": [0.0] * 4, f"{side}_kpts": [0.0] * 63, f"{side}_valid": False}
    image = {"id": IMAGE, "file_name": "astronaut.png", "width": WIDTH, "height": HEIGHT, "license": 1}
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": COCO_NAMES,
        "skeleton": COCO_SKELETON,
    }
    return {
        "info": {"description": "One photograph by NASA, annotated by hand; not part of MSCOCO"},
        "licenses": [{"id": 1, "name": "public domain", "url": NASA_PAGE}],
        "images": [image],
        "annotations": [annotation],
        "categories": [category],
    }


def write(name: str, content: dict[str, Any]) -> None:
    path = FOLDER / name
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="astronaut.png, 512x512")
    arguments = parser.parse_args()
    picture = cv2.imread(str(arguments.picture))
    if picture is None or picture.shape[:2] != (HEIGHT, WIDTH):
        raise ValueError(f"{arguments.picture} must be a {WIDTH}x{HEIGHT} picture")
    torch.set_num_threads(1)  # one order of summation, so that a second run writes the same digits

    (FOLDER / "train2017").mkdir(parents=True, exist_ok=True)
    smallest = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]
    cv2.imwrite(str(FOLDER / "train2017" / "astronaut.png"), picture, smallest)
    write("person_keypoints_train2017.json", annotation_file(whole_body=False))
    write("coco_wholebody_train_v1.0.json", annotation_file(whole_body=True))
    files = {
        "smpl": "MSCOCO_train_SMPL_NeuralAnnot.json",
        "smplx": "MSCOCO_train_SMPLX_all_NeuralAnnot.json",
        "flame": "MSCOCO_train_FLAME_NeuralAnnot.json",
    }
    for model, name in files.items():
        box = FACE_BOX if model == "flame" else person_box()
        fit = Problem(model, box).solve()
        write(name, {str(ANNOTATION): leaf(model, fit, box)})
        for group in ("face", *KEYPOINTS, *HINTS):
            gaps = [gap for point, gap in fit.errors.items() if point == group or point.split()[0] == group]
            if gaps:
                print(f"  {model} {group}: {np.mean(gaps):.2f} px")


if __name__ == "__main__":
    main()
