"""Latencies of lowered networks, for methods and searches that choose by them.

A method that chooses widths by latency must choose the same ones when its run
is resumed, so latencies are stored in the workdir of the run. They are taken at
different times, in processes next to others that train: each network is timed
alternately with a reference, and its latency is that of the reference, measured
once, times the ratio, in which a slow machine cancels.
"""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from tsukiji import atomic
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.graph.nodes import Graph
from tsukiji.measure import fastest, sampling

REPEATS = 30  # samples of a network


def milliseconds(net: Artefact, engines: Sequence[str] = ('jax',)) -> float:
  """Return the median time of one example, with the cores of this process.

  Args:
    net: A lowered network.
    engines: Engines to choose from; the fastest one installed is timed.

  Returns:
    Milliseconds.
  """
  candidate = fastest.fastest(net, 1, engines)
  return sampling.compare({'it': candidate.run}, repeats=REPEATS)['it']['p50']


def speedup(
  net: Artefact, reference: Artefact, engines: Sequence[str] = ('jax',)
) -> float:
  """Return how many times as fast as a reference a network runs one example.

  Args:
    net: A lowered network.
    reference: Another one, timed alternately with it.
    engines: As `milliseconds`.

  Returns:
    The median of the ratios of neighboring times; 1 where both run as one
    program.
  """
  if fastest.is_same_program(net, reference, engines):
    return 1.0
  runs = {
    name: fastest.fastest(one, 1, engines).run
    for name, one in (('it', net), ('reference', reference))
  }
  samples = sampling.sample(runs, repeats=REPEATS)
  return sampling.ratios(samples, 'reference')['it']


class Timer(NamedTuple):
  """Measurements of networks.

  Attributes:
    milliseconds: Returns the milliseconds of a network in engines.
    speedup: Returns the speed-up of a network over a reference, in engines.
  """

  milliseconds: Callable[[Artefact, Sequence[str]], float] = milliseconds
  speedup: Callable[[Artefact, Artefact, Sequence[str]], float] = speedup


TIMER = Timer()


def cached(
  folder: pathlib.Path,
  reference: Callable[[], Artefact],
  engines: Sequence[str] = ('jax',),
  timer: Timer = TIMER,
) -> Callable[[Graph, dict[str, Any]], float]:
  """Return a clock that measures each network once per folder.

  Args:
    folder: Where latencies are stored, one file per network.
    reference: Returns the network that all others are timed with.
    engines: As `milliseconds`.
    timer: Measures.

  Returns:
    The clock: a lowered network and its variables to milliseconds. Its key is
    the graph, the kinds and shapes of the weights, and the engines.
  """

  def clock(graph: Graph, variables: dict[str, Any]) -> float:
    def measure() -> float:
      base = reference()
      key = _key(base.network, base.variables, engines)
      scale = stored(
        folder / f'{key}.txt', lambda: timer.milliseconds(base, engines)
      )
      net = artefact.of(graph, variables)
      return scale / timer.speedup(net, base, engines)

    return stored(folder / f'{_key(graph, variables, engines)}.txt', measure)

  return clock


def _key(
  graph: Graph, variables: dict[str, Any], engines: Sequence[str]
) -> str:
  kinds = jax.tree.structure(variables)
  shapes = [x.shape for x in jax.tree.leaves(variables)]
  text = f'{graph} {kinds} {shapes} {[*engines]}'
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored(path: pathlib.Path, measure: Callable[[], float]) -> float:
  """Return the number in a file, measured and written if it is missing."""
  if not path.exists():
    found = repr(measure())
    with atomic.replacing(path) as file:
      file.write(found.encode())
  return float(path.read_text())
