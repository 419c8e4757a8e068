"""Tables, the statistics in them, groups and plots: by hand, parsed back, and with hostile text."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.metrics import auc
from neuralannot.train.evaluation.breakdown import by_group, by_joint, head_of, overall
from neuralannot.train.evaluation.measured import Column, Measured
from neuralannot.train.evaluation.plots import bars, histogram
from neuralannot.train.evaluation.spread import spread
from neuralannot.train.evaluation.tables import Table, tables_csv, tables_markdown

HOSTILE = "</table><script>alert('1 & 2')</script>\"|`_*"
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


class Cells(HTMLParser):
    """The texts of a table's cells, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


# --- tables


def test_one_table_in_every_form() -> None:
    table = Table(
        "Errors",
        ("joint", "count", "mean", "AUC"),
        (("knee", 2, 1.23456789, 0.98765), ("hip", 0, None, None)),
    )
    assert table.text() == (
        "Errors\njoint  count  mean    AUC\nknee       2  1.23  0.988\nhip        0     -      -"
    )
    assert table.markdown() == (
        "**Errors**\n\n"
        "| joint | count | mean | AUC |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| knee | 2 | 1.23 | 0.988 |\n"
        "| hip | 0 | - | - |"
    )
    assert table.csv() == "joint,count,mean,AUC\nknee,2,1.23457,0.98765\nhip,0,,\n"
    assert Cells(table.html()).rows == [
        ["joint", "count", "mean", "AUC"], ["knee", "2", "1.23", "0.988"], ["hip", "0", "-", "-"]
    ]  # fmt: skip
    assert tables_markdown([table, table]).count("**Errors**") == 2
    both = list(csv.reader(io.StringIO(tables_csv([table, table]))))
    assert [len(row) for row in both] == [5] * 5
    assert both[4] == ["Errors", "hip", "0", "", ""]
    empty = Table("", ("a",), ())
    assert (len(empty), empty.text(), empty.csv()) == (0, "a", "a\n")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, st.floats(allow_infinity=True, allow_nan=True)), max_size=4), WORDS)
def test_any_text_stays_in_its_cell(rows, title) -> None:
    table = Table(title, ("name", "value"), tuple((name, value) for name, value in rows))
    back = list(csv.reader(io.StringIO(table.csv())))
    assert [row[0] for row in back[1:]] == [name for name, _ in rows]
    for (_, value), (_, text) in zip(rows, back[1:], strict=True):
        assert (np.isnan(value) and text == "") or float(text) == pytest.approx(value, rel=1e-5)
    cells = Cells(table.html())
    assert [row[0] for row in cells.rows[1:]] == [name for name, _ in rows]
    lines = table.markdown().split("\n")[2:]
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


def test_hostile_text_is_no_markup() -> None:
    table = Table(HOSTILE, (HOSTILE, "n"), ((HOSTILE, 1),))
    assert "script" not in Cells(table.html()).tags
    assert Cells(table.html()).rows[1][0] == HOSTILE
    with pytest.raises(ValueError, match=r"^t: a row must have 2 cells, got \(1,\)$"):
        Table("t", ("a", "b"), ((1,),))
    with pytest.raises(
        ValueError, match=r"^tables of different columns are no one CSV: \('a',\) and \('b',\)$"
    ):
        tables_csv([Table("", ("a",), ()), Table("", ("b",), ())])
    with pytest.raises(ValueError, match=r"^no table to write$"):
        tables_csv([])


