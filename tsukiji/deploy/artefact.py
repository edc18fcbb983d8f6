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
from tsukiji import atomic
from tsukiji.deploy.decoding import decoded
from tsukiji.deploy.integer import binary_layers
from tsukiji.deploy.tsk import header, limits, pack
from tsukiji.deploy.tsk.limits import Sizes
from tsukiji.deploy.tsk.pack import Packed
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec

Images: TypeAlias = np.ndarray | jax.Array  # [batch, height, width, channels]


@dataclasses.dataclass(frozen=True)
class Artefact:
  """A network ready to run.

  Attributes:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}` with frozen nodes.
    meta: The metadata in the file.
    bytes: Size of the file, 0 without one.
    run: Float32 images to logits; compiled once for each batch size.
    weight_bytes: Size of the decoded weights.
    example_bytes: Upper bound of the activations of one example. A call takes
      at most about 8 times `weight_bytes`, to compile, and `example_bytes` for
      each example.
  """

  spec: Spec
  variables: dict[str, Any]
  meta: dict[str, Any]
  bytes: int
  run: Callable[[jax.Array], jax.Array] = dataclasses.field(repr=False)
  weight_bytes: int = 0
  example_bytes: int = 0

  def __call__(self, images: Images) -> jax.Array:
    """Return the outputs of a batch.

    Args:
      images: `[batch, *spec.input_shape]`, raw values, real or integer.

    Returns:
      Logits, `[batch, *spec.output_shape]` float32.

    Raises:
      ValueError: If the images have another shape or dtype.
    """
    wanted = ('batch', *self.spec.input_shape)
    shape: tuple[Any, ...] = getattr(images, 'shape', ())
    dtype = getattr(images, 'dtype', None)
    real = dtype is not None and any(
      jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)
    )
    if not real or len(shape) != len(wanted) or shape[1:] != wanted[1:]:
      raise ValueError(
        f'artefact {self.spec.name}: expected images [{_listed(wanted)}] of '
        f'real numbers, got {type(images).__name__} [{_listed(shape)}] of '
        f'{dtype}. Give raw values with the batch first.'
      )
    if shape[0] == 0:
      return jnp.zeros((0, *sp.output_shape(self.spec)))
    return self.run(jnp.asarray(images, jnp.float32))


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
    run = _ready(packed, sizes)
  except ValueError as e:
    raise ValueError(f'{path}: {e}') from e
  return Artefact(*packed, len(blob), run, sizes.weights, example)


def of(spec: Spec, variables: dict[str, Any]) -> Artefact:
  """Return a lowered network as an `Artefact` without a file.

  Args:
    spec: The network (`lower`).
    variables: `{'params': ..., 'batch_stats': ...}` with frozen nodes.

  Returns:
    The network, a function of images.
  """
  return Artefact(spec, variables, {}, 0, forward(spec, variables))


def forward(
  spec: Spec, variables: dict[str, Any], counted: Collection[str] = ()
) -> Callable[[jax.Array], jax.Array]:
  """Return a network as a jitted function whose weights are constants.

  The weights are decoded once, in this call. The result can be compiled ahead
  of time: `forward(...).lower(shape).compile()`.

  Args:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.
    counted: Names of the binary layers to compute with popcounts
      (`binary_layers.layers`); all others are computed in float32.

  Returns:
    `[batch, *spec.input_shape]` images to float32 logits.

  Raises:
    ValueError: If a layer in `counted` is not binary.
  """
  if counted:
    return binary_layers.forward(spec, variables, counted)
  apply: Any = Net(spec).apply
  params = variables['params']
  dense = {**variables, 'params': decoded(params)}

  @jax.jit
  def run(images: jax.Array) -> jax.Array:
    return grids.apply(lambda: apply(dense, images), params)[0]

  return run


def _ready(packed: Packed, sizes: Sizes) -> Callable[[jax.Array], jax.Array]:
  """Check that the weights match the network and return `forward`."""
  spec, want = packed.spec, limits.weight_shapes(packed.spec)
  odd = sorted(want.items() ^ sizes.shapes.items())
  header.check(
    not odd, 'weights that the network takes, and no others', odd[:1]
  )
  one = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  try:
    run = forward(spec, packed.variables)
    jax.eval_shape(run, one)
  except Exception as e:  # whatever ill-matched weights make a network raise
    raise header.damaged('weights that the network takes', repr(e)) from e
  return run


def _listed(shape: tuple[Any, ...]) -> str:
  return ', '.join(map(str, shape))
