"""Files that ask for too much are refused before anything is made of them."""

import tracemalloc
from typing import Any

import jax
import pytest

from tests.runs import TINY
from tests.tsukiji.deploy.tsk.hostile import ATTACKS
from tsukiji.deploy.tsk import limits, pack
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec


@pytest.mark.parametrize('name', ATTACKS)
def test_hostile_files_are_refused(
  name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  message, make = ATTACKS[name]
  blob = make()
  assert len(blob) < 200_000

  def traced(*args: Any, **kwargs: Any) -> None:
    raise AssertionError('traced')

  monkeypatch.setattr(jax, 'eval_shape', traced)
  monkeypatch.setattr(jax.numpy, 'asarray', traced)
  tracemalloc.start()
  with pytest.raises(ValueError, match=message) as raised:
    pack.unpack(blob)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**25
  assert len(str(raised.value)) < 350


ZOO = {name: zoo.build(name, (28, 28, 1), 10) for name in zoo.NETWORKS}


@pytest.mark.parametrize('name', [*ZOO])
def test_shapes_are_those_of_the_network(name: str) -> None:
  spec = ZOO[name]
  images = jax.ShapeDtypeStruct((1, *spec.input_shape), 'float32')
  want = jax.eval_shape(Net(spec).init, jax.random.key(0), images)
  flat = jax.tree_util.tree_flatten_with_path(want)[0]
  found = {'/'.join(key.key for key in path): leaf.shape for path, leaf in flat}
  assert limits.weight_shapes(spec) == found


def test_an_example_takes_its_activations() -> None:
  # 25 pixels in, twice 36 between, 36 flat, 3 out; each is 4 bytes, twice.
  assert limits.check_network(TINY, 0, 100) == 8 * (25 + 4 * 36 + 3)


def test_deep_networks_may_be_as_large_as_they_are() -> None:
  layers = [sp.Act() for _ in range(3000)]
  spec = Spec(name='deep', input_shape=(4,), layers=(*layers,))
  with pytest.raises(ValueError, match='at most 2048 operations'):
    limits.check_network(spec, 0, 100)
  assert limits.check_network(spec, 2**21, 100) > 0
