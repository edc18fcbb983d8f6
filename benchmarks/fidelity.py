"""Compare ways to end bad trials early, at equal numbers of epochs.

`python -m benchmarks.fidelity [--ways=gp,gp+median] [--problems=digits]
[--seeds=10]` fills `results/fidelity_benchmark.json`; cells that are there are
kept. A way is a designer (`random`, `gp`), alone or with a pruner. Score: error
of the chosen config when trained in full, after as many epochs as 10 and 30
full trainings have. The chosen one is the best of those that were trained
longest. Rows of `halving`, `hyperband` and `bohb` are those of designers that
began with few epochs (by random search, and by `gp`): they were measured when
they were part of `search`.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

import search
from benchmarks.search import cube, hartmann
from search.designer import Designer, Values
from search.space import Space

FILE = pathlib.Path(__file__).parent.parent / 'results/fidelity_benchmark.json'
EPOCHS, LOW, ETA = 27, 1, 3  # of a full training, of the shortest, of a rung
MARKS = (10, 30)  # full trainings behind which a way is scored
WAYS = tuple(
  f'{inner}{pruner}'
  for inner in ('random', 'gp')
  for pruner in ('', '+median', '+halving', '+hyperband')
)


class Problem(NamedTuple):
  """What is trained.

  Attributes:
    space: A config with leaves.
    curve: Config -> the errors behind each epoch of a full training.
  """

  space: Callable[[], ConfigDict]
  curve: Callable[[ConfigDict], np.ndarray]


class Tried(NamedTuple):
  """A trial: its config, its epochs and the last error."""

  config: ConfigDict
  epochs: int
  error: float


def decaying(config: ConfigDict, crossing: bool) -> np.ndarray:
  """Return a made-up curve that falls from 4 to Hartmann's function.

  It has the time constant of a rate in the first variable: of any config, or,
  if curves cross, of a config that is slower the lower it ends.
  """
  x = np.array([config[f'x{i}'] for i in range(6)])
  end = hartmann(x)
  pace = 3 - 2.5 * (1 - end / 3.4) if crossing else 0.5 + 2.5 * x[0]
  noise = np.random.default_rng(int(1e6 * x.sum())).normal(0, 0.02, EPOCHS)
  falling = np.exp(-pace * np.arange(1, EPOCHS + 1) / 5)
  return end + (4 - end) * falling * (1 + noise)


def perceptron() -> ConfigDict:
  """Return the space of a perceptron with one hidden layer."""
  config = ConfigDict()
  config.lr = search.log(1e-4, 3.0)
  config.momentum = search.float(0.0, 0.99)
  config.decay = search.log(1e-6, 1e-1)
  config.width = search.integer(4, 64, log=True)
  config.batch = search.choice(16, 64, 256)
  config.start = search.log(0.01, 3.0)
  return config


@functools.cache
def digits() -> tuple[np.ndarray, ...]:
  """Return scikit-learn's digits: train and validation, images and labels."""
  from sklearn.datasets import load_digits

  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(labels))
  x = (images[order] / 8 - 1).astype(np.float32)
  y = np.eye(10, dtype=np.float32)[labels[order]]
  return x[:1200], y[:1200], x[1200:], y[1200:]


