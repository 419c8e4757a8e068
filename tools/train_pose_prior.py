"""Train the open pose prior that ships, `neuralannot/train/open_prior.npz`, from clips of the CMU library.

    python -m tools.train_pose_prior CMU_FOLDER [--steps 12000] [--output open_prior.npz]

A VAE of SMPL's 21 body joints with VPoser's interface: 32 latents in, 21 rotations out. A handful of clips is
not all that people do, so only the frames are real: limbs of different frames are put together, joints are
turned a little, and a part of the arms and legs is drawn from the ranges of human joints instead.
`docs/prior.md` says what comes of it; the numbers there are what this program prints, on frames that it did
not train on.

The clips are at http://mocap.cs.cmu.edu (free for all uses; the database was created with funding from
NSF EIA-0196217).
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.body_models import load_body_model
from neuralannot.train.priors import VaePrior
from neuralannot.train.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from tools.make_pose_bank import BODY_JOINTS, mirrored, read_clips
from tools.retarget_cmu import OPEN_BODIES, SMPL_PARENTS, rest_joints

PRIOR = Path(__file__).resolve().parent.parent / "neuralannot" / "train" / "open_prior.npz"
LATENT, HIDDEN, SLOPE = 32, 320, 0.2
BATCH, LEARNING_RATE = 384, 2e-3
# What counts as one standard deviation of error: of a joint's rotation in radians, of its place in metres
ROTATION_ERROR, PLACE_ERROR = 0.12, 0.03
HELD_OUT_CLIP, HELD_OUT_END = "03_02", ("01_01", 0.85)  # a clip, and the end of another

# Rows of the 21 joints (SMPL's number minus one) that change places between frames together
LEGS = (0, 1, 3, 4, 6, 7, 9, 10)
TRUNK = (2, 5, 8, 11, 14)
LEFT_ARM, RIGHT_ARM = (12, 15, 17, 19), (13, 16, 18, 20)
LEFT_LEG, RIGHT_LEG = (0, 3, 6, 9), (1, 4, 7, 10)
# Standard deviation in radians of the small turns, at their largest: trunk and legs 0.1, and
LOOSE = {11: 0.2, 14: 0.2, 15: 0.25, 16: 0.25, 17: 0.2, 18: 0.2, 19: 0.3, 20: 0.3, 9: 0.05, 10: 0.05}
# Share of the batch with parts of several frames; with arms, with legs drawn from the joints' ranges
MIXED, REACHING, STEPPING = 0.5, 0.3, 0.2


class PoseBatches:
    """Endless training poses, (B, 21, 3, 3) rotations, from `frames` (F, 21, 3) axis-angle and a seed.

    `weights` (F,): how often each frame is taken.
    """

    def __init__(self, frames: np.ndarray, weights: np.ndarray, *, seed: int) -> None:
        self.matrices = axis_angle_to_matrix(torch.tensor(frames, dtype=torch.float32))
        self.weights = torch.tensor(weights, dtype=torch.float32)
        self.random = torch.Generator().manual_seed(seed)
        self.loose = torch.full((BODY_JOINTS, 1), 0.1)
        for joint, spread in LOOSE.items():
            self.loose[joint] = spread

    def draw(self, count: int) -> Tensor:
        pose = self._frames(count)
        mixed = self._share(count, MIXED)
        for part in (LEGS, TRUNK, LEFT_ARM, RIGHT_ARM):
            pose[mixed[:, None], part] = self._frames(len(mixed))[:, part]
        for part, side in ((LEFT_ARM, 1.0), (RIGHT_ARM, -1.0)):
            rows = self._share(count, REACHING)
            pose[rows[:, None], part[1:3]] = self._arms(len(rows), side)
        rows = self._share(count, STEPPING)
        legs = self._legs(len(rows))
        both = torch.rand(len(rows), generator=self.random) < 0.5  # sitting, squatting: the same with both
        other = torch.where(both[:, None, None, None], legs, self._legs(len(rows)))
        flip = torch.tensor([1.0, -1.0, -1.0])
        pose[rows[:, None], LEFT_LEG[:2]] = legs
        pose[rows[:, None], RIGHT_LEG[:2]] = flip[:, None] * other * flip
        scale = torch.rand(count, 1, 1, generator=self.random)
        noise = torch.randn(count, BODY_JOINTS, 3, generator=self.random) * self.loose * scale
        return pose @ axis_angle_to_matrix(noise)

    def _frames(self, count: int) -> Tensor:
        return self.matrices[torch.multinomial(self.weights, count, replacement=True, generator=self.random)]

    def _share(self, count: int, share: float) -> Tensor:
        return torch.nonzero(torch.rand(count, generator=self.random) < share)[:, 0]

    def _uniform(self, count: int, *ranges: tuple[float, float]) -> list[Tensor]:
        """One (count,) of radians for each range of degrees."""
        return [
            torch.deg2rad(low + (high - low) * torch.rand(count, generator=self.random))
            for low, high in ranges
        ]

    def _arms(self, count: int, side: float) -> Tensor:
        """Shoulder and elbow (count, 2, 3, 3): from the T pose raised, brought forward, twisted; bent.

        `side`: 1 for the left arm, which lies along x, -1 for the right.
        """
        raised, forward, twist, bent = self._uniform(count, (-85, 75), (-30, 100), (-60, 60), (0, 140))
        zero = torch.zeros(count)
        turns = [
            torch.stack([zero, -side * forward, zero], -1),
            torch.stack([zero, zero, side * raised], -1),
            torch.stack([twist, zero, zero], -1),
            torch.stack([zero, -side * bent, zero], -1),
        ]
        forward_turn, raise_turn, twist_turn, elbow = map(axis_angle_to_matrix, turns)
        return torch.stack([forward_turn @ raise_turn @ twist_turn, elbow], 1)

    def _legs(self, count: int) -> Tensor:
        """Left hip and knee (count, 2, 3, 3): lifted to the front, spread, twisted; bent."""
        lifted, spread, twist, extra = self._uniform(count, (-20, 110), (-10, 40), (-30, 30), (-20, 60))
        zero = torch.zeros(count)
        bent = (lifted.clamp_min(0) + extra).clamp(0, 2.4)  # who lifts a thigh bends the knee
        turns = [
            torch.stack([zero, zero, spread], -1),
            torch.stack([-lifted, zero, zero], -1),
            torch.stack([zero, twist, zero], -1),
            torch.stack([bent, zero, zero], -1),
        ]
        spread_turn, lift_turn, twist_turn, knee = map(axis_angle_to_matrix, turns)
        return torch.stack([spread_turn @ lift_turn @ twist_turn, knee], 1)


def layers(*widths: int) -> nn.Sequential:
    """Linear layers with leaky ReLU between."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*parts[:-1])


