"""Low rank plus sparse: a product, and single weights that correct it."""

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import calibration, kinds, scaling, tree
from compress.dataflow import Observer, Product, rows
from compress.errors import expect_sparsity
from compress.lowrank import factors, rank_selection
from compress.lowrank.decompose import expect_ranks, weight_limits
from compress.method import Ctx, Method, expect_probe
from compress.prune import selection
from compress.prune.masked import Masked
from compress.tree import Array, Compressed, Params, Path

DAMPING = 1e-2  # of the mean square of the inputs, for a unique solution
GROWTH = 4  # steps in which the rank grows
MEASURED = 5  # times as many sweeps in the metric of the inputs
ROWS = 2**12  # used of each part of the calibration data


class Metric(NamedTuple):
  r"""The layer-wise objective that inputs define.

  Attributes:
    target: The weight to approximate, `[inputs, outputs]`.
    root: R of the norm $\|R E\|$ of an error E, `[inputs, inputs]`, upper
      triangular.
  """

  target: Array
  root: Array


# Path, matrix -> the objective of the layer.
Measure: TypeAlias = Callable[[Path, Array], Metric | None]


@struct.dataclass
class Summed(Compressed):
  """A weight that is the sum of a product and of single numbers.

  Attributes:
    low: The product.
    sparse: A weight of which most entries are 0.
  """

  trainable: ClassVar[tuple[str, ...]] = ('low', 'sparse')
  inner: ClassVar[tuple[str, ...]] = ('low', 'sparse')
  kind: ClassVar[str] = kinds.FACTORS

  low: Any
  sparse: Any

  def decode(self) -> Array:
    """Return the sum."""
    # A barrier against fusion, which would round differently.
    low: Array = jax.lax.optimization_barrier(self.low)
    return low + self.sparse

  def scale_channels(self, gain: Array) -> Any:
    """Return the node times `gain`, or None if a part cannot be scaled."""
    parts = {
      f: tree.scaled(x, gain)
      for f, x in (('low', self.low), ('sparse', self.sparse))
    }
    if any(x is None for x in parts.values()):
      return None
    return self.replace(**parts)


def plus_sparse(
  rank: int,
  sparsity: float = 0.95,
  *,
  examples: int = 64,
  sweeps: int = 10,
) -> Method:
  r"""Replace each weight by a product and a sparse rest, $W \approx L + S$.

  $\min_{L, S} \|X W - \hat X (L + S)\|^2$ with rank(L) = r and card(S) fixed
  (Yu+ 2017, CVPR, equation 3), layer by layer: X are the inputs of the layer
  in the trained network, $\hat X$ those behind the layers that are compressed
  already. L grows by a few ranks at a time; each time bilateral sketches and
  hard thresholding alternate (GreBsmo). With `examples=0` the weights
  themselves are approximated, which is a projection, as `lc` needs.

  Args:
    rank: Rank of L, at least 1.
    sparsity: Share of zeros in S, in [0, 1).
    examples: Calibration examples for the inputs; 0 for none.
    sweeps: Alternations at each rank, at least 1.

  Returns:
    The method. L, S and the mask of S are packed; the layer remains one layer,
    since S multiplies as often as the weight.

  Raises:
    ValueError: If an argument is out of range, no weight has the rank, or
      calibration data is required and missing.

  Warns:
    UnchangedWarning: If some weights do not have the rank.
  """
  where = 'lowrank.plus_sparse'
  rank_selection.expect(where, rank)
  expect_sparsity(where, sparsity)
  for what, n, least in (('examples', examples, 0), ('sweeps', sweeps, 1)):
    if type(n) is not int or n < least:
      raise ValueError(f'{where}: expected {what} from {least}, got {n!r}.')

  def split(path: Path, w: Array, measure: Measure | None) -> Summed:
    values, unit = scaling.scaled(w, 2)
    matrix = factors.folded(values, 'channel')
    found = rank_selection.resolve(rank, matrix)
    metric = measure(path, matrix) if measure else None
    target, root = (matrix, None) if metric is None else metric
    zeros = round(sparsity * w.size)
    low, rest = alternated(target, root, found, zeros, sweeps)
    kept = selection.keep_highest(jnp.abs(rest), zeros).reshape(w.shape)
    u, v = ((x * unit).astype(w.dtype) for x in low)
    sparse = (rest * unit * unit).astype(w.dtype).reshape(w.shape)
    node = factors.unfolded(u, v, w.shape, 'channel')
    return Summed(node, Masked(sparse, kept))

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.FACTORS, params)
    limits = weight_limits(where, _full_rank, params)
    fitting = expect_ranks(where, limits, dict.fromkeys(limits, rank))
    weights: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)
    if not examples:
      return _put(params, {p: split(p, weights[p], None) for p in fitting})
    done = params
    for path in calibration.order(where, ctx, params):
      if path in fitting:
        measure = functools.partial(
          _metric, where, ctx, (params, done), examples
        )
        done = _put(done, {path: split(path, weights[path], measure)})
    return done

  return Method(init)


def _full_rank(shape: tuple[int, ...]) -> tuple[int, ...]:
  return (min(factors.folded_shape(shape, 'channel')),)


