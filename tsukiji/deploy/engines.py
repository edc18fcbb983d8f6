"""Inference engines: XLA, ONNX Runtime, OpenVINO and C files.

An engine takes a network, a batch size and a number of threads, and returns a
function of images. ONNX Runtime and OpenVINO read the ONNX model that
`onnx.model` writes, and are imported on first use, since that takes a second.
`c` is the file that `c.source` writes, compiled for this machine.
"""

import dataclasses
import functools
import importlib
import importlib.util
import math
import os
import pathlib
import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.c import native
from tsukiji.deploy.c import source as c_file
from tsukiji.deploy.c.source import Source
from tsukiji.deploy.onnx import model as model_lib
from tsukiji.errors import expect, expect_name

# Of arrays [batch, *shape], one an input; returns one, or a tuple of several.
Call: TypeAlias = Callable[..., Any]
FLOATS, INTEGERS = 'float32', 'int8'
LARGEST = 2**25  # bytes of weights that a C compiler takes in reasonable time


class Engine(NamedTuple):
  """An inference engine.

  Attributes:
    package: The package to install, '' if there is none.
    least: Minimum length of a dot product for which its integer kernels are
      faster.
    load: Network, form, batch, threads -> a function of its inputs. The form
      is one of `forms`.
    place: Moves an input to where the engine reads it without a copy.
  """

  package: str
  least: float
  load: Callable[[Artefact, str, int, int], Call]
  place: Callable[[np.ndarray], Any] = lambda images: images


def available(names: Iterable[str]) -> tuple[str, ...]:
  """Return the engines whose package is installed, in order.

  Raises:
    ValueError: If a name is not in `ENGINES`.

  >>> available(['jax'])
  ('jax',)
  """
  names = tuple(names)
  for name in names:
    expect_name('engines', name, ENGINES)
  found = tuple(filter(_is_here, names))
  if 'c' in names and 'c' not in found:
    warnings.warn(
      'engines: expected a C compiler for the engine c, got none. It is left '
      f'out; install one of {", ".join(native.COMPILERS)}.',
      stacklevel=2,
    )
  return found


def _is_here(name: str) -> bool:
  """Return whether what an engine needs is installed."""
  package = ENGINES[name].package
  if not package:
    return bool(native.found())
  return importlib.util.find_spec(package) is not None


def forms(name: str, net: Artefact) -> tuple[str, ...]:
  """Return the number formats an engine can run a network in, narrowest first.

  Args:
    name: Name of the engine.
    net: The network.

  Returns:
    'int8', if it has kernels that the engine computes with integers, and
    'float32'. Of 'c', one of these, or none if an operator has no kernel or
    there are more than 32 MiB of weights.
  """
  if name == 'c':
    return _in_c(net)
  integers = model_lib.served(net.network, net.variables, ENGINES[name].least)
  return (INTEGERS, FLOATS) if integers else (FLOATS,)


def load(
  net: Artefact,
  name: str = 'onnxruntime',
  *,
  form: str = '',
  batch: int = 1,
  threads: int = 1,
) -> Call:
  """Load a packed network into an engine.

  Args:
    net: The network (`artefact.load`).
    name: 'jax', 'onnxruntime' or 'openvino'.
    form: 'int8' or 'float32'; '' for the first of `forms`.
    batch: Number of examples in a call.
    threads: Threads of a call. XLA uses all cores of the process instead.

  Returns:
    A function of raw float32 images `[batch, *shape]`, or of what the inputs
    of the network are, that returns its output or a tuple of several. It
    raises a ValueError for any other shapes or types.

  Raises:
    ValueError: If the engine is unknown or not installed, or cannot run the
      network in this form.
  """
  expect_name('engines', name, ENGINES)
  package = ENGINES[name].package or 'gcc'
  fix = f'pip install {package}, or choose another engine.'
  if name == 'c':
    fix = 'Install gcc or clang, or choose another engine.'
  here = _is_here(name)
  expect(f'engine {name}', here, 'an installed package', package, fix)
  known = forms(name, net)
  if not known:
    written(net)  # which says why
    expect(f'engine {name}', False, f'{LARGEST} bytes', net.weight_bytes)
  expect(
    f'engine {name}', form in ('', *known), f'one of the forms {known}', form
  )
  call = ENGINES[name].load(net, form or known[0], batch, threads)
  wanted = [_said((batch, *x.shape), x.dtype) for x in net.inputs]

  def checked(*images: Any) -> Any:
    try:
      return call(*images)
    except Exception as e:  # each engine has its own
      got = [_said(np.shape(x), getattr(x, 'dtype', type(x))) for x in images]
      if got == wanted:
        raise
      raise ValueError(
        f'engine {name}: expected images {", ".join(wanted)}, got '
        f'{", ".join(got)}. Load it for another batch, or convert them.'
      ) from e

  return checked


def _said(shape: tuple[int, ...], dtype: Any) -> str:
  return f'{[*shape]} of {dtype}'