def trained(config: ConfigDict) -> np.ndarray:
  """Train a perceptron on digits; return its validation cross-entropies.

  Stochastic gradient descent with momentum; the rate falls by a cosine to 0 at
  the last of the epochs.
  """
  x, y, held, answers = digits()
  draw = np.random.default_rng(0)
  first = draw.normal(size=(65, config.width)) * config.start / 8
  last = draw.normal(size=(config.width + 1, 10)) * config.start / 8
  weights = [first.astype(np.float32), last.astype(np.float32)]
  speeds = [np.zeros_like(w) for w in weights]
  steps = -(-len(x) // config.batch)
  found, step = [], 0
  with np.errstate(all='ignore'):
    for _ in range(EPOCHS):
      for batch in np.array_split(draw.permutation(len(x)), steps):
        rate = config.lr * 0.5 * (1 + np.cos(np.pi * step / (EPOCHS * steps)))
        for w, v, g in zip(
          weights, speeds, slopes(weights, x[batch], y[batch]), strict=True
        ):
          v *= config.momentum
          v -= rate * (g + config.decay * w)
          w += v
        step += 1
      loss = -np.sum(answers * log_softmax(weights, held)[1], 1).mean()
      found.append(float(np.nan_to_num(min(loss, 10.0), nan=10.0)))
  return np.array(found)


def log_softmax(
  weights: list[np.ndarray], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return hidden units and log probabilities of a perceptron."""
  first, last = weights
  hidden = np.maximum(x @ first[1:] + first[0], 0)
  logits = hidden @ last[1:] + last[0]
  logits -= logits.max(1, keepdims=True)
  return hidden, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def slopes(
  weights: list[np.ndarray], x: np.ndarray, y: np.ndarray
) -> list[np.ndarray]:
  """Return the gradients of the mean cross-entropy."""
  hidden, found = log_softmax(weights, x)
  back = (np.exp(found) - y) / len(x)
  deep = (back @ weights[1][1:].T) * (hidden > 0)
  return [
    np.concatenate([deep.sum(0)[None], x.T @ deep]),
    np.concatenate([back.sum(0)[None], hidden.T @ back]),
  ]


def problems() -> dict[str, Problem]:
  """Return the problems by name."""
  curves = functools.partial(decaying, crossing=False)
  crossing = functools.partial(decaying, crossing=True)
  return {
    'curves': Problem(cube(6), curves),
    'crossing': Problem(cube(6), crossing),
    'digits': Problem(perceptron, trained),
  }


def tried(problem: Problem, name: str, seed: int) -> Iterator[Tried]:
  """Search, and end what the pruner says."""
  import optuna

  from search import pruning, space, study

  optuna.logging.set_verbosity(optuna.logging.ERROR)
  inner, _, rule = name.partition('+')
  area = space.of(problem.space())
  plan = study.Plan(
    f'{name}-{seed}',
    area,
    designed(area, inner),
    trials=10**6,
    seed=seed,
    pruner=pruning.pruner(rule, LOW, EPOCHS, ETA) if rule else None,
  )
  own = study.begun(plan, optuna.storages.InMemoryStorage())
  while True:
    own, one = study.ask(own)
    assert one is not None
    for epoch, error in enumerate(problem.curve(one.config), 1):
      if pruning.report(own, one, epoch, float(error)) and epoch < EPOCHS:
        own = pruning.prune(own, one)
        break
    else:
      own = study.tell(own, one, Values((float(error),)))
    yield Tried(one.config, epoch, float(error))


def designed(area: Space, name: str) -> Designer:
  """Return a designer of configs that are trained in full."""
  from search import designer
  from search.bayes import bayes

  return bayes(area) if name == 'gp' else designer.random(area)


def cell(problem: Problem, name: str, seed: int) -> list[float]:
  """Run one search; return the errors of what is chosen at the marks."""
  spent, scores = 0, []
  best = None
  for one in tried(problem, name, seed):
    spent += one.epochs
    while len(scores) < len(MARKS) and spent > MARKS[len(scores)] * EPOCHS:
      chosen = (best or one).config
      scores.append(float(problem.curve(chosen)[-1]))
    if len(scores) == len(MARKS):
      return scores
    if best is None or (-one.epochs, one.error) < (-best.epochs, best.error):
      best = one
  raise AssertionError('a search ends at its last mark')


def row(problem: str, name: str, cells: dict[str, list[float]]) -> dict:
  """Return a row of the table: quartiles of the errors at each mark."""
  found = np.quantile(list(cells.values()), [0.25, 0.5, 0.75], axis=0)
  marks = {
    f'after_{mark}': dict(zip(('q25', 'median', 'q75'), x, strict=True))
    for mark, x in zip(MARKS, found.T.tolist(), strict=True)
  }
  key = {'problem': problem, 'way': name, 'n_seeds': len(cells)}
  return {**key, **marks, 'cells': cells}


def main() -> None:
  """Fill the cells that are missing, one at a time."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--ways', default=','.join(WAYS))
  parser.add_argument('--problems', default=','.join(problems()))
  parser.add_argument('--seeds', type=int, default=10)
  args = parser.parse_args()
  rows = json.loads(FILE.read_text()) if FILE.exists() else []
  table = {(r['problem'], r['way']): r['cells'] for r in rows}
  for seed in range(args.seeds):
    for problem in args.problems.split(','):
      for name in args.ways.split(','):
        cells = table.setdefault((problem, name), {})
        if str(seed) in cells:
          continue
        cells[str(seed)] = cell(problems()[problem], name, seed)
        print(problem, name, seed, *cells[str(seed)], flush=True)
        done = [row(*key, cells) for key, cells in table.items() if cells]
        FILE.write_text(json.dumps(done, indent=1) + '\n')


if __name__ == '__main__':
  with threadpool_limits(1):
    main()
