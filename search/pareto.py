"""Pareto sets of minimized objectives: fronts, volumes, boxes."""

import numpy as np

SAME = 0.05  # of the extent of every objective: nearer points are one


def front(values: np.ndarray) -> np.ndarray:
  """Return which points no other point dominates; of equal points the first.

  Args:
    values: Minimized objectives, `[n, m]`.

  Returns:
    `[n]`, bool.

  >>> front(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]))
  array([ True,  True, False, False])
  """
  below = np.all(values[:, None] <= values, axis=2)
  strict = np.any(values[:, None] < values, axis=2)
  earlier = np.tri(len(values), k=-1, dtype=bool).T
  return ~np.any(below & (strict | earlier), axis=0)


def boxes(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Partition the non-dominated region below the reference into boxes.

  The region is cut into slabs of the last objective, and each of them
  recursively in the others.

  Args:
    values: Minimized objectives, `[n, m]`.
    reference: The reference point, `[m]`.

  Returns:
    Lower and upper corners, `[boxes, 2, m]`; a lower corner may be -inf.

  >>> boxes(np.array([[1.0, 1.0]]), np.array([2.0, 2.0])).tolist()
  [[[-inf, -inf], [2.0, 1.0]], [[-inf, 1.0], [1.0, 2.0]]]
  """
  m = len(reference)
  values = values[np.all(values < reference, axis=1)]
  if m == 1:
    high = min([*values[:, 0], reference[0]])
    return np.array([[[-np.inf], [high]]])
  values = values[np.argsort(values[:, -1], kind='stable')]
  edges = [-np.inf, *np.unique(values[:, -1]), reference[-1]]
  parts = []
  for low, high in zip(edges, edges[1:], strict=False):
    below = values[values[:, -1] <= low, :-1]
    flat = boxes(below[front(below)], reference[:-1])
    slab = np.broadcast_to([[low], [high]], (len(flat), 2, 1))
    parts.append(np.concatenate([flat, slab], axis=2))
  return np.concatenate(parts)


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
  """Return the volume that some point dominates, up to the reference.

  Args:
    values: Minimized objectives, `[n, m]`.
    reference: `[m]`.

  Returns:
    The volume; 0 if no point is better than the reference in all.

  >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0]))
  3.0
  """
  inside = values[np.all(values < reference, axis=1)]
  if not len(inside):
    return 0.0
  ideal = inside.min(axis=0)
  corners = np.maximum(boxes(inside, reference), ideal)
  missed = np.prod(corners[:, 1] - corners[:, 0], axis=1).sum()
  return float(np.prod(reference - ideal) - missed)


def spread(values: np.ndarray, count: int) -> np.ndarray:
  """Choose points of a front with a large hypervolume, greedily.

  Objectives are brought to one scale, and the reference is a tenth beyond the
  worst of each; a greedy choice has at least 1 - 1/e of the best volume
  (Nemhauser et al. 1978).

  Args:
    values: Minimized objectives of a front, `[n, m]`.
    count: How many, at most; of points nearer than `SAME` only one is chosen.

  Returns:
    Their indices in rising order of the first objective.

  >>> spread(np.array([[1.0, 3.0], [1.1, 2.9], [3.0, 1.0]]), 2)
  array([1, 2])
  """
  low, high = values.min(axis=0), values.max(axis=0)
  scaled = (values - low) / np.maximum(high - low, 1e-12)
  worst = np.full(values.shape[1], 1.1)
  chosen: list[int] = []
  left = [*range(len(values))]
  while left and len(chosen) < count:
    sizes = [hypervolume(scaled[[*chosen, i]], worst) for i in left]
    chosen.append(left[int(np.argmax(sizes))])
    apart = np.abs(scaled - scaled[chosen[-1]]).max(axis=1)
    left = [i for i in left if apart[i] > SAME]
  return np.array(sorted(chosen, key=lambda i: values[i, 0]))
