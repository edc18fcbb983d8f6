"""Latencies of lowered networks, for methods that choose by them.

A method that chooses widths by latency must choose the same ones when its run
is resumed, so latencies are stored in the workdir of the run.
"""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from tsukiji import atomic
from tsukiji.deploy import artefact
from tsukiji.measure import fastest, sampling
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

REPEATS = 30  # samples of a network


def milliseconds(
  spec: Spec, variables: dict[str, Any], engines: Sequence[str] = ('jax',)
) -> float:
  """Return the median time of one example, as the process is pinned.

  Args:
    spec: A lowered network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    engines: Engines to choose from; the fastest one installed is timed.

  Returns:
    Milliseconds.
  """
  candidate = fastest.fastest(artefact.of(spec, variables), 1, engines)
  return sampling.compare({'it': candidate.run}, repeats=REPEATS)['it']['p50']


def cached(
  folder: pathlib.Path,
  engines: Sequence[str] = ('jax',),
  measure: Callable[..., float] = milliseconds,
) -> Callable[[Spec, dict[str, Any]], float]:
  """Return a clock that measures each network once per folder.

  Args:
    folder: Where latencies are stored, one file per network.
    engines: As `milliseconds`.
    measure: Measures one network, as `milliseconds`.

  Returns:
    The clock. Its key is the spec, the kinds and shapes of the weights, and
    the engines.
  """

  def clock(spec: Spec, variables: dict[str, Any]) -> float:
    kinds = jax.tree.structure(variables)
    shapes = [x.shape for x in jax.tree.leaves(variables)]
    text = f'{sp.dumps(spec)} {kinds} {shapes} {[*engines]}'
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f'{digest}.txt'
    if not path.exists():
      folder.mkdir(parents=True, exist_ok=True)
      with atomic.replacing(path) as file:
        file.write(repr(measure(spec, variables, engines)).encode())
    return float(path.read_text())

  return clock
