"""How the parameters of any function are used, and as which matrix or kernel.

Methods see a weight as Flax writes it: `[*window, inputs, outputs]`, with the
outputs of one group after those of another. `Site` says how an array of any
other layout becomes that.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from compress import tree
from compress.dataflow import interpreter, rules
from compress.dataflow.interpreter import Multiply, Operation, Product, Record
from compress.dataflow.views import View
from compress.tree import Array, Params, Path

KINDS = ('conv', 'dot', 'gather', 'elementwise')


class Site(NamedTuple):
  """How a parameter is used.

  Attributes:
    kind: One of `KINDS`; the first product counts where there are several
      uses.
    inputs: Axes that are summed over: of a convolution the window, then the
      input channels.
    outputs: Axes that give outputs.
    stacked: Axes of independent weights, as of layers under `nn.scan`.
    shape: As methods see it; that of the parameter unless it is a weight.
    groups: Of a convolution, times the number of stacked weights.
    uses: How often each number is multiplied for one example; 0 where it is in
      no product.
    unknown: Why its inputs cannot be changed, '' if they can.
  """

  kind: str
  inputs: tuple[int, ...] = ()
  outputs: tuple[int, ...] = ()
  stacked: tuple[int, ...] = ()
  shape: tuple[int, ...] = ()
  groups: int = 1
  uses: int = 0
  unknown: str = ''

  @property
  def is_weight(self) -> bool:
    """Whether methods compress it: in a product or a lookup."""
    return self.kind in ('conv', 'dot', 'gather')

  @property
  def order(self) -> tuple[int, ...]:
    """The axes of the parameter in the order of `shape`."""
    return (*self.inputs, *self.stacked, *self.outputs)


class _Use(NamedTuple):
  """One product of a parameter."""

  site: Site
  macs: int


def sites(
  apply: Callable[..., Any], params: Params, *inputs: Any
) -> dict[Path, Site]:
  """Return how each parameter of a function is used.

  Args:
    apply: `(params, *inputs)` -> anything; of any framework. Only traced.
    params: Arrays or nodes.
    *inputs: Trees of arrays or of their shapes; the first axis of the first
      array is that of the examples.

  Returns:
    By path, the products in their order, then all other uses.

  >>> import jax.numpy as jnp
  >>> params = {'w': jnp.ones((2, 3)), 'b': jnp.ones(2)}
  >>> dense = lambda params, x: x @ params['w'].T + params['b']
  >>> found = sites(dense, params, jnp.ones((5, 3)))
  >>> found['w'].inputs, found['w'].outputs, found['w'].shape, found['b'].kind
  ((1,), (0,), (3, 2), 'elementwise')
  """
  shapes = jax.eval_shape(tree.decode, params)
  flat = tree.paths(shapes)
  products: dict[Any, _Use] = {}  # by equation: bodies may be traced twice
  others: dict[Path, list[str]] = {}
  unknown: dict[Path, str] = {}

  def product(
    found: Product, x: Array, multiply: Multiply
  ) -> tuple[Array, Record]:
    y = multiply(x)
    products[found.view.path, id(found.eqn)] = _use(found)
    return y, {}

  def other(found: Operation, y: Any) -> tuple[Any, Record]:
    others.setdefault(found.view.path, []).append(found.name)
    return y, {}

  def cannot(view: View, why: str) -> None:
    unknown.setdefault(view.path, why)

  def run(flat: dict[Path, Array], *inputs: Any) -> Any:
    hook = interpreter.Hook(product, other, unknown=cannot)
    return rules.run(
      lambda flat, *inputs: apply(
        tree.map_paths(lambda path, x: flat[path], shapes), *inputs
      ),
      flat,
      inputs,
      hook,
    )[0]

  jax.eval_shape(run, flat, *inputs)
  leaves = jax.tree.leaves(inputs)
  examples = leaves[0].shape[0] if leaves and leaves[0].shape else 1
  return _joined(products, others, unknown, flat, max(1, examples))


def _joined(
  products: Mapping[Any, _Use],
  others: dict[Path, list[str]],
  unknown: dict[Path, str],
  shapes: dict[Path, Any],
  examples: int,
) -> dict[Path, Site]:
  """Return one site for each parameter."""
  found: dict[Path, Site] = {}
  for (path, _), (site, macs) in products.items():
    count = -(-macs // max(1, math.prod(shapes[path].shape) * examples))
    first = found.get(path, site)
    agrees = first.inputs == site.inputs and first.kind == site.kind
    why = first.unknown or site.unknown
    why = why or ('' if agrees else 'it is used along different axes')
    found[path] = first._replace(uses=first.uses + count, unknown=why)
  for path, names in others.items():
    if path not in found:
      kind = 'gather' if 'gather' in names else 'elementwise'
      found[path] = Site(kind, shape=shapes[path].shape)
  for path, why in unknown.items():
    site = found.get(path, Site('elementwise', shape=shapes[path].shape))
    found[path] = site._replace(unknown=site.unknown or why)
  return found


def _use(product: Product) -> _Use:
  """Return the axes of a parameter in a product and the multiplications."""
  view, eqn, side = product.view, product.eqn, product.side
  loops = math.prod(n or 1 for n in product.loops)
  if eqn.primitive.name == 'dot_general':
    contracted, batched = eqn.params['dimension_numbers']
    summed, others = contracted[side], (*contracted[side], *batched[side])
    free = [i for i in range(eqn.invars[side].aval.ndim) if i not in others]
    rows = _free_size(eqn, 1 - side)
    site = _site('dot', view, view.along(summed), view.along(free))
    return _Use(site, rows * product.size * loops)
  out, _, *sides = eqn.params['dimension_numbers'].out_spec
  shape = eqn.outvars[0].aval.shape
  positions = math.prod(shape[i] for i in (out, *sides))
  positions //= math.prod(eqn.params['lhs_dilation'])
  site = _convolved(view, eqn)
  if side == 0 or eqn.params['batch_group_count'] > 1:
    site = site._replace(unknown='it is convolved over as an input')
  return _Use(site, positions * product.size * loops)


def _free_size(eqn: Any, side: int) -> int:
  """Return the size of an operand along axes of its own."""
  contracted, batched = eqn.params['dimension_numbers']
  shape = eqn.invars[side].aval.shape
  others = (*contracted[side], *batched[side])
  return math.prod(n for i, n in enumerate(shape) if i not in others)


def _convolved(view: View, eqn: Any) -> Site:
  """Return the site of the kernel of a convolution."""
  outputs, channels, *window = eqn.params['dimension_numbers'].rhs_spec
  return _site(
    'conv',
    view,
    (*view.along(window), *view.along((channels,))),
    view.along((outputs,)),
    eqn.params['feature_group_count'],
    tuple(_size(view, i) for i in (*window, channels)),
  )


def _size(view: View, axis: int) -> int:
  """Return the size of a parameter along an axis of the value."""
  return math.prod(view.shape[i] for i in view.axes[axis])


def _site(
  kind: str,
  view: View,
  inputs: tuple[int, ...],
  outputs: tuple[int, ...],
  groups: int = 1,
  window: tuple[int, ...] | None = None,
) -> Site:
  """Return the site of one product."""
  used = {*inputs, *outputs}
  stacked = tuple(i for i in range(len(view.shape)) if i not in used)
  count = math.prod(view.shape[i] for i in stacked)
  wide = math.prod(view.shape[i] for i in outputs)
  first = window or (math.prod(view.shape[i] for i in inputs),)
  mixed = {*inputs} & {*outputs}
  unknown = 'one axis holds both inputs and outputs' if mixed else ''
  shape = (*first, count * wide)
  return Site(
    kind, inputs, outputs, stacked, shape, groups * count, unknown=unknown
  )
