"""Biases corrected for the shift of mean outputs that a method causes."""

import jax.numpy as jnp

from compress import calibration, tree
from compress.method import Ctx, Method
from compress.tree import Array, Params, Path


def bias_correction(method: Method, *, examples: int = 256) -> Method:
  r"""Correct biases for the shift of mean outputs that a method causes.

  Layer by layer, $b \leftarrow b + W E[x] - \hat W E[\hat x]$, where W and x
  are the weights and inputs of the network before the method, $\hat W$ and
  $\hat x$ those after it, on calibration data (Nagel+ 2019, arXiv 1906.04721,
  section 4.2 and appendix D). Layers without a bias are not changed;
  recalibrate the norms behind them.

  Args:
    method: A method that shifts the means, as `quantize.uniform(4)`.
    examples: Number of calibration examples.

  Returns:
    The method, with biases corrected in `init`.

  Raises:
    ValueError: If there is no calibration data, or no layer has a bias.
  """
  where = 'quantize.bias_correction'
  if not isinstance(method, Method) or type(examples) is not int:
    raise ValueError(
      f'{where}: expected a method and a number of examples, as '
      f'{where}(quantize.uniform(4)), got {method!r} and {examples!r}.'
    )
  if examples < 1:
    raise ValueError(f'{where}: expected examples from 1, got {examples!r}.')

  def init(params: Params, ctx: Ctx) -> Params:
    nodes = method.init(params, ctx)
    corrected = tuple(
      path
      for path in calibration.order(where, ctx, params)
      if path in tree.paths(nodes) and _bias(path) in tree.paths(nodes)
    )
    if not corrected:
      raise ValueError(
        f'{where}: expected layers with a bias, got none among '
        f'{", ".join(tree.paths(nodes))}. Recalibrate the norms instead.'
      )
    before = calibration.moments(where, ctx, params, examples, corrected)
    for path in corrected:
      after = calibration.moments(where, ctx, nodes, examples, (path,))[path]
      w, coarse = (tree.decode(tree.paths(x)[path]) for x in (params, nodes))
      shift = _mean(w, before[path]) - _mean(coarse, after)
      nodes = _add(nodes, _bias(path), shift)
    return nodes

  return method._replace(init=init)


def _bias(path: Path) -> Path:
  return f'{path.rpartition("/")[0]}/bias'


def _mean(w: Array, found: calibration.Moments) -> Array:
  """Return the mean outputs of a layer without its bias, `[channels]`."""
  mean = found.total / found.number
  groups, n = mean.shape
  return jnp.einsum('gn,ngm->gm', mean, w.reshape(n, groups, -1)).reshape(-1)


def _add(params: Params, path: Path, shift: Array) -> Params:
  return tree.map_paths(
    lambda p, x: (x + shift).astype(x.dtype) if p == path else x, params
  )
