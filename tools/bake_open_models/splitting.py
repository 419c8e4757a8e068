"""Splitting the longest edges of a mesh until it has as many vertices as it should."""

from __future__ import annotations

import heapq

import numpy as np

Row = dict[int, float]  # a vertex as a combination of the source's

# Lengths that agree to 0.01 um^2 are equal: which of them is split first must not hang on a machine's
# rounding.
_DIGITS = 14


def split_longest(
    rows: list[Row], faces: np.ndarray, places: np.ndarray, count: int
) -> tuple[list[Row], np.ndarray]:
    """`rows` (V) with `faces` (F, 3) at `places` (V, 3) -> rows (count) and faces; equal edges by number."""
    rows = list(rows)
    points = list(places)
    triangles = [tuple(map(int, face)) for face in faces]
    of_edge: dict[tuple[int, int], set[int]] = {}

    def edges(number: int) -> list[tuple[int, int]]:
        a, b, c = triangles[number]
        return [(min(p, q), max(p, q)) for p, q in ((a, b), (b, c), (c, a))]

    def add(number: int) -> None:
        for edge in edges(number):
            of_edge.setdefault(edge, set()).add(number)

    def remove(number: int) -> None:
        for edge in edges(number):
            of_edge[edge].discard(number)
            if not of_edge[edge]:
                del of_edge[edge]

    def entry(edge: tuple[int, int]) -> tuple[float, int, int]:
        along = points[edge[0]] - points[edge[1]]
        return (-round(float(along @ along), _DIGITS), *edge)

    for number in range(len(triangles)):
        add(number)
    heap = [entry(edge) for edge in of_edge]
    heapq.heapify(heap)
    while len(rows) < count:
        _, a, b = heapq.heappop(heap)
        if (a, b) not in of_edge:
            continue
        middle = len(rows)
        row: Row = {}
        for end in (a, b):
            for source, weight in rows[end].items():
                row[source] = row.get(source, 0) + weight / 2
        rows.append(row)
        points.append((points[a] + points[b]) / 2)
        for number in sorted(of_edge[a, b]):
            face = triangles[number]
            remove(number)
            triangles[number] = tuple(middle if v == b else v for v in face)
            add(number)
            triangles.append(tuple(middle if v == a else v for v in face))
            add(len(triangles) - 1)
            for changed in (number, len(triangles) - 1):
                for edge in edges(changed):
                    if middle in edge:
                        heapq.heappush(heap, entry(edge))
    return rows, np.array(triangles)
