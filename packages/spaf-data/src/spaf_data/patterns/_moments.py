"""Sums over the transcripts of a gene, and their moments when labels of genes are permuted: closed forms.

Of N transcripts n are of a gene; under the permutation any n of them are as likely. The chance that k given ones are of
the gene is ``falling(n, k) / falling(N, k)``.

- A sum of scores of single transcripts: the moments of a sum drawn without replacement (Cochran, Sampling Techniques).
- A sum over pairs of transcripts with weights w: the moments of a join count (Moran, 1948; Cliff and Ord, 1981). The
  second and third power of such a sum are sums over sets of pairs, each with as many transcripts as the pairs have
  ends that differ. For pairs that are joined or not the third moment is exact; for products of offsets it is that of
  independent draws, shrunk as that of a single sum is.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _chances(n, n_all, chances):
    chances[0] = 1.0
    for k in range(6):
        left = n_all - k
        chances[k + 1] = chances[k] * (n - k) / left if n > k and left > 0 else 0.0


@njit(cache=True, nogil=True)
def add_sums(score, run, size, runs, out):
    """Add a sum of `score` for each of `runs`: observed less expected, variance, third central moment, and its weight.

    `run` is the gene of each transcript, among `size` their numbers in this part of the cell; `out` is runs x 4.
    """
    n_all = len(score)
    mean = 0.0
    for i in range(n_all):
        mean += score[i]
    mean /= n_all
    second = 0.0
    third = 0.0
    for i in range(n_all):
        apart = score[i] - mean
        second += apart * apart
        third += apart * apart * apart
        out[run[i], 0] += apart
    second /= n_all
    third /= n_all
    for r in runs:
        n = size[r]
        out[r, 3] += n
        if n_all > 1:
            out[r, 1] += n * (n_all - n) / (n_all - 1) * second
        if n_all > 2:
            out[r, 2] += n * (n_all - n) * (n_all - 2 * n) / ((n_all - 1) * (n_all - 2)) * third


@njit(cache=True, nogil=True)
def add_offsets(x, y, run, size, runs, sums, out):
    """Add, for each gene, the sum over its pairs of the products of their offsets from the centre, as `add_sums` does.

    Offsets are in units of the root of their mean square, so that a pair at the same side and usual distance has 1.
    """
    n_all = len(x)
    mean_x, mean_y = x.mean(), y.mean()
    scale = 0.0
    for i in range(n_all):
        scale += (x[i] - mean_x) ** 2 + (y[i] - mean_y) ** 2
    if n_all < 2 or scale <= 0:
        return
    scale = np.sqrt(n_all / scale)
    xx, xy, yy, fourth = 0.0, 0.0, 0.0, 0.0
    xxx, xxy, xyy, yyy = 0.0, 0.0, 0.0, 0.0
    for r in runs:
        sums[r, :] = 0
    for i in range(n_all):
        a, b = (x[i] - mean_x) * scale, (y[i] - mean_y) * scale
        square = a * a + b * b
        xx += a * a
        xy += a * b
        yy += b * b
        fourth += square * square
        xxx += a * a * a
        xxy += a * a * b
        xyy += a * b * b
        yyy += b * b * b
        sums[run[i], 0] += a
        sums[run[i], 1] += b
        sums[run[i], 2] += square
    # Offsets add up to nothing, so the weights of one transcript with all others add up to minus its square.
    all_pairs = -0.5 * n_all
    squares = 0.5 * (xx * xx + 2 * xy * xy + yy * yy - fourth)
    adjacent = fourth - 2 * squares
    xx, xy, yy = xx / n_all, xy / n_all, yy / n_all
    cube = xx**3 + 3 * xx * xy**2 + 3 * yy * xy**2 + yy**3
    skewed = (xxx**2 + 3 * xxy**2 + 3 * xyy**2 + yyy**2) / n_all**2
    chances = np.empty(7)
    for r in runs:
        n = size[r]
        if n < 2:
            continue
        _chances(n, n_all, chances)
        observed = 0.5 * (sums[r, 0] ** 2 + sums[r, 1] ** 2 - sums[r, 2])
        expected = all_pairs * chances[2]
        second = squares * chances[2] + adjacent * chances[3]
        second += (all_pairs * all_pairs - squares - adjacent) * chances[4]
        kept = ((n_all - n) / (n_all - 1)) ** 3
        pairs = 0.5 * n * (n - 1)
        out[r, 0] += observed - expected
        out[r, 1] += max(second - expected * expected, 0.0)
        out[r, 2] += kept * (2 * pairs * (n - 2) * cube + pairs * skewed)
        out[r, 3] += pairs


@njit(cache=True, nogil=True)
def _joined(x, y, radius):
    """Return the neighbours of each transcript within a radius, ascending by x: numbers, offsets, order."""
    n = len(x)
    order = np.argsort(x)
    offsets = np.zeros(n + 1, np.int64)
    neighbours = np.empty(8 * n, np.int64)
    squared = radius * radius
    found = 0
    first = 0
    for i in range(n):
        xi, yi = x[order[i]], y[order[i]]
        while xi - x[order[first]] > radius:
            first += 1
        if found + n > len(neighbours):
            neighbours = np.concatenate((neighbours, np.empty(found + n, np.int64)))
        j = first
        while j < n and x[order[j]] - xi <= radius:
            dx, dy = x[order[j]] - xi, y[order[j]] - yi
            if j != i and dx * dx + dy * dy <= squared:
                neighbours[found] = j
                found += 1
            j += 1
        offsets[i + 1] = found
    return neighbours[:found], offsets, order


@njit(cache=True, nogil=True)
def _common(neighbours, i, i_end, j, j_end, above):
    """Count the neighbours above a number that two transcripts share; both lists ascend."""
    shared = 0
    while i < i_end and j < j_end:
        a, b = neighbours[i], neighbours[j]
        if a == b:
            shared += a > above
        i += a <= b
        j += b <= a
    return shared


@njit(cache=True, nogil=True)
def add_joins(x, y, run, size, runs, radius, joins, out):
    """Add, for each gene, its pairs of transcripts within `radius`, as `add_sums` does; the weight is the expectation.

    Exact in all three moments.
    """
    n_all = len(x)
    if n_all < 2:
        return
    neighbours, offsets, order = _joined(x, y, radius)
    for r in runs:
        joins[r] = 0
    edges, paths, stars, lines, triangles = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n_all):
        degree = offsets[i + 1] - offsets[i]
        paths += degree * (degree - 1) / 2
        stars += degree * (degree - 1) * (degree - 2) / 6
        own = run[order[i]]
        for k in range(offsets[i], offsets[i + 1]):
            j = neighbours[k]
            if j > i:
                edges += 1
                lines += (degree - 1) * (offsets[j + 1] - offsets[j] - 1)
                joins[own] += run[order[j]] == own
                triangles += _common(neighbours, k + 1, offsets[i + 1], offsets[j], offsets[j + 1], j)
    if edges == 0:
        return
    lines -= 3 * triangles
    path_and_edge = paths * (edges - 2) - 3 * triangles - 3 * stars - 2 * lines
    apart = edges * (edges - 1) * (edges - 2) / 6 - triangles - stars - lines - path_and_edge
    separate = edges * (edges - 1) - 2 * paths
    c = np.empty(7)
    for r in runs:
        n = size[r]
        if n < 2:
            continue
        _chances(n, n_all, c)
        mean = edges * c[2]
        second = mean + 2 * paths * c[3] + separate * c[4]
        third = mean + 3 * (2 * paths * c[3] + separate * c[4])
        third += 6 * (triangles * c[3] + (stars + lines) * c[4] + path_and_edge * c[5] + apart * c[6])
        out[r, 0] += joins[r] - mean
        out[r, 1] += max(second - mean * mean, 0.0)
        out[r, 2] += third - 3 * mean * second + 2 * mean**3
        out[r, 3] += mean
