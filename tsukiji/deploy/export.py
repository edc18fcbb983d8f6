"""Export of packed networks to other formats."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from tsukiji import atomic
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.onnx import model as model_lib
from tsukiji.errors import expect


class Exported(NamedTuple):
  """The result of an export.

  Attributes:
    written: The file written in each format.
    missing: The reason for each format that could not be written.
  """

  written: dict[str, Path]
  missing: dict[str, str]


def export(
  path: str | os.PathLike[str], folder: str | os.PathLike[str] = ''
) -> Exported:
  """Write a packed network in every format that can hold it.

  `NAME.onnx` is for engines such as ONNX Runtime, with int8 kernels if the
  network has them; `NAME.stablehlo` is for `jax.export.deserialize`. Both take
  any batch of raw images.

  Args:
    path: `NAME.tsk`, written by `artefact.save`.
    folder: Folder for the files; by default that of `path`.

  Returns:
    The files written, and the formats that do not support the network.

  Raises:
    ValueError: If the artefact cannot be read, or written in any format.
  """
  path = Path(path)
  place = Path(folder) if folder else path.parent
  net = artefact.load(path)
  written: dict[str, Path] = {}
  missing: dict[str, str] = {}
  for name, serialize in FORMATS.items():
    try:
      blob = serialize(net)
    except ValueError as e:
      missing[name] = str(e)
      continue
    written[name] = place / f'{path.stem}.{name}'
    with atomic.replacing(written[name]) as file:
      file.write(blob)
  reasons = ' '.join(missing.values())
  expect(str(path), bool(written), 'a network to export', 'none', reasons)
  return Exported(written, missing)


def _onnx(net: Artefact) -> bytes:
  model = model_lib.model(net.network, net.variables, name=net.name)
  return bytes(model.SerializeToString())


def _stablehlo(net: Artefact) -> bytes:
  (batch,) = jax.export.symbolic_shape('batch')
  inputs = [
    jax.ShapeDtypeStruct((batch, *x.shape), jnp.dtype(x.dtype))
    for x in net.inputs
  ]
  return bytes(jax.export.export(jax.jit(net.run))(*inputs).serialize())


FORMATS: dict[str, Callable[[Artefact], bytes]] = {
  'onnx': _onnx,
  'stablehlo': _stablehlo,
}