def orthonormal(values: Tensor) -> Tensor:
    """(B, 21 * 6) -> (B, 21, 3, 3), as the prior decodes."""
    first, second = values.reshape(len(values), BODY_JOINTS, 3, 2).unbind(-1)
    first = nn.functional.normalize(first, dim=-1)
    second = nn.functional.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def places(pose: Tensor, rest: Tensor) -> Tensor:
    """Rotations (B, 21, 3, 3) -> joints 1 to 21 (B, 21, 3) in metres about the root at rest."""
    turned, found = [torch.eye(3).expand(len(pose), 3, 3)], [torch.zeros(len(pose), 3)]
    for joint in range(1, BODY_JOINTS + 1):
        parent = SMPL_PARENTS[joint]
        found.append(found[parent] + turned[parent] @ (rest[joint] - rest[parent]))
        turned.append(turned[parent] @ pose[:, joint - 1])
    return torch.stack(found[1:], 1)


def train(batches: PoseBatches, rest: Tensor, steps: int, seed: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder to means and logarithms of variances (64), decoder to two columns per joint (126)."""
    torch.manual_seed(seed)
    encoder = layers(BODY_JOINTS * 6, HIDDEN, HIDDEN, 2 * LATENT)
    decoder = layers(LATENT, HIDDEN, HIDDEN, BODY_JOINTS * 6)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    for step in range(steps):
        pose = batches.draw(BATCH)
        mean, log_variance = encoder(pose[..., :2].flatten(1)).chunk(2, 1)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        decoded = orthonormal(decoder(code))
        # half the squared Frobenius distance of two rotations is, for small angles, the angle squared
        turn = 0.5 * (decoded - pose).square().sum((1, 2, 3)) / (2 * ROTATION_ERROR**2)
        place = (places(decoded, rest) - places(pose, rest)).square().sum((1, 2)) / (2 * PLACE_ERROR**2)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss = (turn + place + divergence).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *decoder.parameters()], 20.0)
        optimiser.step()
        schedule.step()
        if step % 2000 == 0 or step == steps - 1:
            parts = [f"{value.mean().item():.2f}" for value in (turn, place, divergence)]
            print(f"step {step}: rotation {parts[0]}, place {parts[1]}, divergence {parts[2]}", flush=True)
    return encoder, decoder


def arrays_of(encoder: nn.Sequential, decoder: nn.Sequential) -> dict[str, np.ndarray]:
    """What the file holds, float16: the layers, of the encoder's last only the rows of the means."""
    arrays = {}
    for part, net in (("encoder", encoder), ("decoder", decoder)):
        linear = [layer for layer in net if isinstance(layer, nn.Linear)]
        for number, layer in enumerate(linear):
            rows = LATENT if part == "encoder" and layer is linear[-1] else layer.out_features
            arrays[f"{part}.{number}.weight"] = layer.weight.detach().numpy()[:rows].astype(np.float16)
            arrays[f"{part}.{number}.bias"] = layer.bias.detach().numpy()[:rows].astype(np.float16)
    return arrays


def prior_of(arrays: dict[str, np.ndarray]) -> VaePrior:
    """The prior as the library makes it of the file."""
    net = {
        part: [
            (torch.tensor(arrays[f"{part}.{n}.weight"]), torch.tensor(arrays[f"{part}.{n}.bias"]))
            for n in range(3)
        ]
        for part in ("encoder", "decoder")
    }
    return VaePrior(
        "open prior",
        encoder=net["encoder"],
        encoder_slopes=(SLOPE, SLOPE, 1.0),
        decoder=net["decoder"],
        slope=SLOPE,
        rotation6d=True,
    )


def angles_between(first: Tensor, second: Tensor) -> Tensor:
    """Degrees (…,) between rotations (…, 3, 3)."""
    return torch.rad2deg(matrix_to_axis_angle(first.transpose(-1, -2) @ second).norm(dim=-1))


def report(prior: VaePrior, sets: dict[str, Tensor], batches: PoseBatches, rest: Tensor) -> None:
    """Print how near the prior comes to poses it has not seen, and how its samples lie to those it has."""
    mean_pose = matrix_to_axis_angle(batches.draw(20000)).mean(0)
    for name, pose in sets.items():
        code = prior.encode(matrix_to_axis_angle(pose))
        decoded = prior.decode(code)
        errors = 1000 * (places(decoded, rest) - places(pose, rest)).norm(dim=-1)
        flat = axis_angle_to_matrix(mean_pose)[None].expand_as(pose)
        base = 1000 * (places(flat, rest) - places(pose, rest)).norm(dim=-1)
        turned = angles_between(decoded, pose)
        worst = errors.mean(1).quantile(0.95)
        print(
            f"{name}: {len(pose)} poses, joints off by {errors.mean():.1f} mm (95% below {worst:.1f}; "
            f"the mean pose: by {base.mean():.0f}); rotations by {turned.mean():.1f} degrees; "
            f"latents' mean square {code.square().mean():.2f}"
        )
    count = 5000
    drawn = prior.decode(torch.randn(count, LATENT, generator=torch.Generator().manual_seed(5)))
    angles = torch.rad2deg(matrix_to_axis_angle(drawn))
    ranges = {"training poses": batches.draw(50000), "real frames alone": batches.matrices}
    for name, pose in ranges.items():
        seen = torch.rad2deg(matrix_to_axis_angle(pose))
        low, high = seen.amin(0), seen.amax(0)
        outside = torch.maximum(low - angles, angles - high).amax((1, 2))
        far, near = (100 * (outside > margin).float().mean() for margin in (30, 10))
        print(
            f"{count} samples, against the range of each joint's angles in the {name}: "
            f"{far:.1f}% have one more than 30 degrees outside, {near:.1f}% more than 10"
        )
    found = places(drawn, rest)
    real = places(batches.matrices[torch.randperm(len(batches.matrices))[:4000]], rest)
    nearest = torch.cdist(found[:1000].flatten(1), real.flatten(1)).amin(1) / BODY_JOINTS**0.5
    spread = (found - found.mean(0)).norm(dim=-1).mean(0)
    wrists, ankles = (1000 * spread[list(rows)].mean() for rows in ((19, 20), (6, 7)))
    print(
        f"the nearest real frame is {1000 * nearest.mean():.0f} mm away (root mean square over joints); "
        f"wrists spread {wrists:.0f} mm, ankles {ankles:.0f} mm"
    )
    # What no one can do: knees and elbows bent the wrong way
    bends = {"knees": angles[:, (3, 4), 0], "left elbow": -angles[:, 17, 1], "right elbow": angles[:, 18, 1]}
    for name, bend in bends.items():
        print(f"  {name} bent backwards by more than 20 degrees: {100 * (bend < -20).float().mean():.2f}%")


def posed(**degrees: tuple[float, float, float]) -> Tensor:
    """One pose (1, 21, 3, 3) with the named joints turned by an axis-angle in degrees, the others at rest."""
    rows = {"left_hip": 0, "right_hip": 1, "left_knee": 3, "right_knee": 4}
    rows |= {"left_shoulder": 15, "right_shoulder": 16, "left_elbow": 17, "right_elbow": 18}
    pose = torch.zeros(1, BODY_JOINTS, 3)
    for name, turn in degrees.items():
        pose[0, rows[name]] = torch.deg2rad(torch.tensor(turn))
    return axis_angle_to_matrix(pose)


def unseen_poses() -> dict[str, Tensor]:
    """Poses that none of the clips holds and photographs do."""
    down = {"left_shoulder": (0.0, 0.0, -75.0), "right_shoulder": (0.0, 0.0, 75.0)}
    return {
        "arms out (T pose)": posed(),
        "both arms up": posed(left_shoulder=(0.0, 0.0, 70.0), right_shoulder=(0.0, 0.0, -70.0)),
        "sitting": posed(
            left_hip=(-85.0, 0.0, 0.0),
            right_hip=(-85.0, 0.0, 0.0),
            left_knee=(85.0, 0.0, 0.0),
            right_knee=(85.0, 0.0, 0.0),
            **down,
        ),
        "one leg kicked high": posed(right_hip=(-100.0, 0.0, 0.0), right_knee=(15.0, 0.0, 0.0), **down),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="clips of the CMU library")
    parser.add_argument("--steps", type=int, default=12000, help="0: only measure the file that is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=PRIOR)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    body = load_body_model("smpl", folder=OPEN_BODIES)
    rest = torch.tensor(rest_joints(body)[0], dtype=torch.float32)
    frames, weights, held = [], [], {}
    for name, pose in read_clips(arguments.folder, body):
        clip = np.asarray(pose, dtype=np.float32)
        if name == HELD_OUT_CLIP:
            held[f"held-out clip {name}"] = clip[:, 1:]
            continue
        if name == HELD_OUT_END[0]:
            start = int(HELD_OUT_END[1] * len(clip))
            held[f"held-out end of {name}"] = clip[start:, 1:]
            clip = clip[:start]
        both = np.concatenate([clip, mirrored(clip)])[:, 1:]
        frames.append(both)
        weights.append(
            np.full(len(both), len(both) ** -0.5)
        )  # a long clip counts more, but not by its length
        print(f"{name}: {len(clip)} frames, and mirrored")
    batches = PoseBatches(np.concatenate(frames), np.concatenate(weights), seed=arguments.seed)
    if arguments.steps:
        arrays = arrays_of(*train(batches, rest, arguments.steps, arguments.seed))
        np.savez(arguments.output, allow_pickle=False, **arrays)
    with np.load(arguments.output, allow_pickle=False) as file:
        arrays = dict(file)

    sets = {name: axis_angle_to_matrix(torch.tensor(pose)) for name, pose in held.items()}
    fresh = PoseBatches(np.concatenate(frames), np.concatenate(weights), seed=arguments.seed + 1)
    with torch.no_grad():
        sets |= {"fresh training poses": fresh.draw(4000), **unseen_poses()}
        report(prior_of(arrays), sets, fresh, rest)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
