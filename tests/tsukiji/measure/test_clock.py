"""Times of networks: positive, on the scale of a reference, measured once."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compress import tree
from compress.method import Ctx
from compress.quantize.uniform import uniform
from tests.runs import NETWORKS, TINY, start
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.measure import clock, sampling
from tsukiji.measure.clock import Timer
from tsukiji.models.spec import Spec


@functools.cache
def packed(spec: Spec) -> Artefact:
  """Return a network as it runs."""
  return artefact.of(*lower(spec, start(spec)))


@pytest.mark.parametrize('engine', ['jax', 'onnxruntime'])
def test_a_network_takes_time(engine: str) -> None:
  assert 0 < clock.milliseconds(packed(TINY), (engine,)) < 1e3


def name_of(net: Artefact) -> str:
  """Return the name of the network of the tests that has these operations."""
  every = (TINY, *NETWORKS.values())
  (name,) = (s.name for s in every if same(packed(s), net))
  return name


def same(one: Artefact, other: Artefact) -> bool:
  return str(one.network) == str(other.network) and (
    one.network.inputs == other.network.inputs
  )


class Machine:
  """Times of networks on a machine that is slower at every measurement."""

  def __init__(self, true: dict[str, float]):
    self.true, self.slow = true, 1.0
    self.asked: list[tuple[str, ...]] = []

  def milliseconds(self, net: Artefact, engines: Sequence[str]) -> float:
    self.asked.append((name_of(net), *engines))
    self.slow *= 3
    return self.slow / 3 * self.true[name_of(net)]

  def speedup(self, net: Artefact, base: Artefact, _: Sequence[str]) -> float:
    self.asked.append((name_of(net), name_of(base)))
    self.slow *= 3
    one, other = (self.slow * self.true[name_of(x)] for x in (net, base))
    return other / one

  def timer(self) -> Timer:
    """Return what measures on this machine."""
    return Timer(self.milliseconds, self.speedup)


def test_a_machine_that_slows_down_does_not_change_latencies(
  tmp_path: pathlib.Path,
) -> None:
  names = [spec.name for spec in NETWORKS.values()]
  true = dict(zip(['tiny', *names], (0.5, 0.25, 2.0, 1.0), strict=True))
  machine = Machine(true)
  ask = clock.cached(tmp_path, lambda: packed(TINY), timer=machine.timer())
  for spec in (*NETWORKS.values(), TINY):
    assert ask(*lower(spec, start(spec))) == true[spec.name]


def test_each_network_is_measured_once(tmp_path: pathlib.Path) -> None:
  true = {'tiny': 0.3} | {spec.name: 0.1 for spec in NETWORKS.values()}
  machine = Machine(true)
  for _ in range(2):  # as in a run that is resumed
    ask = clock.cached(
      tmp_path / 'times', lambda: packed(TINY), timer=machine.timer()
    )
    found = [ask(*lower(spec, start(spec))) for spec in NETWORKS.values()]
    assert found == pytest.approx([0.1] * len(NETWORKS))
  names = [spec.name for spec in NETWORKS.values()]
  first, *rest = [(name, 'tiny') for name in names]
  assert machine.asked == [('tiny', 'jax'), first, *rest]


def test_kinds_of_weights_and_engines_have_times_of_their_own(
  tmp_path: pathlib.Path,
) -> None:
  spec, variables = lower(TINY, start(TINY))
  coded = uniform(4).init(variables['params'], Ctx())
  others = {'params': tree.freeze(coded)}
  ratios = iter([1.0, 2.0, 4.0, 8.0])
  timer = Timer(lambda *_: 8.0, lambda *_: next(ratios))
  asks = [
    clock.cached(tmp_path, lambda: packed(NETWORKS['vgg']), engines, timer)
    for engines in (('jax',), ('jax', 'onnxruntime'))
  ]
  found = [ask(spec, x) for ask in asks for x in (variables, others)]
  assert found == [8.0, 4.0, 2.0, 1.0]
  assert [ask(spec, x) for ask in asks for x in (variables, others)] == found


def test_a_network_is_timed_in_turn_with_its_reference(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  def sample(runs: dict[str, Any], **_: Any) -> dict[str, np.ndarray]:
    assert [np.shape(run()) for run in runs.values()] == [(1, 3), (1, 3)]
    return {'it': np.array([1.0, 8.0]), 'reference': np.array([3.0, 24.0])}

  monkeypatch.setattr(sampling, 'sample', sample)
  assert clock.speedup(packed(NETWORKS['vgg']), packed(TINY)) == 3.0
  assert clock.speedup(packed(TINY), packed(TINY)) == 1.0
