"""Windows of sequences and rows of tables, from arrays to accuracies."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from tsukiji.config import settings
from tsukiji.data import datasets
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.spec import Conv, Pool, Shape
from tsukiji.training import evaluate, step


def windows(shape: Shape, name: str) -> dict[str, list[Any]]:
  """Return kernels, strides and pools of a network of the zoo."""
  layers = [s.layer for s in sp.walk(zoo.build(name, shape, 3))]
  convs = [x for x in layers if isinstance(x, Conv)]
  return {
    'kernels': [x.kernel for x in convs],
    'strides': [x.strides for x in convs],
    'pools': [x.window for x in layers if isinstance(x, Pool)],
  }


@pytest.mark.parametrize('name', ['tsukijinet2021', 'vgg', 'resnet', 'small'])
def test_a_sequence_has_the_network_of_a_square_along_time(name: str) -> None:
  square = windows((32, 32, 6), name)
  for at, shape in enumerate([(32, 1, 6), (1, 32, 6)]):
    found = windows(shape, name)
    for key, sizes in square.items():
      assert [x[at] for x in found[key]] == [x[0] for x in sizes]
      assert {x[1 - at] for x in found[key]} <= {1}
  assert max(x[0] for x in square['kernels']) > 1


@pytest.mark.parametrize('name', ['tsukijinet2021', 'vgg', 'resnet', 'small'])
def test_a_row_has_products_only(name: str) -> None:
  found = windows((1, 1, 13), name)
  assert {*found['kernels'], *found['strides'], *found['pools']} == {(1, 1)}


def test_images_are_not_changed() -> None:
  assert windows((28, 28, 1), 'tsukijinet2021') == {
    'kernels': [(5, 5), (5, 5)],
    'strides': [(1, 1), (1, 1)],
    'pools': [(2, 2), (2, 2)],
  }


@functools.cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Return one of scikit-learn's tables, `[n, columns]` and `[n]`."""
  bunch = getattr(sklearn_datasets, f'load_{name}')()
  order = np.random.RandomState(0).permutation(len(bunch.target))
  return bunch.data[order], bunch.target[order]


def accuracy(folder: Path, x: np.ndarray, y: np.ndarray) -> float:
  """Return what a small network reaches on the last quarter of the rows."""
  cut = len(y) * 3 // 4
  names = ('x_train', 'x_test', 'y_train', 'y_test')
  parts = (x[:cut], x[cut:], y[:cut], y[cut:])
  np.savez(folder / 'table.npz', **dict(zip(names, parts, strict=True)))
  data = datasets.load(str(folder / 'table.npz'))
  spec = zoo.build(
    'tsukijinet2021',
    data.train.x.shape[1:],
    len(data.classes),
    datasets.moments(data.train.x),
    conv=(16,),
    hidden=(16,),
  )
  count = 12 * len(data.train.y) // 16
  chosen = settings.training(batch_size=16, lr=1e-2)
  plan = step.plain(spec, chosen, count)
  state = step.init_state(plan, net_lib.init_variables(spec, 0), 0)
  state = step.run_steps(plan, state, data.train, count, batch_size=16, seed=0)
  return evaluate.evaluate(spec, state.variables, data.test).accuracy


# Logistic regression on standardized columns reaches 100 % of the 45 wines and
# 142 of the 143 breast cancers; the network may miss three more rows.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'axes', 'least'),
  [('wine', (1, 13), 42 / 45), ('breast_cancer', (30,), 139 / 143)],
)
def test_columns_of_different_units_are_learned(
  tmp_path: Path, name: str, axes: Shape, least: float
) -> None:
  x, y = table(name)
  assert accuracy(tmp_path, x.reshape(len(x), *axes), y) >= least
