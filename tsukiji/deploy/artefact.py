"""Packed networks as functions of images."""

import dataclasses
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from compress import dataflow as grids
from compress import tree
from tsukiji import atomic
from tsukiji.deploy.integer import binary_layers
from tsukiji.deploy.passes.lower import captured
from tsukiji.deploy.tsk import graph_limits, header, limits, pack
from tsukiji.deploy.tsk.limits import Sizes
from tsukiji.deploy.tsk.pack import Packed
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Input

Images: TypeAlias = np.ndarray | jax.Array  # [batch, height, width, channels]


@dataclasses.dataclass(frozen=True)
class Artefact:
  """A network ready to run.

  Attributes:
    network: Its operations.
    variables: `{'params': ...}` by path, with frozen nodes.
    meta: The metadata in the file.
    bytes: Size of the file, 0 without one.
    run: Inputs to outputs; compiled once for each batch size.
    weight_bytes: Size of the decoded weights.
    example_bytes: Upper bound of the activations of one example. A call takes
      at most about 8 times `weight_bytes`, to compile, and `example_bytes` for
      each example.
  """

  network: Graph
  variables: dict[str, Any]
  meta: dict[str, Any]
  bytes: int
  run: Callable[..., Any] = dataclasses.field(repr=False)
  weight_bytes: int = 0
  example_bytes: int = 0

  @property
  def name(self) -> str:
    """Name of the network."""
    return str(self.meta.get('network', 'network'))

  @property
  def inputs(self) -> tuple[Input, ...]:
    """Shapes of one example, and types."""
    return self.network.inputs

  def __call__(self, *images: Images) -> Any:
    """Return the outputs of a batch.

    Args:
      *images: `[batch, *shape]` for each of `inputs`: raw values, real or
        integer where floats are expected.

    Returns:
      The outputs: logits `[batch, classes]` float32 of networks of the zoo.

    Raises:
      ValueError: If the images have another shape or dtype.
    """
    if len(images) != len(self.inputs):
      raise ValueError(
        f'artefact {self.name}: expected {len(self.inputs)} inputs, got '
        f'{len(images)}. Give arrays of {[x.shape for x in self.inputs]}.'
      )
    given = [
      _checked(self.name, x, want)
      for x, want in zip(images, self.inputs, strict=True)
    ]
    if len(given[0]) == 0:
      some = [jnp.zeros((1, *x.shape[1:]), x.dtype) for x in given]
      return jax.tree.map(lambda y: y[:0], self.run(*some))
    return self.run(*given)


def _checked(name: str, x: Images, want: Input) -> jax.Array:
  """Return an input in its type; raise unless it is an array that fits."""
  shape: tuple[Any, ...] = getattr(x, 'shape', ())
  dtype = getattr(x, 'dtype', None)
  floats = jnp.issubdtype(want.dtype, jnp.floating)
  kinds = (jnp.floating, jnp.integer) if floats else (jnp.integer, jnp.bool_)
  real = dtype is not None and any(jnp.issubdtype(dtype, k) for k in kinds)
  wanted = ('batch', *want.shape)
  if not real or len(shape) != len(wanted) or shape[1:] != want.shape:
    numbers = 'real numbers' if floats else 'integers'
    raise ValueError(
      f'artefact {name}: expected images [{_listed(wanted)}] of {numbers}, got '
      f'{type(x).__name__} [{_listed(shape)}] of {dtype}. Give raw values with '
      'the batch first.'
    )
  return jnp.asarray(x, want.dtype)


def save(path: str | os.PathLike[str], blob: bytes) -> None:
  """Write a file atomically.

  Args:
    path: The file; missing folders are created.
    blob: The packed network (`pack.pack`).

  Raises:
    ValueError: If the file cannot be written.
  """
  path = Path(path)
  try:
    with atomic.replacing(path) as file:
      file.write(blob)
  except OSError as e:
    raise ValueError(
      f'artefact {path}: expected a place to write to, got {e.strerror}. '
      'Choose another path.'
    ) from e


