"""Draws the figures of docs/conventions.md: bodies by the library's renderer, words by matplotlib.

    pip install -e ".[docs]"
    python -m tools.draw_conventions docs/images

White paper, so that one picture serves light and dark pages.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from neuralannot import JOINT_SETS, Bodies, Camera, load_body_model, load_pseudo_gt, render_overlay
from neuralannot.body_models import joint_regressor
from neuralannot.boxes import crop_affine, process_boxes
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image

mpl.use("agg")
import matplotlib.patheffects as effects
import matplotlib.pyplot as plt

EDGED = [effects.withStroke(linewidth=3.5, foreground="#20262c")]  # words over a photograph

INK, PALE = "#24303c", "#9aa7b2"
AXES = {"x": "#c8372d", "y": "#2e8b3d", "z": "#2763c4"}
SKIN = (142, 182, 226)
mpl.rcParams.update(
    {"font.size": 15, "font.family": "DejaVu Sans", "text.color": INK, "savefig.facecolor": "white"}
)


# --- drawing bodies


def looking(
    eye: np.ndarray, at: np.ndarray, *, up: np.ndarray, focal: float, size: tuple[int, int]
) -> Camera:
    """A camera at `eye` that looks at a point, `up` being up in its picture."""
    z = (at - eye) / np.linalg.norm(at - eye)
    x = np.cross(z, up) / np.linalg.norm(np.cross(z, up))
    R = np.stack([x, np.cross(z, x), z])
    middle = np.array([[size[0] / 2, size[1] / 2]])
    return Camera(np.full((1, 2), focal), middle, R[None], -(R @ eye)[None], np.array([size]))


def cut_out(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, *, color: tuple[int, ...] = SKIN
) -> np.ndarray:
    """(H, W, 4) uint8: a body as the camera sees it, clear elsewhere. `vertices` (V, 3) in the world."""
    width, height = size_of(camera)
    seen = camera.world_to_camera(vertices[None].astype(np.float32))
    drawn = []
    for paper in (0, 255):  # on black and on white: what differs is clear
        blank = np.full((height, width, 3), paper, np.uint8)
        drawn.append(
            render_overlay(
                blank, list(seen), faces, camera.focal, camera.princpt, colors=[color], opacity=1.0
            )
        )
    on_black, on_white = (picture.astype(int) for picture in drawn)
    alpha = 255 - (on_white - on_black).mean(axis=-1)
    colour = np.where(alpha[..., None] > 0, on_black * 255 / np.maximum(alpha[..., None], 1), 0)
    return np.dstack([np.clip(colour, 0, 255), alpha]).astype(np.uint8)


def size_of(camera: Camera, row: int = 0) -> tuple[int, int]:
    """Width and height of its picture, px."""
    if camera.image_size is None:
        raise ValueError("the camera has no image size")
    width, height = camera.image_size[row].tolist()
    return width, height


def mesh_of(bodies: Bodies) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) of the first body and faces (F, 3)."""
    if bodies.vertices is None:
        raise ValueError("the bodies are joints without a mesh")
    return bodies.vertices[0].numpy(), bodies.faces_of(0)


