"""Low rank plus sparse: what factors miss, single weights make up for."""

import math
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from compress import calibration, tree
from compress.lowrank import factors, rank_selection
from compress.lowrank.decompose import refuse_structure
from compress.method import Ctx, Method, expect_probe
from compress.prune import masked
from compress.prune.masked import Masked, expect_sparsity
from compress.tree import Array, Compressed, Key, Params, Path

DAMPING = 1e-2  # of the inputs' mean square, so that any weight has a solution
GROWTH = 4  # times at which the rank is raised
MEASURED = 5  # times as many sweeps in the metric of the inputs
ROWS = 2**12  # that are looked at in each part of the calibration data


class Metric(NamedTuple):
  """What the inputs of a layer ask of its weight.

  Attributes:
    target: The weight to be near to, `[inputs, outputs]`.
    root: What errors are measured by, `[inputs, inputs]`, upper triangular.
  """

  target: Array
  root: Array


@struct.dataclass
class Summed(Compressed):
  """A weight as a product and single numbers beside it.

  Attributes:
    low: The product.
    sparse: A weight most of which is 0.
  """

  trainable: ClassVar[tuple[str, ...]] = ('low', 'sparse')
  inner: ClassVar[tuple[str, ...]] = ('low', 'sparse')

  low: Any
  sparse: Any

  def decode(self, key: Key | None) -> Array:
    """Return the sum."""
    del key
    # Kept from becoming one operation, which would round in another way.
    low: Array = jax.lax.optimization_barrier(self.low)
    return low + self.sparse

  def scale_channels(self, gain: Array) -> Any:
    """Return the node times `gain`, if both parts can be."""
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
  (Yu+ 2017, CVPR, equation 3): layer by layer, X what the layer takes in
  in the trained network and $\hat X$ what it does behind the layers that are
  compressed already. L grows by a few ranks at a time, each time bilateral
  sketches and hard thresholding alternate (GreBsmo). With `examples=0` the
  weights themselves are approximated: a projection, which `lc` takes.

  Args:
    rank: Of L, from 1.
    sparsity: Share of zeros in S, in [0, 1).
    examples: Calibration examples whose inputs count; 0 for none.
    sweeps: Alternations at each rank, from 1.

  Returns:
    The method. L, S and the mask of S are packed; the layer stays one, since
    S alone multiplies as much.

  Raises:
    ValueError: If an argument is impossible, a rank is more than a weight has,
      or calibration data is wanted and missing.
  """
  where = 'lowrank.plus_sparse'
  rank_selection.expect(where, rank)
  expect_sparsity(where, sparsity)
  for what, n, least in (('examples', examples, 0), ('sweeps', sweeps, 1)):
    if type(n) is not int or n < least:
      raise ValueError(f'{where}: expected {what} from {least}, got {n!r}.')

  def split(path: Path, w: Array, found: Metric | None) -> Summed:
    matrix = factors.folded(w, 'channel')
    rows, columns = matrix.shape
    top = rank_selection.resolve(where, path, rank, (rows, columns), matrix)
    zeros = round(sparsity * w.size)
    target, root = (matrix, None) if found is None else found
    low, rest = alternated(target, root, top, zeros, sweeps)
    kept = masked.keep_highest(jnp.abs(rest), zeros).reshape(w.shape)
    node = factors.unfolded(*low, w.shape, 'channel')
    return Summed(node, Masked(rest.reshape(w.shape), kept))

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_structure(where, params)
    if not examples:
      return tree.map_arrays(lambda path, w: split(path, w, None), params)
    weights: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)
    done = params
    for path in calibration.order(where, ctx, params):
      if path in weights:
        w = weights[path]
        node = split(
          path, w, _metric(where, path, w, ctx, (params, done), examples)
        )
        done = _put(done, path, node)
    return done

  return Method(init)


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
    `((u, v), s)`: L = u v, and S before its mask, which keeps what is largest.
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
  """Alternate between the product and the rest at one rank."""
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
  """Return the ranks on the way to one."""
  tries = (math.ceil(rank * (i + 1) / GROWTH) for i in range(GROWTH))
  return list(dict.fromkeys(tries))


def _largest(x: Array, zeros: int) -> Array:
  """Return an array with its least entries 0."""
  return jnp.where(masked.keep_highest(jnp.abs(x), zeros), x, 0)


def _balanced(u: Array, v: Array) -> tuple[Array, Array]:
  """Return a product with factors that are equally large, term by term."""
  tiny = jnp.finfo(u.dtype).tiny
  one = jnp.maximum(jnp.linalg.norm(u, axis=0), tiny)
  other = jnp.maximum(jnp.linalg.norm(v, axis=1), tiny)
  gain = jnp.sqrt(other / one)
  return u * gain, v / gain[:, None]


def _metric(
  where: str,
  path: Path,
  w: Array,
  ctx: Ctx,
  networks: tuple[Params, Params],
  count: int,
) -> Metric | None:
  """Return what the inputs ask of a layer; None for grouped convolutions.

  Its target is the weight that makes of the compressed network's inputs what
  the layer makes of those of the trained one.
  """
  x, given = (_rows(where, path, ctx, params, count) for params in networks)
  if x is None or given is None:
    return None
  gram = given.T @ given / len(given)
  damping = DAMPING * jnp.mean(jnp.diagonal(gram)) + jnp.finfo(w.dtype).tiny
  gram += damping * jnp.eye(len(gram))
  matrix = factors.folded(w, 'channel')
  right = given.T @ (x @ matrix) / len(given) + damping * matrix
  root = jnp.linalg.cholesky(gram).T
  return Metric(jax.scipy.linalg.cho_solve((root, False), right), root)


def _rows(
  where: str, path: Path, ctx: Ctx, params: Params, count: int
) -> Array | None:
  """Return some of the rows that a weight multiplies, `[rows, inputs]`."""
  probe = expect_probe(where, ctx)
  assert probe.inputs is not None  # `seen.order` has asked it

  def see(before: Any, module: nn.Module, x: Array) -> Array | None:
    if '/'.join(module.path) != path.rpartition('/')[0] or before is not None:
      return before
    found = calibration.rows(module, x)
    return found[:, :: -(-found.shape[1] // ROWS)]

  found = probe.inputs(params, see, count)[path]
  if found is None or found.shape[1] > 1:
    return None
  flat: Array = found.reshape(-1, found.shape[-1])
  return flat


def _put(params: Params, path: Path, node: Any) -> Params:
  return tree.map_arrays(lambda p, w: node if p == path else w, params)
