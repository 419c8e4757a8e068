"""Random adults, as coefficients of MakeHuman's blend shapes.

A blend shape of the whole body has a name such as `female-young-maxmuscle-averageweight`: it counts as much
as the product of what each word says about the person. Words come from phenotypes in 0..1, between whose
named values the weight is shared linearly, and from three races that share a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Named values of each phenotype, with where they lie. MakeHuman also has babies; none of the adults drawn
# here is younger than 0.6, between child and young.
_ANCHORS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "gender": (("male", 0.0), ("female", 1.0)),
    "age": (("child", 1 / 3), ("young", 2 / 3), ("old", 1.0)),
    "muscle": (("minmuscle", 0.0), ("averagemuscle", 0.5), ("maxmuscle", 1.0)),
    "weight": (("minweight", 0.0), ("averageweight", 0.5), ("maxweight", 1.0)),
    "height": (("minheight", 0.0), ("maxheight", 1.0)),
    "proportions": (("idealproportions", 0.0), ("uncommonproportions", 1.0)),
    "cupsize": (("mincup", 0.0), ("averagecup", 0.5), ("maxcup", 1.0)),
    "firmness": (("minfirmness", 0.0), ("averagefirmness", 0.5), ("maxfirmness", 1.0)),
}
RACES = ("african", "asian", "caucasian")
PEOPLE = 1500
# Mean and deviation of the normally distributed ones.
_NORMAL = {
    "muscle": (0.5, 0.2),
    "weight": (0.5, 0.22),
    "height": (0.36, 0.075),
    "proportions": (0.6, 0.25),
    "cupsize": (0.5, 0.15),
    "firmness": (0.5, 0.15),
}


@dataclass(frozen=True)
class MacroTarget:
    """A blend shape of the whole body: its file below `targets`, and the words that say how much it
    counts."""

    file: str
    words: tuple[str, ...]


def macro_targets() -> list[MacroTarget]:
    """All blend shapes of adults, those of files that may not exist (`breast`) included."""
    named = {key: tuple(name for name, _ in values) for key, values in _ANCHORS.items()}
    build = [named[key] for key in ("gender", "age", "muscle", "weight")]
    breast = [named[key] for key in ("age", "muscle", "weight", "cupsize", "firmness")]
    kinds = (
        ("macrodetails/universal-", itertools.product(*build)),
        ("macrodetails/", itertools.product(RACES, named["gender"], named["age"])),
        ("macrodetails/height/", itertools.product(*build, named["height"])),
        ("macrodetails/proportions/", itertools.product(*build, named["proportions"])),
        ("breast/", (("female", *words) for words in itertools.product(*breast))),
    )
    return [
        MacroTarget(f"{place}{'-'.join(words)}", words) for place, all_words in kinds for words in all_words
    ]


def draw_people(rng: np.random.Generator, gender: float | None, count: int = PEOPLE) -> dict[str, np.ndarray]:
    """Phenotypes (count,) of random adults; `gender` 0 male, 1 female, None anything between."""
    people = {
        "gender": rng.uniform(0, 1, count) if gender is None else np.full(count, gender),
        "age": rng.uniform(0.6, 0.9, count),
    }
    for key, (mean, deviation) in _NORMAL.items():
        people[key] = np.clip(rng.normal(mean, deviation, count), 0.02, 0.98)
    shares = rng.dirichlet([0.7] * 3, count)
    return {**people, **dict(zip(RACES, shares.T, strict=True))}


def coefficients(people: Mapping[str, np.ndarray], targets: list[MacroTarget]) -> np.ndarray:
    """(people, targets): how much each blend shape counts for each person."""
    share = {race: people[race] for race in RACES}
    for key, values in _ANCHORS.items():
        places = np.array([place for _, place in values])
        for number, (name, _) in enumerate(values):
            share[name] = np.interp(people[key], places, np.eye(len(values))[number])
    return np.stack([np.prod([share[word] for word in target.words], axis=0) for target in targets], axis=1)


def draw_all(targets: list[MacroTarget]) -> dict[str, np.ndarray]:
    """Coefficients (1500, targets) of the adults of each gender that the files are made for."""
    rng = np.random.default_rng(0)
    genders = {"neutral": None, "male": 0.0, "female": 1.0}
    return {name: coefficients(draw_people(rng, value), targets) for name, value in genders.items()}
