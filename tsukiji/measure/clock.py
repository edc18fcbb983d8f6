"""Times of lowered networks that methods may ask for, each measured once.

A method that chooses widths by the clock must choose the same ones when its
run is continued, so that times are kept beside the run.
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
    engines: What may run it; the fastest that is there does.

  Returns:
    Milliseconds.
  """
  way = fastest.fastest(artefact.of(spec, variables), 1, engines)
  return sampling.compare({'it': way.run}, repeats=REPEATS)['it']['p50']


def remembering(
  folder: pathlib.Path,
  engines: Sequence[str] = ('jax',),
  measure: Callable[..., float] = milliseconds,
) -> Callable[[Spec, dict[str, Any]], float]:
  """Return a clock that measures each network once, whoever asks.

  Args:
    folder: Where times are kept, a file a network; made when first needed.
    engines: As `milliseconds`.
    measure: What measures.

  Returns:
    The clock. Networks are told apart by their spec, by the kinds and shapes of
    their weights, and by the engines.
  """

  def clock(spec: Spec, variables: dict[str, Any]) -> float:
    kinds = jax.tree.structure(variables)
    shapes = [x.shape for x in jax.tree.leaves(variables)]
    told = f'{sp.dumps(spec)} {kinds} {shapes} {[*engines]}'
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = folder / f'{digest}.txt'
    if not path.exists():
      folder.mkdir(parents=True, exist_ok=True)
      with atomic.replacing(path) as file:
        file.write(repr(measure(spec, variables, engines)).encode())
    return float(path.read_text())

  return clock