def read(path: str | os.PathLike[str]) -> bytes:
  """Return the bytes of a packed file.

  Args:
    path: The file.

  Returns:
    Its bytes, no more than its header allows.

  Raises:
    ValueError: If there is no such file, or it cannot be read.
  """
  path = Path(path)
  if not path.is_file():
    raise ValueError(
      f'artefact: expected a file, got {str(path)!r}. Check the path.'
    )
  try:
    with path.open('rb') as file:
      begin = file.read(header.BEGIN)
      most = header.longest(begin)
      size = os.fstat(file.fileno()).st_size
      header.check(size <= most, f'a file of at most {most} bytes', size)
      return begin + file.read(most)
  except OSError as e:
    raise ValueError(
      f'artefact {path}: expected a readable file, got {e.strerror}. Check '
      'its permissions.'
    ) from e


def load(path: str | os.PathLike[str]) -> Artefact:
  """Load a packed network.

  Args:
    path: A file written by `save`. It need not be trusted.

  Returns:
    The network, a function of images.

  Raises:
    ValueError: If there is no such file, or it is damaged, foreign, or of
      another version.
  """
  path = Path(path)
  try:
    blob = read(path)
    packed, sizes, example = pack.unpack_sized(blob)
    graph, variables, meta = _graph(packed, sizes)
  except ValueError as e:
    raise ValueError(f'{path}: {e}') from e
  run = forward(graph, variables)
  size = len(blob)
  return Artefact(graph, variables, meta, size, run, sizes.weights, example)


def of(graph: Graph, variables: dict[str, Any]) -> Artefact:
  """Return a lowered network as an `Artefact` without a file.

  Args:
    graph: The network (`lower`).
    variables: `{'params': ...}` by path, with frozen nodes.

  Returns:
    The network, a function of images.
  """
  return Artefact(graph, variables, {}, 0, forward(graph, variables))


def forward(
  graph: Graph, variables: dict[str, Any], counted: Collection[str] = ()
) -> Callable[..., Any]:
  """Return a network as a jitted function whose weights are constants.

  The weights are decoded once, in this call. The result can be compiled ahead
  of time: `forward(...).lower(shape).compile()`.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.
    counted: Names of the binary layers to compute with popcounts
      (`binary_layers.layers`); all others are computed in float32.

  Returns:
    Inputs to outputs.

  Raises:
    ValueError: If a layer in `counted` is not binary.
  """
  if counted:
    return binary_layers.forward(graph, variables, counted)
  dense = tree.decode(variables['params'])
  nodes = grids.transforming(variables['params'])

  def network(dense: Any, *inputs: jax.Array) -> Any:
    return evaluate.run(graph, dense, *inputs)

  @jax.jit
  def run(*inputs: jax.Array) -> Any:
    return grids.transformed(network, dense, inputs, nodes)

  return run


def _graph(
  packed: Packed, sizes: Sizes
) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
  """Return the graph of a file, also of the formats that list layers."""
  network, variables = packed.network, packed.variables
  if isinstance(network, Graph):
    return network, variables, packed.meta
  odd = sorted(limits.weight_shapes(network).items() ^ sizes.shapes.items())
  header.check(
    not odd, 'weights that the network takes, and no others', odd[:1]
  )
  try:
    graph, weights = captured(network, variables)
    shapes = evaluate.abstract(jax.eval_shape(tree.decode, weights))
    evaluate.shapes(graph, shapes, evaluate.inputs_of(graph), 1)
  except Exception as e:  # whatever ill-matched weights make a network raise
    raise header.damaged('weights that the network takes', repr(e)) from e
  graph_limits.check_inputs(graph, weights)
  return graph, {'params': weights}, {'network': packed.name, **packed.meta}


def _listed(shape: tuple[Any, ...]) -> str:
  return ', '.join(map(str, shape))