# --- statistics


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_the_spread_is_numpys(values) -> None:
    x = np.array([*values, np.nan])
    found = spread(x)
    wanted = (
        np.mean(values),
        np.median(values),
        np.quantile(values, 0.75),
        np.quantile(values, 0.95),
        max(values),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_the_spread_of_nothing_and_of_infinite_errors() -> None:
    assert spread(np.array([np.nan])) == (None,) * 5
    assert spread(np.array([1, 2, 3, 4, np.inf])) == (np.inf, 3.0, 4.0, np.inf, np.inf)


def some_errors(rng: np.random.Generator, count: int = 6) -> Measured:
    points = rng.uniform(0, 200, (count, 3))
    points[1, 2] = np.nan
    points[2] = np.nan
    means = np.array([np.nan if np.isnan(p).all() else np.nanmean(p) for p in points])
    columns = (
        Column("MPJPE", "mm", means, points, None, 150.0),
        Column("MPVPE", "mm", means + 1, None, np.linspace(0, 1, count), 150.0),
        Column("reprojection", "px", means / 10),
    )
    rows = np.arange(count)[::-1].copy()
    return Measured("the truth", "a note", rows, ("hip", "knee", "foot"), columns)


def test_tables_by_hand() -> None:
    measured = some_errors(np.random.default_rng(0))
    points = measured.columns[0].per_joint
    assert points is not None
    table = overall(measured, "smpl")
    assert table.head == head_of("smpl") == (
        "group", "measure", "unit", "count", "mean", "median", "75%", "95%", "largest", "AUC 0-150 mm"
    )  # fmt: skip
    assert [row[:4] for row in table.rows] == [
        ("all", "MPJPE", "mm", 5), ("all", "MPVPE", "mm", 5), ("all", "reprojection", "px", 5)
    ]  # fmt: skip
    kept = points[~np.isnan(points)]
    line = np.stack([kept, 0 * kept, 0 * kept], axis=1)
    pooled = auc(line, np.zeros_like(line), high=150.0)
    assert table.rows[0][-1] == pytest.approx(pooled)
    # The area under the curve is 1 less the mean of the errors' share of the limit, up to the steps.
    assert pooled == pytest.approx((1 - np.minimum(kept / 150, 1)).mean(), abs=0.01)
    assert table.rows[1][-1] == pytest.approx(0.5)
    assert table.rows[2][-1] is None

    joints = by_joint(measured, "smpl")
    assert [row[:2] for row in joints.rows] == [("hip", "MPJPE"), ("knee", "MPJPE"), ("foot", "MPJPE")]
    assert [row[3] for row in joints.rows] == [5, 5, 4]
    for k, row in enumerate(joints.rows):
        assert row[4] == pytest.approx(np.nanmean(points[:, k]))
        assert row[8] == pytest.approx(np.nanmax(points[:, k]))

    labels = np.array(
        ["take 10", "take 2", "take 10", "take 2", "other", "take 2"]
    )  # of the rows, in reverse
    groups = by_group(measured, "smpl", labels, by="sequence")
    assert [row[0] for row in groups.rows[::3]] == ["other", "take 2", "take 10"]
    means = measured.columns[0].values
    for row in groups.rows[::3]:
        own = [m for m, r in zip(means, measured.rows, strict=True) if labels[r] == row[0]]
        assert row[4] == pytest.approx(np.nanmean(own))
    assert sum(row[3] for row in groups.rows[::3]) == 5
    assert head_of("mano")[-1] == "AUC 0-50 mm"
    assert head_of("flame")[-1] == "AUC"


def test_infinite_errors_pass_no_threshold() -> None:
    column = Column("x", "mm", np.zeros(1), np.array([[np.inf, 0.0]]), None, 50.0)
    assert column.auc() == pytest.approx(0.5)
    assert Column("x", "mm", np.zeros(1), np.full((1, 2), np.nan), None, 50.0).auc() is None
    assert Column("x", "mm", np.zeros(1), None, np.array([np.nan]), 50.0).auc() is None


# --- plots


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter("text")]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1e9, allow_nan=False) | st.just(float("nan")) | st.just(float("inf")), max_size=40),
    WORDS,
)
def test_a_histogram_shows_every_value(values, title) -> None:
    svg = histogram(np.array(values, float), title=title, unit="mm")
    known = [v for v in values if not np.isnan(v)]
    if not np.isfinite(known).any():
        assert "no values" in texts(svg)
        return
    # Each bar's tip ends with how many it stands for; the rest is said.
    counted = sum(int((tip.text or "").rsplit(": ")[-1]) for tip in drawn(svg).iter("title"))
    said = [re.search(r"^(\d+) annotations(?:, (\d+) beyond)?", t) for t in texts(svg)]
    number = next(m for m in said if m)
    assert int(number[1]) == len(known)
    assert counted + int(number[2] or 0) == len(known)
    for rect in drawn(svg).iter("rect"):
        assert 0 <= float(rect.get("x", "-1")) <= 560
        assert float(rect.get("height", "-1")) >= 0


def test_bars_are_means() -> None:
    values = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, np.nan]])
    svg = bars((HOSTILE, "knee", "toe"), values, title=HOSTILE, unit="mm")
    shown = texts(svg)
    assert HOSTILE in shown
    assert [t for t in shown if re.fullmatch(r"\d\.\d\d|-", t)] == ["2.00", "2.00", "-"]
    wide = [float(r.get("width", "0")) for r in drawn(svg).iter("rect")]
    assert wide[0] == wide[1] > 0
    assert bars((), np.zeros((2, 0)), title="t", unit="mm")
    assert "0.00" in texts(bars(("a",), np.zeros((1, 1)), title="t", unit="mm"))
    with pytest.raises(ValueError, match=r"^values must be \(N, 1\), a column for each name, got \(2, 3\)$"):
        bars(("a",), values, title="", unit="")
