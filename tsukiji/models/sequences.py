"""Image networks for sequences and rows: one or both of the sides are 1.

Windows that reach across a side of 1 would multiply padding, and pools that
fit no side would leave a sequence as long as it is.
"""

import dataclasses

from tsukiji.models.spec import Conv, Layer, Pool, Shape, Spec, map_layers


def squared(shape: Shape) -> Shape:
  """Return the shape with sides of 1 as long as the other side.

  >>> squared((128, 1, 6)), squared((28, 24, 1))
  ((128, 128, 6), (28, 24, 1))
  """
  if 1 not in shape[:2]:
    return shape
  side = max(shape[:2])
  return (side, side, *shape[2:])


def flattened(spec: Spec, shape: Shape) -> Spec:
  """Return a network of a square for inputs of which some sides are 1.

  Args:
    spec: A network for `squared(shape)`.
    shape: `(height, width, channels)`.

  Returns:
    The network with windows and strides of 1 along sides of 1.
  """
  if 1 not in shape[:2]:
    return spec

  def along(sizes: tuple[int, int]) -> tuple[int, int]:
    high, wide = (
      1 if side == 1 else size
      for side, size in zip(shape[:2], sizes, strict=True)
    )
    return high, wide

  def flatten(layer: Layer) -> Layer:
    if isinstance(layer, Conv):
      kernel, strides = along(layer.kernel), along(layer.strides)
      return dataclasses.replace(layer, kernel=kernel, strides=strides)
    if isinstance(layer, Pool):
      window, strides = along(layer.window), along(layer.strides)
      return dataclasses.replace(layer, window=window, strides=strides)
    return layer

  return map_layers(flatten, spec)
