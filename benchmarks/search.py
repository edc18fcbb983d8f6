"""Compare designers on problems whose optimum is known.

`python -m benchmarks.search [--designers=gp,random] [--problems=hartmann6]
[--seeds=10]` fills `results/search_benchmark.json`; cells that are there are
kept. Score: simple regret after the evaluations, or 1 - HV / best HV. Optuna's
GP needs PyTorch: run its cells with an interpreter that has it. Time is that
of the process (CPU), so that other programs have little effect; peers get the
same values in the same script.
"""

import argparse
import json
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

import search
from search import pareto
from search.designer import Values

FILE = pathlib.Path(__file__).parent.parent / 'results/search_benchmark.json'
EVALUATIONS = 50
MOVED = np.array([0.17, -0.11, 0.23, -0.19, 0.07, 0.13, -0.21, 0.05])

ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
A = np.array(
  [
    [10, 3, 17, 3.5, 1.7, 8],
    [0.05, 10, 17, 0.1, 8, 14],
    [3, 3.5, 1.7, 10, 17, 8],
    [17, 8, 0.05, 10, 0.1, 14],
  ]
)
P = 1e-4 * np.array(
  [
    [1312, 1696, 5569, 124, 8283, 5886],
    [2329, 4135, 8307, 3736, 1004, 9991],
    [2348, 1451, 3522, 2883, 3047, 6650],
    [4047, 8828, 8732, 5743, 1091, 381],
  ]
)


class Problem(NamedTuple):
  """What is minimized.

  Attributes:
    space: A config with leaves.
    found: Config -> its values.
    regret: Values of all evaluations -> how far they are from the best.
    batch: Number of suggestions before the first of them is told.
    evaluations: How many there are.
    reference: Of the hypervolume, where there are several objectives.
    random: How many of the evaluations are drawn at random, whoever designs:
      what a suggestion costs behind so many.
  """

  space: Callable[[], ConfigDict]
  found: Callable[[ConfigDict], Values]
  regret: Callable[[Sequence[Values]], float]
  batch: int = 1
  evaluations: int = EVALUATIONS
  reference: tuple[float, ...] | None = None
  random: int = 0


def cube(d: int) -> Callable[[], ConfigDict]:
  """Return the space of d floats in [0, 1]."""
  return lambda: ConfigDict({f'x{i}': search.float(0.0, 1.0) for i in range(d)})


def point(config: ConfigDict) -> np.ndarray:
  """Return the floats of a config of `cube`."""
  return np.array([config[f'x{i}'] for i in range(len(config))])


def simple(values: Sequence[Values]) -> float:
  """Return the least feasible objective: the regret where the least is 0."""
  fine = [v.objectives[0] for v in values if max(v.constraints, default=0) <= 0]
  return min(fine, default=np.inf)


def volume(
  front: np.ndarray, reference: tuple[float, ...]
) -> Callable[[Sequence[Values]], float]:
  """Return the part of the best hypervolume that is missed."""
  best = pareto.hypervolume(front, np.array(reference))

  def missed(values: Sequence[Values]) -> float:
    fine = [v.objectives for v in values if max(v.constraints, default=0) <= 0]
    found = np.array(fine).reshape(-1, len(reference))
    return 1 - pareto.hypervolume(found, np.array(reference)) / best

  return missed


def hartmann(x: np.ndarray) -> float:
  """Hartmann's function of six variables, above its least value."""
  return float(3.32236801141551 - ALPHA @ np.exp(-np.sum(A * (x - P) ** 2, 1)))


def ackley(u: np.ndarray) -> float:
  """Ackley's function in [-32.768, 32.768]^d, its optimum moved."""
  x = 65.536 * (u - 0.5 - MOVED[: len(u)])
  far = np.exp(-0.2 * np.sqrt(np.mean(x * x)))
  return float(20 - 20 * far + np.e - np.exp(np.mean(np.cos(2 * np.pi * x))))


def levy(u: np.ndarray) -> float:
  """Levy's function in [-10, 10]^d, its optimum moved."""
  w = 1 + (20 * (u - 0.5) - 15 * MOVED[: len(u)]) / 4
  inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)
  last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
  return float(np.sin(np.pi * w[0]) ** 2 + inner.sum() + last)


