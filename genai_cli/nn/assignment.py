"""The linear assignment problem: one column for each row, all different, at the least total cost.

Shortest augmenting paths with dual prices, O(n^3) (Jonker & Volgenant 1987): rows are assigned one by one, each along
the cheapest path of reassignments that frees a column, and the prices keep all reduced costs non-negative.
"""

import numpy
import torch
from torch import Tensor


def linear_assignment(cost: Tensor) -> Tensor:
    """(n, n) finite costs to (n,) int64 on the CPU: the column of each row."""
    costs = cost.detach().cpu().double().numpy()
    n = len(costs)
    row_price, column_price = numpy.zeros(n), numpy.zeros(n)
    column_of, row_of = numpy.full(n, -1), numpy.full(n, -1)  # -1 is free
    for row in range(n):
        column, came_from = _cheapest_path(row, costs, row_price, column_price, row_of)
        while column >= 0:  # back along the path, every row on it takes the next column
            before = came_from[column]
            row_of[column] = before
            column_of[before], column = column, column_of[before]
    return torch.from_numpy(column_of)


def _cheapest_path(
    row: int, costs: numpy.ndarray, row_price: numpy.ndarray, column_price: numpy.ndarray, row_of: numpy.ndarray
) -> tuple[int, numpy.ndarray]:
    """From `row` to the nearest free column, by Dijkstra on reduced costs: that column, and the row before each column.

    Raises the prices so that every edge of the path costs nothing and no edge less than that.
    """
    n = len(costs)
    distance = numpy.full(n, numpy.inf)  # of each column from `row`
    came_from = numpy.full(n, -1)
    is_settled = numpy.zeros(n, dtype=bool)
    current, reached, column = row, 0.0, -1
    while current >= 0:
        through = reached + costs[current] - row_price[current] - column_price
        is_nearer = ~is_settled & (through < distance)
        distance[is_nearer] = through[is_nearer]
        came_from[is_nearer] = current
        column = int(numpy.where(is_settled, numpy.inf, distance).argmin())
        reached, current = distance[column], row_of[column]
        is_settled[column] = current >= 0
    sooner = reached - distance[is_settled]
    column_price[is_settled] -= sooner
    row_price[row_of[is_settled]] += sooner
    row_price[row] += reached
    return column, came_from
