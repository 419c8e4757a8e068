"""Tables of results, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.timing import alternate, duration, times_faster

OURS = "neuralannot"
NOTHING = "—"


@dataclass
class Table:
    """`columns` names them, the first being what a row is; `machine`: what all of it was measured on."""

    title: str
    columns: Sequence[str]
    machine: str
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """One row more. Raises ValueError where it has not as many cells as there are columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"a row must have {len(self.columns)} cells, got {len(cells)}: {cells}")
        self.rows.append(cells)

    def text(self) -> str:
        """For a terminal."""
        grid = [tuple(self.columns), *self.rows]
        widths = [max(len(row[k]) for row in grid) for k in range(len(self.columns))]
        lines = [self.title]
        for row in grid:
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self.notes, self.machine])

    def markdown(self) -> str:
        """For a page."""
        grid = [tuple(self.columns), ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in grid]
        notes = [part for note in self.notes for part in ("", note)]
        return "\n".join([f"**{self.title}**", "", *lines, *notes, "", f"*{self.machine}*"])


class Comparison:
    """A table whose columns are sides, with how many times faster the first of them is than the others.

    `sides`: their names, ours first; `against`: those that ours is compared with; `goal`: whether there is a
    column for what ours is meant to reach.
    """

    def __init__(
        self,
        title: str,
        sides: Sequence[str],
        against: Sequence[str],
        machine: str,
        *,
        goal: bool = True,
        extra: Sequence[str] = (),
    ) -> None:
        self.sides, self.against, self.has_goal = sides, against, goal
        columns = ["", *sides, *extra, *(f"faster than {name}" for name in against)]
        self.table = Table(title, [*columns, "goal"] if goal else columns, machine)

    def add(
        self,
        case: str,
        sides: Mapping[str, Callable[[], object] | str],
        *,
        repeats: int,
        device: str = "cpu",
        goal: str = NOTHING,
        extra: Sequence[str] = (),
    ) -> dict[str, list[float]]:
        """Time one case. A side that is a text cannot run, and the text says why; absent ones are left out.

        Returns the seconds a call of each side that ran.
        """
        runnable = {name: side for name, side in sides.items() if not isinstance(side, str)}
        times = alternate(runnable, repeats=repeats, device=device)
        cells = []
        for name in self.sides:
            side = sides.get(name, NOTHING)
            cells.append(side if isinstance(side, str) else duration(times.seconds[name]))
        cells += extra
        for name in self.against:
            both = name in runnable and self.sides[0] in runnable
            cells.append(times_faster(times.ratios(name, self.sides[0])) if both else NOTHING)
        self.table.add(case, *cells, *([goal] if self.has_goal else []))
        return dict(times.seconds)
