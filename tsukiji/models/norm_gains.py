"""Gains of the norms behind weights, for quantization grids."""

import itertools
from collections.abc import Iterator
from typing import Any

from compress import tree
from compress.tree import Array, Path
from tsukiji.models import norm as norms
from tsukiji.models.spec import Branch, Conv, Dense, Layer, Norm, Spec


def gains(spec: Spec, variables: dict[str, Any]) -> dict[Path, Array]:
  r"""Return the gain of the norm right behind each weight that has one.

  Those are the weights that `lower` folds norms into.

  Args:
    spec: The network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    $\gamma / \sqrt{v + \epsilon}$ `[channels]`, by the path of the weight; v is
    the running variance.
  """
  params, stats = variables['params'], variables['batch_stats']
  found = {}
  for layer, norm in _followed(spec.layers):
    scale = tree.decode(params[norm.name]['scale'])
    gain = norms.gain(norm, scale, stats[norm.name]['var'])
    found[f'{layer.name}/kernel'] = gain
  return found


def _followed(layers: tuple[Layer, ...]) -> Iterator[tuple[Conv | Dense, Norm]]:
  """Yield layers with weights and the norms right behind them."""
  for one, other in itertools.pairwise((*layers, None)):
    if isinstance(one, Conv | Dense) and isinstance(other, Norm):
      yield one, other
    if isinstance(one, Branch):
      for path in one.paths:
        yield from _followed(path)