@functools.partial(jax.jit, static_argnames=('rank', 'zeros', 'sweeps'))
def alternated(
  target: Array, root: Array | None, rank: int, zeros: int, sweeps: int
) -> tuple[tuple[Array, Array], Array]:
  r"""Return L and S of least $\|R (T - L - S)\|$ by greedy bilateral sketches.

  At each rank, U becomes the orthonormal basis of $A V^T$ and V $U^T A$ with
  $A = R (T - S)$, and S what is left of a step down the error once all but its
  largest entries are 0 (Zhou & Tao 2013, AISTATS, algorithm 1). The metric of
  the inputs comes last, from where the plain one ended.

  Args:
    target: T, `[rows, columns]`.
    root: R, `[rows, rows]`, upper triangular; None for the identity.
    rank: Of L.
    zeros: Of S.
    sweeps: At each rank.

  Returns:
    `((u, v), s)`: L = u v, and S before its mask, which keeps the largest.
  """
  rest, v = jnp.zeros_like(target), jnp.zeros((0, target.shape[1]))
  u = jnp.zeros((len(target), 0))
  for size in _growing(rank):
    wrong = target - _largest(rest, zeros) - u @ v
    worst = jnp.argsort(-jnp.linalg.norm(wrong, axis=1))[: size - len(v)]
    v = jnp.concatenate([v, wrong[worst]])
    u, v, rest = _swept(target, None, v, rest, zeros, sweeps)
  if root is not None:
    u, v, rest = _swept(target, root, v, rest, zeros, MEASURED * sweeps)
  return _balanced(u, v), rest


def _swept(
  target: Array,
  root: Array | None,
  v: Array,
  rest: Array,
  zeros: int,
  sweeps: int,
) -> tuple[Array, Array, Array]:
  """Alternate between the product and the sparse rest at one rank."""
  if root is None:
    root = gram = jnp.eye(len(target))
  else:
    gram = root.T @ root
  # Its diagonal bounds the quadratic form from above (Gershgorin).
  step = 1 / jnp.sum(jnp.abs(gram), axis=1, keepdims=True)

  def sweep(_: Any, carry: tuple[Array, Array, Array]) -> Any:
    _, v, rest = carry
    kept = _largest(rest, zeros)
    sketched = root @ (target - kept)
    basis, _ = jnp.linalg.qr(sketched @ v.T)
    v = basis.T @ sketched
    u = jax.scipy.linalg.solve_triangular(root, basis)
    return u, v, kept + step * (gram @ (target - u @ v - kept))

  start = (jnp.zeros((len(target), len(v))), v, rest)
  swept: tuple[Array, Array, Array] = jax.lax.fori_loop(0, sweeps, sweep, start)
  return swept


def _growing(rank: int) -> list[int]:
  """Return the ranks of each step up to the last one."""
  tries = (math.ceil(rank * (i + 1) / GROWTH) for i in range(GROWTH))
  return list(dict.fromkeys(tries))


def _largest(x: Array, zeros: int) -> Array:
  """Return an array with its least entries 0."""
  return jnp.where(selection.keep_highest(jnp.abs(x), zeros), x, 0)


def _balanced(u: Array, v: Array) -> tuple[Array, Array]:
  """Return a product whose factors have equal norms, term by term."""
  one, other = jnp.linalg.norm(u, axis=0), jnp.linalg.norm(v, axis=1)
  both = (one > 0) & (other > 0)
  gain = jnp.sqrt(jnp.where(both, other, 1) / jnp.where(both, one, 1))
  return u * gain, v / gain[:, None]


def _metric(
  where: str,
  ctx: Ctx,
  networks: tuple[Params, Params],
  count: int,
  path: Path,
  matrix: Array,
) -> Metric | None:
  """Return the objective of a layer; None for grouped convolutions.

  Its target is the weight with which the inputs of the compressed network give
  what those of the trained one give with the matrix.
  """
  x, given = (_rows(where, path, ctx, params, count) for params in networks)
  if x is None or given is None:
    return None
  # Inputs that overflow say nothing, as those that are 0.
  known = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(given))
  given, unit = scaling.scaled(jnp.where(known, given, 0))
  x = jnp.where(known, x, 0) / unit
  gram = given.T @ given / len(given)
  mean = jnp.mean(jnp.diagonal(gram))
  damping = jnp.where(mean > 0, DAMPING * mean, 1)
  gram += damping * jnp.eye(len(gram))
  right = given.T @ (x @ matrix) / len(given) + damping * matrix
  root = jnp.linalg.cholesky(gram).T
  return Metric(jax.scipy.linalg.cho_solve((root, False), right), root)


def _rows(
  where: str, path: Path, ctx: Ctx, params: Params, count: int
) -> Array | None:
  """Return some of the rows that a weight multiplies, `[rows, inputs]`."""
  probe = expect_probe(where, ctx)
  assert probe.observe is not None  # `calibration.order` has called it

  def observe(product: Product, x: Array) -> Array | None:
    if product.view.path != path:
      return None
    found = rows(product, x)
    return found[:, :: -(-found.shape[1] // ROWS)]

  observer = Observer(observe, lambda before, after: before, _along)
  found = probe.observe(params, observer, count).get(path)
  if found is None or found.shape[1] > 1:
    return None
  flat: Array = found.reshape(-1, found.shape[-1])
  return flat.astype(jnp.promote_types(flat.dtype, jnp.float32))


def _along(x: Array, own: bool) -> Array:
  """Return the rows of a loop; those of weights of their own are groups."""
  return x.reshape(-1, *x.shape[2:]) if own else x[0]


def _put(params: Params, nodes: dict[Path, Any]) -> Params:
  return tree.map_arrays(lambda path, w: nodes.get(path, w), params)
