"""The energy of a C file on a device is that of the work of its steps."""

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.tsukiji.deploy.onnx.test_model import SPECS, lowered
from tsukiji.deploy.c import footprint
from tsukiji.deploy.c.plan.reading import Read
from tsukiji.deploy.c.plan.values import FLOAT
from tsukiji.deploy.c.source import Source, generated, source
from tsukiji.deploy.tsk import pack
from tsukiji.graph.nodes import Graph, Input, Node
from tsukiji.measure import on_device
from tsukiji.measure.energy import HOROWITZ45


def matrix() -> Source:
  """Return a product of 8 numbers with an 8 x 8 matrix."""
  attrs: dict[str, Any] = {'dims': (((1,), (0,)), ((), ()))}
  node = Node('dot', ('@0', np.eye(8, dtype=np.float32) + 1), attrs)
  graph = Graph((node,), (0,), (Input((8,)),))
  return generated(Read(graph, [FLOAT], {}, (Input((8,)),)), 'net')


def test_a_matrix_is_read_once() -> None:
  made = matrix()
  ((name, work),) = made.work
  assert (work.products, work.kind, work.flash) == (64, 'fp32', 256)
  assert (work.loads, work.stores) == (32, 32)
  spent = on_device.model(made)
  assert spent.source == 'model:horowitz45'
  assert spent.compute == pytest.approx(64 * 4.6e-6)
  assert spent.flash == pytest.approx(256 / 8 * 10e-6)
  assert spent.ram == pytest.approx(64 / 8 * 10e-6)
  assert spent.total == pytest.approx(spent.per_step[name])
  cheap = HOROWITZ45._replace(name='own', sram=((2**20, 0.0),))
  assert on_device.model(made, cheap).total == spent.compute
  assert on_device.record(made) == {
    'flash': made.weight_bytes,
    'ram': footprint.ram(made),
    'products': 64,
    'sign_words': 0,
    'read': 256,
    'moved': 64,
    'energy_uj': spent.total,
    'energy_source': spent.source,
  }


def test_zeros_cost_nothing() -> None:
  graph, variables = lowered(SPECS['tsukijinet2021'])
  few = {
    path: x * (np.arange(x.size).reshape(x.shape) % 40 == 0)
    for path, x in variables['params'].items()
  }
  dense = on_device.model(source(graph, variables))
  sparse = on_device.model(source(graph, {'params': few}))
  assert sparse.compute < dense.compute


def half(made: Source) -> float:
  return made.scratch_bytes / 2 + 1


def nothing(made: Source) -> float:
  return -1.0


def test_own_joules_are_named() -> None:
  made = matrix()
  name = f'{__name__}:half'
  assert on_device.measured(made, name) == (half(made), f'measured:{name}')
  for wrong in ('none:f', f'{__name__}:none', 'none', f'{__name__}:nothing'):
    with pytest.raises(ValueError, match='expected') as e:
      on_device.measured(made, wrong)
    assert len(str(e.value)) <= 300


def test_it_is_a_command(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  path = tmp_path / 'net.tsk'
  path.write_bytes(pack.pack(*lowered(SPECS['tsukijinet2021'])))
  assert on_device.main([str(path), f'--joules={__name__}:half']) == 0
  out = capsys.readouterr().out
  assert 'model:horowitz45' in out and f'measured:{__name__}:half' in out
  assert on_device.main(['none.tsk']) == 2