def pixels(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(P, 3) in the world -> (P, 2) px."""
    found: np.ndarray = camera.project(camera.world_to_camera(np.asarray(points, np.float32)[None]))[0]
    return found


def line(ax: plt.Axes, camera: Camera, points: Sequence[Any], **style: object) -> None:
    ax.plot(*pixels(np.array(points, float), camera).T, **style)


def arrow(
    ax: plt.Axes, start: np.ndarray, end: np.ndarray, color: str, text: str = "", **where: object
) -> None:
    """From one (2,) px to another, with a word beyond its tip."""
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2.4, "mutation_scale": 18}
    )
    if text:
        beyond = end + (end - start) / max(np.linalg.norm(end - start), 1) * 16
        ax.text(*beyond, text, color=color, ha="center", va="center", weight="bold", **where)


def axes_3d(
    ax: plt.Axes, camera: Camera, origin: np.ndarray, R: np.ndarray, length: float, names: str = "xyz"
) -> None:
    """The axes that are the rows of `R`, from `origin`."""
    for name, direction in zip(names, R, strict=True):
        start, end = pixels(np.stack([origin, origin + length * direction]), camera)
        arrow(ax, start, end, AXES[name], name)


def panel(ax: plt.Axes, size: tuple[int, int], title: str = "") -> None:
    ax.set_xlim(0, size[0])
    ax.set_ylim(size[1], 0)
    ax.set_aspect("equal")
    ax.axis("off")
    if title:
        ax.set_title(title, fontsize=17, weight="bold", loc="left")


def save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100, **({"pil_kwargs": {"quality": 88}} if path.suffix == ".jpg" else {}))
    plt.close(figure)
    if path.suffix == ".png":  # 256 colours are enough, and a third of the bytes
        from PIL import Image

        Image.open(path).convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(path, optimize=True)
    return path


# --- the figures


def draw_spaces(path: Path) -> Path:
    """A walk's frame in the world with its four cameras, and in one of them."""
    gt = load_pseudo_gt(SAMPLE / "human36m", cache=False)
    frame = gt[gt.keys[12]]
    world = frame.forward(space="world")
    vertices, faces = mesh_of(world)
    pelvis = world.joints[0, 0].numpy()
    figure = plt.figure(figsize=(14, 6.2))
    size = (820, 540)
    eye, middle = np.array([9.5, -7.5, 6.0]), np.array([0.1, 0.1, 0.75])
    view = looking(eye, middle, up=np.array([0, 0, 1.0]), focal=1030, size=size)
    ax = figure.add_axes((0.0, 0.11, 0.6, 0.82))
    panel(ax, size, "  World: one fit a frame, z up")
    for k in range(-4, 5):
        line(ax, view, [[k, -4, 0], [k, 4, 0]], color="#dde3e8", lw=1)
        line(ax, view, [[-4, k, 0], [4, k, 0]], color="#dde3e8", lw=1)
    ax.imshow(cut_out(vertices, faces, view), zorder=2, extent=(0, size[0], size[1], 0))
    camera = frame.require_camera()
    for row in range(len(frame)):
        centre = -camera.R[row].T @ camera.t[row]
        colour = "#d8742a" if row == 0 else PALE
        w, h = size_of(camera, row)
        depth = 0.9 / camera.focal[row].mean()
        corners = [
            centre + camera.R[row].T @ np.array([(u - w / 2) * depth, (v - h / 2) * depth, 0.9])
            for u, v in ((0, 0), (w, 0), (w, h), (0, h), (0, 0))
        ]
        line(ax, view, corners, color=colour, lw=2)
        for corner in corners[:4]:
            line(ax, view, [centre, corner], color=colour, lw=2)
        low = pixels(np.array([*corners, centre]), view)
        weight = "bold" if row == 0 else "normal"
        ax.text(
            low[:, 0].mean(),
            low[:, 1].max() + 18,
            f"camera {row + 1}",
            color=colour,
            ha="center",
            weight=weight,
        )
    axes_3d(ax, view, np.array([0.0, 0.0, 0.0]), np.eye(3), 1.0)
    spot = pixels(pelvis[None], view)[0]
    ax.annotate(
        "$J_0$ + transl",
        spot,
        spot + np.array([86, 6]),
        fontsize=15,
        arrowprops={"arrowstyle": "-", "color": INK},
        zorder=5,
    )
    ax.plot(*spot, "o", color=INK, ms=6, zorder=5)

    seen = camera.rows([0])
    ax = figure.add_axes((0.63, 0.13, 0.355, 0.79))
    w, h = size_of(seen)
    panel(ax, (w, h), "Camera 1: x right, y down, z away")
    ax.add_patch(plt.Rectangle((0, 0), w, h, fill=False, ec="#d8742a", lw=3))
    ax.imshow(cut_out(vertices, faces, seen), extent=(0, w, h, 0))
    for name, end in (("x", (260, 60)), ("y", (60, 260))):
        arrow(ax, np.array([60.0, 60]), np.array(end, float), AXES[name])
    ax.text(282, 60, "x", color=AXES["x"], weight="bold", va="center")
    ax.text(60, 292, "y", color=AXES["y"], weight="bold", ha="center")
    ax.plot(60, 60, "o", ms=15, mfc="white", mec=AXES["z"], mew=2.5)
    ax.plot(60, 60, "x", ms=8, color=AXES["z"], mew=2.5)
    ax.text(84, 106, "z", color=AXES["z"], weight="bold")
    figure.text(
        0.5,
        0.045,
        "vertices:  X' = R X + t        "
        "parameters:  root' = log(R exp(root)),   transl' = R ($J_0$ + transl) + t $-$ $J_0$",
        ha="center",
        fontsize=17,
    )
    return save(figure, path)


def draw_crop(path: Path) -> Path:
    """The annotated box, the processed one and its camera, in the image and in the crop."""
    gt = load_pseudo_gt(SAMPLE / "mscoco", release="mscoco-smpl", cache=False)
    camera = gt.require_camera()
    image = read_image(SAMPLE / "mscoco" / gt.image_path[0])
    box = process_boxes(gt.box_xywh, gt.image_size)[0][0]
    joints = gt.forward(want="joints", regressor="coco-17").project()[0].numpy()
    affine = crop_affine(box, (256, 256))
    crop = cv2.warpAffine(image, affine, (256, 256), borderValue=(255, 255, 255))
    overlay = gt.forward().overlay(image)
    figure = plt.figure(figsize=(14, 6.2))

    ax = figure.add_axes((0.005, 0.16, 0.38, 0.78))
    ax.set_xlim(-134, 526)
    ax.set_ylim(580, -100)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title("The image, 512 px", fontsize=17, weight="bold")
    ax.imshow(image, extent=(0, 512, 512, 0))
    ax.add_patch(
        plt.Rectangle(gt.box_xywh[0, :2], *gt.box_xywh[0, 2:], fill=False, ec="white", lw=2.4, ls="--")
    )
    ax.add_patch(plt.Rectangle(box[:2], *box[2:], fill=False, ec="#d8742a", lw=3))
    ax.plot(*camera.princpt[0], "+", color="#d8742a", ms=22, mew=4)
    ax.text(28, 502, "annotated box", color="white", fontsize=14, weight="bold", path_effects=EDGED)
    words = f"processed: square, x 1.25 = {box[2]:.0f} px"
    ax.text(box[0], box[1] - 12, words, color="#b4561a", fontsize=14, weight="bold")
    ax.text(208, 262, "princpt", color="white", fontsize=15, weight="bold", path_effects=EDGED)

    ax = figure.add_axes((0.4, 0.16, 0.28, 0.78))
    panel(ax, (256, 256))
    ax.set_title("The crop, 256 px", fontsize=17, weight="bold")
    ax.imshow(crop, extent=(0, 256, 256, 0))
    ax.add_patch(plt.Rectangle((0, 0), 256, 256, fill=False, ec="#d8742a", lw=5))
    ax.plot(128, 128, "+", color="#d8742a", ms=22, mew=4)
    ax.text(136, 124, "(128, 128)", color="white", fontsize=15, weight="bold", path_effects=EDGED)

    ax = figure.add_axes((0.7, 0.16, 0.29, 0.78))
    panel(ax, (512, 512))
    ax.set_title("Projected on the whole image", fontsize=17, weight="bold")
    ax.imshow(overlay, extent=(0, 512, 512, 0))
    inside = ((joints > 0) & (joints < 512)).all(axis=1)
    ax.plot(*joints[inside].T, "o", color="#d8742a", mec="white", ms=8)
    focal, middle = camera.focal[0, 0], camera.princpt[0]
    depth = float(gt.forward(want="joints").joints[0, 0, 2])
    for height, colour, words in (
        (
            0.115,
            INK,
            f"image:  focal = 5000 / 256 x {box[2]:.0f} = {focal:.0f},   princpt = the box's centre"
            f" = ({middle[0]:.0f}, {middle[1]:.0f})        crop:  focal 5000, princpt (128, 128)",
        ),
        (
            0.045,
            "#566470",
            f"So long a lens puts the body at {depth:.1f} m, which says nothing about the room.",
        ),
    ):
        figure.text(0.5, height, words, ha="center", fontsize=15, color=colour)
    return save(figure, path)


def _labelled(
    ax: plt.Axes, camera: Camera, joints: np.ndarray, names: list[str], size: tuple[int, int]
) -> None:
    """Joints as dots, their names in columns at both sides, lines between."""
    at = pixels(joints, camera)
    middle = np.median(at[:, 0])
    # Middle joints go where there are fewer names.
    left = [i for i in range(len(at)) if at[i, 0] < middle - 4]
    right = [i for i in range(len(at)) if at[i, 0] > middle + 4]
    for i in sorted(set(range(len(at))) - {*left, *right}, key=lambda i: at[i, 1]):
        (left if len(left) <= len(right) else right).append(i)
    for side, rows in (("left", left), ("right", right)):
        rows = sorted(rows, key=lambda i: (at[i, 1], abs(at[i, 0] - middle)))
        gap = 31
        wanted = np.array([at[i, 1] for i in rows])
        places = wanted.copy()
        for _ in range(400):  # names push each other apart until they fit
            for a in range(len(places) - 1):
                overlap = gap - (places[a + 1] - places[a])
                if overlap > 0:
                    places[a] -= overlap / 2
                    places[a + 1] += overlap / 2
            places = np.clip(places, 16, size[1] - 16)
        x = 210 if side == "left" else size[0] - 210
        for i, y in zip(rows, places, strict=True):
            colour = (
                "#2763c4"
                if names[i].startswith("left")
                else "#c8372d"
                if names[i].startswith("right")
                else INK
            )
            ax.plot([at[i, 0], x], [at[i, 1], y], color=colour, lw=0.9, alpha=0.55, zorder=3)
            ax.text(
                x + (-5 if side == "left" else 5),
                y,
                f"{i} {names[i]}" if side == "right" else f"{names[i]} {i}",
                ha="right" if side == "left" else "left",
                va="center",
                fontsize=14.5,
                color=colour,
            )
    for i, (u, v) in enumerate(at):
        colour = (
            "#2763c4" if names[i].startswith("left") else "#c8372d" if names[i].startswith("right") else INK
        )
        ax.plot(u, v, "o", color=colour, mec="white", ms=8, zorder=4)


def draw_joints(path: Path, name: str) -> Path:
    """A joint set on the resting body, each joint with its number and name."""
    model = load_body_model("smpl")
    pose = torch.zeros(1, 23, 3)
    pose[0, 15, 2], pose[0, 16, 2] = -0.95, 0.95  # arms lowered
    out = model(body_pose=pose)
    vertices = out.vertices[0].numpy()
    size, middle = (900, 700), np.array([0, -0.33, 0])
    camera = looking(middle + np.array([0, 0, 12.0]), middle, up=np.array([0, 1.0, 0]), focal=4600, size=size)
    joints, names = out.joints[0, :24].numpy(), list(JOINT_SETS["smpl"].joints[:24])
    if name != "smpl":
        joints = model.points(joint_regressor(name, model))(body_pose=pose)[0].numpy()
        names = list(JOINT_SETS[name].joints)
    figure = plt.figure(figsize=(9, 7))
    ax = figure.add_axes((0, 0, 1, 1))
    panel(ax, size)
    ax.imshow(cut_out(vertices, model.faces, camera, color=(214, 224, 234)), extent=(0, size[0], size[1], 0))
    _labelled(ax, camera, joints, names, size)
    return save(figure, path)


def draw_hands(path: Path) -> Path:
    """The mean hand, the flat one, a pose, and its mirror image as the other side's model has it."""
    models = {side: load_body_model("mano", side=side) for side in ("right", "left")}
    mean = models["right"].pose_mean[None, 1:]
    bent = torch.zeros(1, 15, 3)
    bent[0, 0] = torch.tensor([0.0, 0.25, 1.1])
    bent[0, 1] = torch.tensor([0.0, 0.0, 0.7])
    shown = [
        ("right", torch.zeros(1, 15, 3), "hand_pose = 0\nthe mean hand"),
        ("right", -mean, "hand_pose = $-$mean\nthe flat hand"),
        ("right", bent, "right: index (x, y, z)"),
        ("left", bent * torch.tensor([1.0, -1, -1]), "left: index (x, $-$y, $-$z)"),
    ]
    figure, panels = plt.subplots(1, 4, figsize=(14, 4.6))
    figure.subplots_adjust(0.005, 0.02, 0.995, 0.86, wspace=0.02)
    size = (380, 420)
    for ax, (side, pose, title) in zip(panels, shown, strict=True):
        vertices = models[side](hand_pose=pose).vertices[0].numpy()
        middle = models[side].v_template.numpy().mean(axis=0)
        camera = looking(
            middle + np.array([0, 0.85, 0.32]), middle, up=np.array([0, 0, -1.0]), focal=1420, size=size
        )
        panel(ax, size)
        ax.set_title(title, fontsize=17)
        ax.imshow(
            cut_out(vertices, models[side].faces, camera, color=(236, 196, 170)),
            extent=(0, size[0], size[1], 0),
        )
    figure.add_artist(plt.Line2D([0.752, 0.752], [0.08, 0.82], color=PALE, lw=1.6, ls="--"))
    return save(figure, path)


def draw_root(path: Path) -> Path:
    """What `global_orient` does in camera space, y being down."""
    model = load_body_model("smpl")
    pose = torch.zeros(1, 23, 3)
    pose[0, 15, 2], pose[0, 16, 2] = -1.0, 1.0
    upright = Rotation.from_rotvec([np.pi, 0, 0])
    shown = [
        (Rotation.identity(), "(0, 0, 0)\nhead down, its back to us"),
        (upright, "($\\pi$, 0, 0)\nupright, facing us"),
        (Rotation.from_rotvec([0, np.pi / 2, 0]) * upright, None),
        (Rotation.from_rotvec([0, np.pi, 0]) * upright, None),
        (Rotation.from_rotvec([0, 0, np.pi / 6]) * upright, None),
    ]
    notes = {
        2: "upright, turned by 90$\\degree$",
        3: "upright, its back to us",
        4: "with the picture by 30$\\degree$",
    }
    figure, panels = plt.subplots(1, len(shown), figsize=(14, 5.6))
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.85, wspace=0.02)
    size = (300, 500)
    camera = Camera.from_intrinsics(np.full((1, 2), 1720.0), np.array([[150.0, 250.0]]), np.array([size]))
    for number, (ax, (rotation, title)) in enumerate(zip(panels, shown, strict=True)):
        vector = rotation.as_rotvec()
        if title is None:
            words = ", ".join(f"{v:.2f}" if abs(v) > 5e-3 else "0" for v in vector).replace("3.14", "$\\pi$")
            title = f"({words})\n{notes[number]}"
        out = model(
            global_orient=torch.tensor(vector[None], dtype=torch.float32),
            body_pose=pose,
            transl=torch.tensor([[0, 0, 8.0]]),
        )
        vertices = out.vertices[0].numpy()
        vertices += np.array([0, 0, 8]) - vertices.mean(axis=0)
        panel(ax, size)
        ax.set_title(title.replace("-", "$-$") if number > 1 else title, fontsize=15.5)
        ax.imshow(cut_out(vertices, model.faces, camera), extent=(0, size[0], size[1], 0))
        if number == 0:
            corner = np.array([30.0, 390])
            arrow(ax, corner, corner + np.array([58, 0]), AXES["x"], "x")
            arrow(ax, corner, corner + np.array([0, 58]), AXES["y"], "y")
    return save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the pictures")
    out = parser.parse_args().out
    warnings.filterwarnings("ignore", "no official body models given")
    torch.set_num_threads(1)
    for made in (
        draw_spaces(out / "conventions-spaces.png"),
        draw_crop(out / "conventions-crop.jpg"),
        draw_joints(out / "conventions-joints-smpl.png", "smpl"),
        draw_joints(out / "conventions-joints-human36m.png", "human36m-17"),
        draw_joints(out / "conventions-joints-coco.png", "coco-17"),
        draw_hands(out / "conventions-hands.png"),
        draw_root(out / "conventions-root.png"),
    ):
        print(f"{made}: {made.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
