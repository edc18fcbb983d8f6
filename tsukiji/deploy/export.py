"""Export of packed networks to other formats."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from tsukiji import atomic
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.c import footprint
from tsukiji.deploy.c.footprint import NO_LIMITS, Limits
from tsukiji.deploy.c.source import source
from tsukiji.deploy.onnx import model as model_lib
from tsukiji.errors import expect, expect_name


class Exported(NamedTuple):
  """The result of an export.

  Attributes:
    written: The file written in each format.
    missing: The reason for each format that could not be written.
  """

  written: dict[str, Path]
  missing: dict[str, str]


def export(
  path: str | os.PathLike[str],
  folder: str | os.PathLike[str] = '',
  formats: Sequence[str] = ('onnx', 'stablehlo'),
  limits: Limits = NO_LIMITS,
) -> Exported:
  """Write a packed network in every format that can hold it.

  `NAME.onnx` is for engines such as ONNX Runtime, with int8 kernels if the
  network has them; `NAME.stablehlo` is for `jax.export.deserialize`. Both take
  any batch of raw images. `NAME.c` and `NAME.h` need nothing but a compiler.

  Args:
    path: `NAME.tsk`, written by `artefact.save`.
    folder: Folder for the files; by default that of `path`.
    formats: Names of `FORMATS`.
    limits: Memory of the device for the C file.

  Returns:
    The files written, and the formats that do not support the network.

  Raises:
    ValueError: If the artefact cannot be read, or written in any format, or
      the C file takes more memory than there is; the message says where.
  """
  path = Path(path)
  place = Path(folder) if folder else path.parent
  net = artefact.load(path)
  written: dict[str, Path] = {}
  missing: dict[str, str] = {}
  for name in formats:
    expect_name('config.export.formats', name, FORMATS)
    try:
      files = FORMATS[name](net, path.stem, limits)
    except ValueError as e:
      missing[name] = str(e)
      continue
    for suffix, blob in files.items():
      written[suffix] = place / f'{path.stem}.{suffix}'
      with atomic.replacing(written[suffix]) as file:
        file.write(blob)
  reasons = ' '.join(missing.values())
  expect(str(path), bool(written), 'a network to export', 'none', reasons)
  return Exported(written, missing)


def _onnx(net: Artefact, name: str, limits: Limits) -> dict[str, bytes]:
  model = model_lib.model(net.network, net.variables, name=net.name)
  return {'onnx': bytes(model.SerializeToString())}


def _stablehlo(net: Artefact, name: str, limits: Limits) -> dict[str, bytes]:
  (batch,) = jax.export.symbolic_shape('batch')
  inputs = [
    jax.ShapeDtypeStruct((batch, *x.shape), jnp.dtype(x.dtype))
    for x in net.inputs
  ]
  program = jax.export.export(jax.jit(net.run))(*inputs)
  return {'stablehlo': bytes(program.serialize())}


def _c(net: Artefact, name: str, limits: Limits) -> dict[str, bytes]:
  made = source(net.network, net.variables, name)
  footprint.check(made, limits)
  return {'c': made.code.encode(), 'h': made.header.encode()}


FORMATS: dict[str, Callable[[Artefact, str, Limits], dict[str, bytes]]] = {
  'c': _c,
  'onnx': _onnx,
  'stablehlo': _stablehlo,
}
