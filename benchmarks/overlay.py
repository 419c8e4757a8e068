"""A body drawn over a picture, one thread: seconds for the whole body and for a close view."""

import statistics
import time
import warnings

import numpy as np

SIZE = 512


def run(count: int, repeats: int) -> None:
    """Print the medians (least … most) of `repeats` runs; `count` is of no use here."""
    del count
    import torch

    from neuralannot import load_body_model, render_overlay

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    model = load_body_model("smpl")
    upright = torch.tensor([[np.pi, 0.0, 0.0]])
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    princpt = np.array([SIZE / 2, SIZE / 2])
    for name, depth in (("whole body", 2.2), ("close view", 0.16)):
        body = model(global_orient=upright, transl=torch.tensor([[0.0, 0.0, depth]])).vertices[0].numpy()
        seconds = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            picture = render_overlay(image, [body], model.faces, np.array([500.0, 500.0]), princpt)
            seconds.append(time.perf_counter() - begin)
        drawn = (picture != image).any(axis=2).mean()
        low, middle, high = min(seconds[1:]), statistics.median(seconds[1:]), max(seconds[1:])
        print(
            f"{SIZE}x{SIZE}, {name:<10} {100 * drawn:3.0f} % drawn: {middle:.2f} s ({low:.2f} … {high:.2f})"
        )