def rosenbrock(u: np.ndarray) -> float:
  """Rosenbrock's function in [-5, 10]^d."""
  x = 15 * u - 5
  return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def one(function: Callable[[np.ndarray], float]) -> Callable:
  """Return the values of one objective."""
  return lambda config: Values((function(point(config)),))


def within(config: ConfigDict) -> Values:
  """Hartmann's function where the norm of x is at most 1."""
  x = point(config)
  return Values((hartmann(x),), (float(np.linalg.norm(x) - 1),))


def zdt1(config: ConfigDict) -> Values:
  """The first of Zitzler, Deb & Thiele."""
  x = point(config)
  g = 1 + 9 * x[1:].mean()
  return Values((float(x[0]), float(g * (1 - np.sqrt(x[0] / g)))))


def bnh(config: ConfigDict) -> Values:
  """Binh & Korn: two objectives, two constraints."""
  x, y = point(config) * (5, 3)
  first = (x - 5) ** 2 + y**2 - 25
  second = 7.7 - (x - 8) ** 2 - (y + 3) ** 2
  return Values(
    (float(4 * x**2 + 4 * y**2), float((x - 5) ** 2 + (y - 5) ** 2)),
    (float(first), float(second)),
  )


def mixed() -> ConfigDict:
  """Return a space of a training run: mixed and conditional."""
  config = ConfigDict()
  config.lr = search.log(1e-5, 1.0)
  config.optimizer = search.choice('sgd', 'adam', 'rmsprop')
  config.momentum = search.float(0.0, 0.99, when={'optimizer': 'sgd'})
  config.beta = search.log(1e-3, 0.5, when={'optimizer': 'adam'})
  config.layers = search.integer(1, 6)
  config.units = search.integer(8, 256, log=True)
  config.activation = search.choice('relu', 'tanh', 'gelu', 'swish')
  return config


def training(config: ConfigDict) -> Values:
  """A made-up loss of `mixed`, 0 at sgd, 0.05, 0.9, 3 layers, 64, gelu."""
  kinds = {'sgd': (-1.3, 0.0), 'adam': (-3.0, 0.15), 'rmsprop': (-3.5, 0.4)}
  rate, loss = kinds[config.optimizer]
  loss += 0.5 * (np.log10(config.lr) - rate) ** 2
  if config.optimizer == 'sgd':
    loss += 2 * (config.momentum - 0.9) ** 2
  if config.optimizer == 'adam':
    loss += 0.3 * (np.log10(config.beta) + 1) ** 2
  loss += 0.1 * (config.layers - 3) ** 2
  loss += 0.15 * np.log2(config.units / 64) ** 2
  loss += {'relu': 0.1, 'tanh': 0.5, 'gelu': 0.0, 'swish': 0.05}[
    config.activation
  ]
  return Values((float(loss - 0.5 * (np.log10(0.05) + 1.3) ** 2),))


def problems() -> dict[str, Problem]:
  """Return the problems by name."""
  t = np.linspace(0, 1, 400)
  s = np.linspace(0, 5, 400)
  low = np.minimum(s, 3)
  bnh_front = np.stack(
    [4 * s**2 + 4 * low**2, (s - 5) ** 2 + (low - 5) ** 2], 1
  )
  zdt, binh = (2.0, 2.0), (140.0, 50.0)
  return {
    'hartmann6': Problem(cube(6), one(hartmann), simple),
    'hartmann6_norm': Problem(cube(6), within, simple),
    'zdt1': Problem(
      cube(6),
      zdt1,
      volume(np.stack([t, 1 - np.sqrt(t)], 1), zdt),
      reference=zdt,
    ),
    'bnh': Problem(cube(2), bnh, volume(bnh_front, binh), reference=binh),
    'ackley5': Problem(cube(5), one(ackley), simple),
    'levy8': Problem(cube(8), one(levy), simple),
    'rosenbrock4': Problem(cube(4), one(rosenbrock), simple),
    'hartmann6_q8': Problem(cube(6), one(hartmann), simple, 8, 48),
    'mixed': Problem(mixed, training, simple),
    **{
      f'hartmann6_n{n}': Problem(
        cube(6), one(hartmann), simple, evaluations=n + 5, random=n
      )
      for n in (100, 500)
    },
  }


Ask = Callable[[int], ConfigDict]
Tell = Callable[[ConfigDict, Values], None]


