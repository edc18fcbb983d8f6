"""Fronts and volumes against counting points."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search import pareto


@given(seed=st.integers(0, 999), m=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_boxes_fill_what_no_point_beats(seed: int, m: int) -> None:
  rng = np.random.default_rng(seed)
  values = np.round(rng.random((7, m)), 1)
  reference = np.full(m, 0.95)
  boxes = pareto.boxes(values, reference)
  probes = rng.random((400, m)) * 1.2 - 0.2
  beaten = np.any(np.all(values[:, None] <= probes, axis=2), axis=0)
  inside = np.all(
    (boxes[:, None, 0] < probes) & (probes <= boxes[:, None, 1]), axis=2
  )
  want = ~beaten & np.all(probes <= reference, axis=1)
  assert inside.sum(axis=0).tolist() == want.astype(int).tolist()


@pytest.mark.parametrize('m', [2, 3])
def test_hypervolume_is_the_share_of_points(m: int) -> None:
  rng = np.random.default_rng(m)
  values, probes = rng.random((9, m)), rng.random((100_000, m))
  beaten = np.any(np.all(values[:, None] <= probes, axis=2), axis=0)
  found = pareto.hypervolume(values, np.ones(m))
  assert abs(found - beaten.mean()) < 0.006


def test_nothing_beats_the_reference() -> None:
  assert pareto.hypervolume(np.ones((2, 2)), np.ones(2)) == 0.0


@given(seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_front_is_its_definition(seed: int) -> None:
  values = np.random.default_rng(seed).integers(0, 4, (8, 2))
  found = pareto.front(values)
  for i, a in enumerate(values):
    beaten = any(np.all(b <= a) and np.any(b < a) for b in values)
    again = any(np.all(b == a) for b in values[:i])
    assert found[i] == (not beaten and not again)


@given(seed=st.integers(0, 999), count=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_chosen_points_have_most_of_the_volume(seed: int, count: int) -> None:
  values = np.random.default_rng(seed).random((8, 2))
  values = values[pareto.front(values)]
  values = (values - values.min(0)) / np.maximum(np.ptp(values, axis=0), 1e-12)
  found, worst = pareto.spread(values, count), np.full(2, 1.1)
  apart = np.abs(values[:, None] - values).max(axis=2) + np.eye(len(values))
  assume(apart.min() > pareto.SAME)
  assert len({*found}) == min(count, len(values))
  sizes = [
    pareto.hypervolume(values[[*some]], worst)
    for some in itertools.combinations(range(len(values)), len(found))
  ]
  assert pareto.hypervolume(values[found], worst) >= (1 - 1 / np.e) * max(sizes)


def test_points_that_differ_by_noise_are_kept_once() -> None:
  values = np.array([[0.0, 1.0], [0.01, 0.99], [1.0, 0.0], [0.99, 0.01]])
  assert len(pareto.spread(values, 4)) == 2