def _shapes(net: Artefact, batch: int) -> list[tuple[int, ...]]:
  return [(batch, *x.shape) for x in net.inputs]


def _single(found: Sequence[Any]) -> Any:
  """Return an output, or a tuple of several."""
  return found[0] if len(found) == 1 else tuple(found)


def _model(net: Artefact, form: str, least: float) -> bytes:
  least = least if form == INTEGERS else math.inf
  model = model_lib.model(
    net.network, net.variables, least=least, name=net.name
  )
  return bytes(model.SerializeToString())


def _jax(net: Artefact, form: str, batch: int, threads: int) -> Call:
  del form, threads
  ends = [
    jax.ShapeDtypeStruct(shape, jnp.dtype(x.dtype))
    for shape, x in zip(_shapes(net, batch), net.inputs, strict=True)
  ]
  return jax.jit(net.run).lower(*ends).compile()


def _onnxruntime(net: Artefact, form: str, batch: int, threads: int) -> Call:
  import onnxruntime  # late: see above

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  options.log_severity_level = 3
  options.add_free_dimension_override_by_name(model_lib.BATCH, batch)
  if not _sums_exactly():
    options.add_session_config_entry(*model_lib.EXACT)
  model = _model(net, form, ENGINES['onnxruntime'].least)
  session = onnxruntime.InferenceSession(
    model, options, ['CPUExecutionProvider']
  )
  takes = [x.name for x in session.get_inputs()]
  gives = [x.name for x in session.get_outputs()]
  if len(takes) == len(gives) == 1:  # as fast as it gets
    return lambda images: session.run(gives, {takes[0]: images})[0]
  return lambda *images: _single(
    session.run(gives, dict(zip(takes, images, strict=True)))
  )


def _sums_exactly() -> bool:
  """Return whether pairs of int8 products are summed in more than 16 bits.

  On x86 processors without VNNI, ONNX Runtime sums them in 16 bits; its exact
  kernels are half as fast.
  """
  try:
    flags = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:  # no Linux
    flags = ''
  return platform.machine() not in ('x86_64', 'AMD64') or 'vnni' in flags


def _openvino(net: Artefact, form: str, batch: int, threads: int) -> Call:
  openvino = _imported_quietly('openvino')
  core = openvino.Core()
  model = core.read_model(_model(net, form, ENGINES['openvino'].least))
  shapes = _shapes(net, batch)
  takes = [*zip(shapes, [x.dtype for x in net.inputs], strict=True)]
  model.reshape({i: [*shape] for i, shape in enumerate(shapes)})
  settings = {
    'INFERENCE_NUM_THREADS': threads,
    'INFERENCE_PRECISION_HINT': 'f32',
    'NUM_STREAMS': 1,
    'PERFORMANCE_HINT': 'LATENCY',
  }
  request = core.compile_model(model, 'CPU', settings).create_infer_request()

  def call(*images: np.ndarray) -> Any:
    if [(x.shape, x.dtype) for x in images] != takes:
      raise TypeError('other images')  # it would read out of bounds
    found = request.infer([*images], share_inputs=True, share_outputs=True)
    # The request overwrites its own outputs.
    return _single([np.array(found[i]) for i in range(len(model.outputs))])

  return call


def written(net: Artefact, form: str = '') -> Source:
  """Return a network as C.

  Args:
    net: The network.
    form: 'float32' for floats; else integers where the network has them.

  Raises:
    ValueError: If an operator has no kernel.
  """
  return _written(_Same(net), form != FLOATS)


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
  """A network that is equal to itself alone.

  Attributes:
    net: The network.
  """

  net: Artefact

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _Same) and other.net is self.net

  def __hash__(self) -> int:
    return id(self.net)


@functools.lru_cache(maxsize=4)  # it is asked for forms, kinds and the call
def _written(one: _Same, is_whole: bool) -> Source:
  net = one.net
  return c_file.source(net.network, net.variables, net.name, is_whole)


def _in_c(net: Artefact) -> tuple[str, ...]:
  if net.weight_bytes > LARGEST:
    return ()
  try:
    return (INTEGERS,) if written(net).is_whole else (FLOATS,)
  except ValueError:
    return ()


def _c(net: Artefact, form: str, batch: int, threads: int) -> Call:
  del threads
  return native.loaded(written(net, form), batch)


def _imported_quietly(name: str) -> Any:
  """Import a package without its telemetry, which forks; JAX forbids that.

  The package sends nothing in continuous integration.
  """
  before = os.environ.get('CI')
  os.environ['CI'] = 'true'
  try:
    return importlib.import_module(name)
  finally:
    del os.environ['CI']
    os.environ.update({} if before is None else {'CI': before})


ENGINES = {
  'jax': Engine('jax', math.inf, _jax, jax.device_put),
  'onnxruntime': Engine('onnxruntime', model_lib.LEAST, _onnxruntime),
  'openvino': Engine('openvino', 0, _openvino),
  'c': Engine('', 0, _c, np.ascontiguousarray),
}
