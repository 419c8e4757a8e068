"""Learn the normal distribution of poses that ships, `neuralannot/train/fitting/open_gaussian.npz`.

    python -m tools.learn_pose_gaussian [--check] [--output open_gaussian.npz]

From the studio's poses, those of one clip held out; three quarters of the weight is theirs and their mirror
images', a quarter that of poses put together as `train_pose_prior.py` does. Rotations of joints far apart on
the skeleton go together in walking and not in all that people do: their covariances count less (`nearness`).

`--check` prints what the choices bring: each clip fitted with the distribution of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from neuralannot.body_models import BodyModel, load_body_model
from neuralannot.body_models.moments import chosen
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.fitting.gaussians import PoseGaussians, nearness
from neuralannot.train.fitting.joint_fits import fit_joints
from neuralannot.train.joint_points import joint_points
from neuralannot.train.rotations import matrix_to_axis_angle
from neuralannot.transforms import mirror_parameters
from tools.make_pose_bank import POSES
from tools.train_pose_prior import HELD_OUT_CLIP, PoseBatches

GAUSSIAN = Path(__file__).resolve().parent.parent / "neuralannot/train/fitting/open_gaussian.npz"
DRAWS, SHARE = 8000, 0.25  # of poses put together
REACH = 4.0  # bones
FLOOR = 0.1  # radians: nothing is known better
TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")


def both(pose: np.ndarray) -> np.ndarray:
    """(N, 21, 3) -> (2 N, 21, 3): and mirrored."""
    roots = np.zeros((len(pose), 3), np.float32)
    mirrored = mirror_parameters({"global_orient": roots, "body_pose": pose}, roots)
    return np.concatenate([pose, mirrored["body_pose"]])


def learn(
    clips: list[np.ndarray], factors: np.ndarray, share: float = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (63,) and covariance (63, 63) of poses, (N, 21, 3) of each clip."""
    real = np.concatenate(clips)
    weights = np.concatenate([np.full(len(clip), len(clip) ** -0.5) for clip in clips])
    drawn = matrix_to_axis_angle(PoseBatches(real, weights, seed=0).draw(DRAWS)).numpy()
    poses = np.concatenate([real, drawn]).reshape(-1, 63).astype(np.float64)
    shares = np.repeat([(1 - share) / len(real), share / DRAWS], [len(real), DRAWS])
    mean = shares @ poses
    covariance = ((poses - mean) * shares[:, None]).T @ (poses - mean)
    return mean, covariance * factors + FLOOR**2 * np.eye(63)


def check(body: BodyModel, clips: list[np.ndarray], names: list[str], count: int = 100) -> None:
    """Print MPJPE and MPVPE, mm, of fits to each clip with the distribution of the others."""
    chart, parents = Chart(body), body.moments().parents
    for name, numbers in (("human36m-17", 17), ("smpl", 24)):
        points = joint_points(body, [JOINT_SETS[name]]).moments()
        moments = chosen(points, torch.arange(numbers))
        torso = torch.tensor([JOINT_SETS[name].joints.index(joint) for joint in TORSO])
        for condition in ("clean", "10 mm noise", "20% missing"):
            for label, reach, share in (
                ("shipped", REACH, SHARE),
                ("all covariances", 1e9, 0.0),
                ("none drawn", REACH, 0.0),
                ("drawn alone", REACH, 1 - 1e-9),
            ):
                factors = nearness(parents, chart.joints, reach=reach)
                found = []
                for held, clip in enumerate(clips):
                    others = [c for number, c in enumerate(clips) if number != held]
                    mean, covariance = learn(others, factors, share)
                    found.append(
                        errors(body, chart, moments, torso, clip, mean, covariance, condition, count)
                    )
                row = "  ".join(f"{clip} {a:.1f}/{b:.1f}" for clip, (a, b) in zip(names, found, strict=True))
                mean_error = np.mean(found, 0)
                print(
                    f"{name} {condition}, {label}: {row}  mean {mean_error[0]:.1f}/{mean_error[1]:.1f}",
                    flush=True,
                )


def errors(
    body: BodyModel,
    chart: Chart,
    moments: torch.nn.Module,
    torso: torch.Tensor,
    clip: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    condition: str,
    count: int,
) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    pose = clip[rng.choice(len(clip), count)].copy()
    pose[:, 19:21] += rng.normal(0, 0.2, (count, 2, 3)).clip(-0.5, 0.5)
    who = np.arange(count) % 10
    truth = State(
        torch.tensor(Rotation.random(count, random_state=2).as_matrix(), dtype=torch.float32),
        torch.tensor(pose),
        torch.tensor(rng.normal(0, 1, (10, 10)).clip(-2, 2)[who], dtype=torch.float32),
        torch.tensor(rng.normal([0, 0, 4], 1, (count, 3)), dtype=torch.float32),
    )
    joints = moments(chart.rotations(truth), truth.codes) + truth.transl[:, None]
    noise = 0.01 if "noise" in condition else 0.001
    given = joints + (torch.tensor(rng.normal(0, 0.01, joints.shape)).float() if noise == 0.01 else 0)
    valid = torch.tensor(rng.random(joints.shape[:2]) > (0.2 if "missing" in condition else 0))
    prior = PoseGaussians(
        torch.tensor(mean[None]).float(),
        torch.tensor(np.linalg.inv(covariance)[None]).float(),
        torch.zeros(1),
    )
    fits = fit_joints(
        chart,
        moments,  # type: ignore[arg-type]
        given,
        valid,
        torso=torso,
        prior=prior,
        noise=noise,
        persons=torch.tensor(who),
    )

    def at_root(values: torch.Tensor, posed: torch.Tensor) -> torch.Tensor:
        return values - posed[:, :1]

    joint_error = (at_root(fits.joints, fits.joints) - at_root(joints, joints)).norm(dim=2).mean()
    with torch.no_grad():
        meshes = [body(**chart.parameters(state)).vertices for state in (fits.state, truth)]
    vertex_error = (at_root(meshes[0], fits.joints) - at_root(meshes[1], joints)).norm(dim=2).mean()
    return 1000 * joint_error.item(), 1000 * vertex_error.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="measure by leaving out each clip in turn")
    parser.add_argument("--output", type=Path, default=GAUSSIAN)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body_model("smpl")
    with np.load(POSES, allow_pickle=False) as file:
        pose, clip, names = file["body_pose"].astype(np.float32), file["clip"], file["names"].tolist()
    clips = [both(pose[clip == number]) for number in range(len(names))]
    if arguments.check:
        check(body, clips, names)
        return
    kept = [values for values, name in zip(clips, names, strict=True) if name != HELD_OUT_CLIP]
    mean, covariance = learn(kept, nearness(body.moments().parents, Chart(body).joints, reach=REACH))
    np.savez(arguments.output, mean=mean.astype(np.float32), covariance=covariance.astype(np.float32))
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes, {sum(map(len, kept))} poses")


if __name__ == "__main__":
    main()
