"""Times of networks: positive, and measured once."""

import pathlib
from typing import Any

from tests.runs import NETWORKS, TINY, start
from tsukiji.deploy.lower import lower
from tsukiji.measure import clock
from tsukiji.spec import Spec


def test_a_network_takes_time() -> None:
  spec, variables = lower(TINY, start(TINY))
  assert 0 < clock.milliseconds(spec, variables) < 1e3


def test_each_network_is_measured_once(tmp_path: pathlib.Path) -> None:
  asked: list[str] = []

  def measure(spec: Spec, variables: dict[str, Any]) -> float:
    asked.append(spec.name)
    return len(asked) / 3

  for _ in range(2):  # as in a run that is continued
    ask = clock.remembering(tmp_path / 'times', measure)
    found = [ask(spec, {}) for spec in NETWORKS.values()]
    assert found == [(i + 1) / 3 for i in range(len(NETWORKS))]
  assert len(asked) == len(NETWORKS)