def ours(problem: Problem, name: str, seed: int) -> tuple[Ask, Tell]:
  """Return ask and tell of a designer of our own."""
  import jax

  from search import designer, space
  from search.bayes import bayes

  area = space.of(problem.space())
  chosen = (
    designer.random(area)
    if name == 'random'
    else bayes(area, reference=problem.reference)
  )
  key, draw = jax.random.key(seed), designer.random(area)
  state = [chosen.init(key)]

  def ask(trial: int) -> ConfigDict:
    own = jax.random.fold_in(key, trial)
    if trial < problem.random:
      return draw.ask(draw.init(key), own)[0]
    config, state[0] = chosen.ask(state[0], own)
    return config

  def tell(config: ConfigDict, values: Values) -> None:
    state[0] = chosen.tell(state[0], config, values)

  return ask, tell


def optunas(problem: Problem, name: str, seed: int) -> tuple[Ask, Tell]:
  """Return ask and tell of one of Optuna's samplers."""
  import optuna

  from search import space, storage

  warnings.simplefilter('ignore')
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  kind = {
    'optuna_tpe': optuna.samplers.TPESampler,
    'optuna_gp': optuna.samplers.GPSampler,
  }[name]
  limits = len(problem.found(first(problem)).constraints)
  sampler = kind(
    seed=seed,
    constraints_func=(lambda t: t.user_attrs['limits']) if limits else None,
  )
  area = space.of(problem.space())
  m = len(problem.reference or (0,))
  run = optuna.create_study(directions=['minimize'] * m, sampler=sampler)
  draw = optuna.samplers.RandomSampler(seed)
  trials: list[tuple[ConfigDict, optuna.Trial]] = []

  def ask(number: int) -> ConfigDict:
    run.sampler = draw if number < problem.random else sampler
    trial = run.ask()
    config = storage.suggested(area, trial)
    trials.append((config, trial))
    return config

  def tell(config: ConfigDict, values: Values) -> None:
    trial = next(t for c, t in trials if c is config)
    trial.set_user_attr('limits', values.constraints)
    run.tell(trial, list(values.objectives))

  return ask, tell


def first(problem: Problem) -> ConfigDict:
  """Return some config of a problem."""
  from search import space

  area = space.of(problem.space())
  return space.to_config(area, np.full(len(area.names), 0.5))


def cell(problem: Problem, name: str, seed: int) -> tuple[float, float]:
  """Run one search; return the regret and the seconds of its last ask."""
  make = optunas if name.startswith('optuna') else ours
  ask, tell = make(problem, name, seed)
  found: list[Values] = []
  times = []
  while len(found) < problem.evaluations:
    start = time.process_time()
    configs = [ask(len(found) + i) for i in range(problem.batch)]
    times.append((time.process_time() - start) / problem.batch)
    for config in configs:
      found.append(problem.found(config))
      tell(config, found[-1])
  return problem.regret(found), float(np.median(times[-5:]))


def row(problem: str, name: str, cells: dict[str, list[float]]) -> dict:
  """Return a row of the table."""
  regrets, times = np.array(list(cells.values())).T
  low, middle, high = np.quantile(regrets, [0.25, 0.5, 0.75])
  return {
    'problem': problem,
    'designer': name,
    'evaluations': problems()[problem].evaluations,
    'n_seeds': len(cells),
    'median': float(middle),
    'q25': float(low),
    'q75': float(high),
    'seconds_per_suggestion': float(np.median(times)),
    'cells': cells,
  }


def main() -> None:
  """Fill the cells that are missing, one at a time."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--designers', default='gp,random,optuna_tpe,optuna_gp')
  parser.add_argument('--problems', default=','.join(problems()))
  parser.add_argument('--seeds', type=int, default=10)
  args = parser.parse_args()
  rows = json.loads(FILE.read_text()) if FILE.exists() else []
  table = {(r['problem'], r['designer']): r['cells'] for r in rows}
  for seed in range(args.seeds):
    for problem in args.problems.split(','):
      for name in args.designers.split(','):
        cells = table.setdefault((problem, name), {})
        if str(seed) in cells:
          continue
        cells[str(seed)] = list(cell(problems()[problem], name, seed))
        print(problem, name, seed, *cells[str(seed)], flush=True)
        done = [row(*key, cells) for key, cells in table.items() if cells]
        FILE.write_text(json.dumps(done, indent=1) + '\n')


if __name__ == '__main__':
  with threadpool_limits(1):
    main()
