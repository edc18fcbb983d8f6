"""Files of any JAX function, which load without its code."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.narrow import narrowed
from tsukiji.deploy.passes.round_floats import rounded
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture


def save(
  path: str | os.PathLike[str],
  apply: Callable[..., Any],
  params: Any,
  inputs: Any,
  classes: Sequence[str] | None = None,
  float_bits: int | None = None,
) -> int:
  """Write a network as one file, its operations with its weights.

  Args:
    path: The file, `NAME.tsk`; missing folders are created.
    apply: `(params, *inputs)` -> outputs, in evaluation mode: any JAX function
      of Flax, Equinox, Haiku or none.
    params: Arrays and nodes; nodes are frozen here, and channels that a
      method removed are left out.
    inputs: An array or a tuple of arrays, examples first, or their shapes.
    classes: Names of the outputs, to be stored.
    float_bits: Significant bits of scales, biases and other floats, 1 to 24,
      as 8 for those of bfloat16; None leaves the numbers as they are.

  Returns:
    Bytes of the file.

  Raises:
    ValueError: If an operation or a weight cannot be stored; the message says
      where it is. If floats have no such bits.
  """
  given = inputs if type(inputs) is tuple else (inputs,)
  graph, weights = narrowed(capture(apply, params, *given), params)
  weights = weights if float_bits is None else rounded(weights, float_bits)
  meta = {} if classes is None else {'classes': [*map(str, classes)]}
  blob = pack.pack(graph, {'params': weights}, meta)
  artefact.save(path, blob)
  return len(blob)


def load(path: str | os.PathLike[str]) -> Artefact:
  """Load a packed network, which need not be trusted.

  Args:
    path: A file of `save` or of a run of `main.py`.

  Returns:
    The network: a function of its inputs.

  Raises:
    ValueError: If there is no such file, or it is damaged, foreign, or of
      another version.
  """
  return artefact.load(path)
