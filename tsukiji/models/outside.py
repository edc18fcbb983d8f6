"""A network from outside as a `Spec` of one layer."""

import json
from typing import Any

from flax.errors import FlaxError

from tsukiji.models import net as net_lib
from tsukiji.models.spec import Own, Shape, Spec, Standardise


def spec_of(
  kind: str,
  input_shape: Shape,
  classes: int,
  moments: tuple[tuple[float, ...], tuple[float, ...]],
  name: str = 'own',
  **sizes: Any,
) -> Spec:
  """Return a network that takes raw values.

  Args:
    kind: 'package.module:function' of `(input_shape, outputs, **sizes)`.
    input_shape: Of one example.
    classes: Number of outputs.
    moments: Mean and standard deviation of the training data.
    name: For tables and files.
    **sizes: Passed to the function; what JSON can hold.

  Raises:
    ValueError: If it makes no network of these shapes.
  """
  mean, std = moments
  own = Own(name='net', function=kind, outputs=classes, sizes=json.dumps(sizes))
  layers = (Standardise(mean=mean, std=std), own)
  spec = Spec(name=name, input_shape=input_shape, layers=layers)
  try:
    net_lib.variable_shapes(spec)
  except (TypeError, FlaxError) as e:
    raise ValueError(
      f'network {kind}: expected a function of {input_shape}, got {e!s:.160}'
    ) from e
  return spec
