"""What may fit is tried, and what a trial takes is held against the budget."""

import math
import pathlib

import pytest

from search import space as spaces
from tests.tsukiji.config.test_budget import tiny
from tests.tsukiji.experiments.sweep.test_finalists import made
from tsukiji.config import search_space
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import inside


def fits(joint: Experiment, **values: object) -> bool:
  space = spaces.of(joint.config)
  named = {f'networks.student.sizes.{k}': v for k, v in values.items()}
  return inside.may_fit(joint, space, spaces.placed(space, named))


def test_what_is_too_large_before_training_is_not_tried(
  tmp_path: pathlib.Path,
) -> None:
  # 90 w^2 + 49 w weights at 4 bits, of which a coder leaves 70 % at least:
  # 1,237 bytes or more for w = 6, and 256 of the file.
  joint = made(tmp_path, tiny(bytes=1000))
  assert fits(joint, width=3) and not fits(joint, width=6)
  few = made(tmp_path, tiny(params=1200))
  assert fits(few, width=3) and not fits(few, width=6)
  slow = made(tmp_path, tiny(macs=9000))
  assert fits(slow, width=3) and not fits(slow, width=6)
  device = made(tmp_path, tiny(flash=1200))  # codes as they are: 479, 1,767
  assert fits(device, width=3) and not fits(device, width=6)
  # What only a trial can tell excludes nothing.
  assert fits(made(tmp_path, tiny(latency_ms=1e-9)), width=6)


def test_limits_of_the_dense_network_hold_too(tmp_path: pathlib.Path) -> None:
  config = tiny(bytes=10_000)
  config.search.limits.macs = 9000
  joint = made(tmp_path, config)
  assert fits(joint, width=3) and not fits(joint, width=6)


def test_a_budget_that_nothing_fits_is_refused(tmp_path: pathlib.Path) -> None:
  inside.expect_possible(made(tmp_path, tiny(bytes=1000)))
  with pytest.raises(
    ValueError,
    match=r'config.budget.bytes: expected room for the smallest candidate '
    r'\(at least \d\d\d\), got 40',
  ):
    inside.expect_possible(made(tmp_path, tiny(bytes=40, params=10_000)))


def test_excess_is_beyond_the_limit_less_a_margin(
  tmp_path: pathlib.Path,
) -> None:
  joint = made(tmp_path, tiny(bytes=1000, params=500))
  config = search_space.examples(joint.config)[0]
  found = {'bytes': 970.0, 'params': 500.0, 'val_accuracy': 0.1}
  assert inside.excess(joint, config, found) == pytest.approx((0, 0))
  found['bytes'] = 2000.0
  size, count = inside.excess(joint, config, found)
  assert size == pytest.approx(math.log(2000 / 970)) and count == 0
  again = inside.costs(joint.config, (size, count))
  assert again == pytest.approx({'bytes': 2000, 'params': 500})
  assert inside.costs(joint.config, ()) == {}  # a trial that failed


@pytest.mark.slow
def test_accuracy_drops_from_a_reference_of_as_many_epochs(
  tmp_path: pathlib.Path,
) -> None:
  joint = made(tmp_path, tiny(accuracy_drop=0.05))
  config = search_space.examples(joint.config)[0]
  errors = [
    inside.excess(joint, config, {'val_accuracy': error})[0]
    for error in (0.0, 1.0)
  ]
  # Its error is between: what has none is inside, what is always wrong is not.
  assert errors[0] <= 0 < errors[1] and errors[1] - errors[0] == 1.0
  assert (tmp_path / 'trials' / 'checkpoints').is_dir()
