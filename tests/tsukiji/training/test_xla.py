"""Training steps are compiled with options that their compiler knows."""

import jax
import pytest

from tsukiji.models import zoo
from tsukiji.models.spec import Spec
from tsukiji.training import xla


def network(name: str, **sizes: int | str) -> Spec:
  return zoo.build(name, (28, 28, 1), 10, **sizes)


@pytest.mark.parametrize('backend', ['cpu', 'gpu', 'tpu'])
def test_other_platforms_are_left_alone(
  monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  found = xla.options(network('tsukijinet2021'))
  assert bool(found) == (backend == 'cpu')


@pytest.mark.parametrize(
  ('spec', 'narrow'),
  [
    (network('tsukijinet2021'), False),  # 1 to 32 to 64 filters
    (network('lenet_300_100'), False),
    (network('student', width=32, growth=1.0), False),
    (network('student', width=16), True),  # the gradient in 16 channels
    (network('student', width=8, block='residual'), True),
    (network('student', width=4, block='depthwise'), False),
  ],
)
def test_networks_of_few_filters_keep_their_convolutions(
  spec: Spec, narrow: bool
) -> None:
  reductions = any('REDUCE' in x for x in xla.options(spec).values())
  assert reductions != narrow


def test_options_are_known_to_this_compiler() -> None:
  for spec in (network('tsukijinet2021'), network('student')):
    step = jax.jit(lambda x: x + 1, compiler_options=xla.options(spec))
    assert int(step(1)) == 2


def test_what_a_compiler_does_not_know_is_left_out() -> None:
  assert not xla._is_known('xla_cpu_no_such_option', 'true')
