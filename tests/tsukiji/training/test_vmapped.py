"""Populations: training as one program equals training one by one."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.devices import on_eight
from tests.tsukiji.training.test_step import NET, examples
from tsukiji.config import settings
from tsukiji.models import spec as sp
from tsukiji.training import vmapped
from tsukiji.training.vmapped import Member

pytestmark = pytest.mark.slow  # its networks are trained

DENSE = sp.Spec(
  name='dense',
  input_shape=NET.input_shape,
  layers=(
    sp.Standardise(mean=(128.0,), std=(70.0,)),
    sp.Flatten(),
    sp.Dense(name='a', features=8),
    sp.Act(),
    sp.Dropout(rate=0.2),
    sp.Dense(name='b', features=10),
  ),
)


def members(count: int = 3, optimizer: str = 'adamw') -> list[Member]:
  """Return runs of which no two have a value in common."""
  return [
    Member(
      settings.training(
        batch_size=8,
        optimizer=optimizer,
        lr=1e-3 * (1 + i),
        momentum=0.9 - 0.1 * i,
        weight_decay=0.1 * i,
        label_smoothing=0.05 * i,
        augment=('flip',),
      ),
      seed=i,
      dropout=0.1 * i,
    )
    for i in range(count)
  ]


def flat(found: list[dict[str, Any]]) -> dict[str, np.ndarray]:
  """Return all arrays by name."""
  paths, _ = jax.tree_util.tree_flatten_with_path(found)
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in paths}


def expect_same(found: Any, wanted: Any) -> None:
  assert set(found) == set(wanted)
  for name, x in wanted.items():
    np.testing.assert_allclose(found[name], x, 2e-4, 2e-5, err_msg=name)


# Adam makes steps of the rounding of gradients that are 0, as before a norm.
@pytest.mark.parametrize(
  ('net', 'optimizer'), [(NET, 'sgd'), (DENSE, 'sgd'), (DENSE, 'adamw')]
)
def test_one_program_is_one_by_one(net: sp.Spec, optimizer: str) -> None:
  given = members(optimizer=optimizer)
  run = (net, given, examples(40), 4)
  found = vmapped.train_group(*run)
  assert len(found) == 3
  expect_same(flat(found), flat(vmapped.one_by_one(*run)))


def test_their_own_dropout_is_kept() -> None:
  given = [m._replace(dropout=None) for m in members(2)]
  run = (DENSE, given, examples(40), 3)
  found = flat(vmapped.train_group(*run))
  expect_same(found, flat(vmapped.one_by_one(*run)))
  none = [m._replace(dropout=0.0) for m in given]
  other = flat(vmapped.train_group(DENSE, none, examples(40), 3))
  assert any(np.any(found[name] != other[name]) for name in found)


def test_what_has_other_shapes_or_rules_goes_apart(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  a, b, c = members()
  given = [
    a,
    b._replace(settings=b.settings.copy_and_resolve_references()),
    c._replace(dropout=None),
    *members(1, 'sgd'),
  ]
  given[1].settings.batch_size = 4
  assert sorted(map(len, vmapped.groups([*given, a, c]).values())) == [
    *(1, 1, 1, 3)
  ]
  found = vmapped.fit(DENSE, given, examples(40), 2)
  expect_same(
    flat(found), flat(vmapped.one_by_one(DENSE, given, examples(40), 2))
  )


def test_a_cpu_maps_dense_networks_only() -> None:
  assert jax.default_backend() == 'cpu'
  assert vmapped.is_mapped(DENSE)
  assert not vmapped.is_mapped(NET)


def eight() -> dict[str, np.ndarray]:
  """Train five members, as many as devices need not be."""
  return flat(vmapped.train_group(NET, members(5, 'sgd'), examples(40), 3))


def test_members_are_spread_over_devices(tmp_path: pathlib.Path) -> None:
  found = on_eight(
    'tests.tsukiji.training.test_vmapped', 'eight()', tmp_path / 'it.npz'
  )
  expect_same(found, eight())


def test_a_traced_rate_drops_as_many() -> None:
  @jax.jit
  def dropped(rate: Any) -> Any:
    with vmapped.traced_dropout(rate):
      return nn.Dropout(0.9, deterministic=False).apply(
        {}, jnp.ones(4000), rngs={'dropout': jax.random.key(0)}
      )

  found = np.asarray(dropped(0.25))
  assert {*np.unique(found)} == {0.0, np.float32(1 / 0.75)}
  assert abs(np.mean(found == 0) - 0.25) < 0.02
  np.testing.assert_array_equal(dropped(0.0), np.ones(4000))
