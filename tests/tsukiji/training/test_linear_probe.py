"""Linear classifiers behind each unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.method import Ctx
from compress.quantize.uniform import uniform
from tests.runs import NETWORKS, TINY, images, run, start
from tsukiji.data.datasets import Split
from tsukiji.models import drop_layers
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec
from tsukiji.training import linear_probe
from tsukiji.training.linear_probe import Reading

# Two numbers of one or two signs: no line tells them apart, but two ReLUs do.
XOR = Spec(
  name='xor',
  input_shape=(1, 2, 1),
  layers=(
    sp.Flatten(),
    sp.Dense(name='turn', features=2),
    sp.Dense(name='bend', features=2),
    sp.Act(),
    sp.Dense(name='stay', features=2),
    sp.Act(),
    sp.Dense(name='out', features=2),
  ),
)


def solved() -> dict:
  kernels = {
    'turn': [[1.0, 1.0], [-1.0, 1.0]],  # x - y and x + y
    'bend': [[1.0, -1.0], [0.0, 0.0]],  # the positive and negative part
    'stay': [[2.0, 0.0], [0.0, 2.0]],
    'out': [[1.0, -1.0], [1.0, -1.0]],
  }
  params = {
    name: {'bias': jnp.zeros(2), 'kernel': jnp.array(kernel)}
    for name, kernel in kernels.items()
  }
  return {'params': params, 'batch_stats': {}}


def signs(count: int, seed: int) -> Split:
  rng = np.random.default_rng(seed)
  same = rng.integers(0, 2, count)
  first = rng.choice([-1.0, 1.0], count)
  x = np.stack([first, np.where(same, first, -first)], 1)
  x += rng.uniform(-0.1, 0.1, x.shape)
  return Split(np.float32(x.reshape(-1, 1, 2, 1)), np.int32(same))


def test_readings_rise_where_the_task_becomes_linear() -> None:
  found = linear_probe.readings(XOR, solved(), signs(300, 0), signs(200, 1))
  assert [r.name for r in found] == ['input', 'turn', 'bend', 'stay', 'out']
  by_name = dict(found)
  assert max(by_name['input'], by_name['turn']) < 0.7
  assert by_name['bend'] == by_name['stay'] == 1.0
  gained = linear_probe.gains(found)
  assert gained['bend'] > 0.3
  assert gained['stay'] == 0
  # What does not change shape and adds nothing is what can go.
  assert drop_layers.choose(XOR, gained, threshold=0.1) == ('turn', 'stay')


def test_accuracy_is_that_on_the_other_examples() -> None:
  rng = np.random.default_rng(0)
  new = signs(100, 1)
  wrong = Split(new.x, 1 - new.y)
  known, flipped = (
    linear_probe.readings(XOR, solved(), signs(300, 0), split)[3].accuracy
    for split in (new, wrong)
  )
  assert (known, flipped) == (1.0, 0.0)
  noise = Split(signs(40, 2).x, rng.integers(0, 2, 40).astype(np.int32))
  few = linear_probe.readings(XOR, solved(), noise, new, examples=7)
  want = linear_probe.readings(
    XOR, solved(), Split(*(p[:7] for p in noise)), Split(*(p[:7] for p in new))
  )
  assert few == want


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_features_are_those_of_the_network(name: str) -> None:
  spec, x = NETWORKS[name], images(NETWORKS[name], 8)
  found = jax.jit(linear_probe.Taps(spec, 1).apply)(start(spec), x)
  assert set(found) == {'input', *(u.name for u in drop_layers.units(spec))}
  np.testing.assert_allclose(
    found[drop_layers.units(spec)[-1].name],
    jax.jit(lambda v: run(spec, v, 8)[0])(start(spec)),
    atol=1e-4,
  )
  np.testing.assert_allclose(found['input'], x.mean((1, 2)), atol=1e-6)


def test_maps_are_pooled_to_a_grid() -> None:
  x = images(NETWORKS['tsukijinet2021'], 2)  # 10 x 10
  taps = linear_probe.Taps(NETWORKS['tsukijinet2021'], 3)
  found = jax.jit(taps.apply)(start(NETWORKS['tsukijinet2021']), x)
  assert found['input'].shape == (2, 9)
  np.testing.assert_allclose(
    found['input'][:, 5], x[:, 4:7, 7:].mean((1, 2, 3)), atol=1e-6
  )


def test_nodes_are_read_with_their_grids() -> None:
  spec = TINY
  split = Split(np.asarray(images(spec, 48)), np.arange(48, dtype=np.int32) % 3)
  nodes = uniform(2).init(start(spec)['params'], Ctx())
  coarse = {**start(spec), 'params': nodes}
  one, other = (
    linear_probe.readings(spec, v, split, split) for v in (start(spec), coarse)
  )
  assert one[0] == other[0]
  assert one[1:] != other[1:]


def test_gains_are_differences() -> None:
  found = (Reading('input', 0.5), Reading('a', 0.25), Reading('b', 1.0))
  assert linear_probe.gains(found) == {'a': -0.25, 'b': 0.75}


@pytest.mark.parametrize('wrong', [{'grid': 0}, {'examples': 0}])
def test_impossible_sizes_are_refused(wrong: dict) -> None:
  with pytest.raises(
    ValueError, match=f'readings: expected {[*wrong][0]} from 1'
  ):
    linear_probe.readings(XOR, solved(), signs(9, 0), signs(9, 1), **wrong)


def test_units_of_one_name_are_refused() -> None:
  pair = [sp.Dense(name=f'same_{i}', features=2) for i in range(4)]
  branches = tuple(
    sp.Branch(paths=((a,), (b,))) for a, b in (pair[:2], pair[2:])
  )
  spec = Spec(name='n', input_shape=(2,), layers=branches)
  with pytest.raises(ValueError, match='units of different names'):
    linear_probe.readings(spec, {}, signs(9, 0), signs(9, 1))
