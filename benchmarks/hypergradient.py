"""Compare hypergradient descent with a Gaussian process at equal cost.

`python -m benchmarks.hypergradient [--seeds=5] [--cost=60]` tunes four settings
of SGD for a dense network on digits, and puts the best validation loss so far
into `results/hypergradient.json`. A training counts 1; with the slopes of d
settings it counts 1 + d, which is what the forward mode computes. The seconds
are those of the process.
"""

import argparse
import functools
import json
import pathlib
import time
from typing import Any

import jax
import ml_collections

import search
from search import bayes, descent, designer
from search import space as spaces
from search.designer import Designer, Values
from search.leaf import unit_of
from search.space import Space
from tsukiji import data, evaluation, hypergradient, population, settings, zoo
from tsukiji.population import VALUES
from tsukiji.spec import Spec

FILE = pathlib.Path(__file__).parent.parent / 'results/hypergradient.json'
DESIGNERS = {
  'gp': bayes.bayes,
  'hypergradient': descent.descent,
  'random': designer.random,
}
STEPS = 110  # of a training, five epochs
STEP = 1e-3  # of the cube, for the slope of a scale


def area() -> Space:
  """Return the settings that vary."""
  config = ml_collections.ConfigDict()
  config.lr = search.log(1e-4, 1.0)
  config.momentum = search.float(0.0, 0.99)
  config.weight_decay = search.log(1e-6, 1e-1)
  config.label_smoothing = search.float(0.0, 0.3)
  return spaces.of(config)


@functools.cache
def task() -> tuple[data.Data, Spec]:
  """Return the data and the network."""
  loaded = data.load('digits', validation=0.2, seed=0)
  shape, moments = loaded.train.x.shape[1:], data.moments(loaded.train.x)
  spec = zoo.build('lenet_300_100', shape, len(loaded.classes), moments)
  return loaded, spec


def tried(
  space: Space, config: ml_collections.ConfigDict, seed: int, sloped: bool
) -> Values:
  """Train once; with slopes in units of the cube if they are wanted."""
  loaded, spec = task()
  given = settings.training(optimiser='sgd', batch_size=64, **config)
  if not sloped:
    member = [population.Member(given, seed)]
    (variables,) = population.fit(spec, member, loaded.train, STEPS)
    score = evaluation.evaluate(spec, variables, loaded.validation)
    return Values((score.loss,))
  found = hypergradient.find(
    spec, given, VALUES, loaded.train, loaded.validation, STEPS, seed=seed
  )
  unit = spaces.to_unit(space, config)
  slopes = []
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    ends = []
    for side in (-STEP, STEP):
      moved = unit.copy()
      moved[i] += side
      ends.append(spaces.at(spaces.to_config(space, moved), name))
    span = unit_of(leaf, ends[1]) - unit_of(leaf, ends[0])
    scale = (ends[1] - ends[0]) / max(span, STEP / 10)
    slopes.append(found.slopes[name] * scale)
  return Values((found.loss,), (), tuple(slopes))


def course(
  name: str, used: Designer, space: Space, seed: int, cost: int
) -> Any:
  """Return what was best after each trial: pairs of cost and loss."""
  key, best, spent, found = jax.random.key(seed), float('inf'), 0, []
  state, begun = used.init(key), time.process_time()
  sloped = name == 'hypergradient'
  while spent < cost:
    config, state = used.ask(state, jax.random.fold_in(key, spent))
    values = tried(space, config, seed, sloped)
    state = used.tell(state, config, values)
    spent += 1 + len(VALUES) * sloped
    best = min(best, values.objectives[0])
    found.append([spent, best])
  seconds = time.process_time() - begun
  return {'designer': name, 'seed': seed, 'course': found, 'seconds': seconds}


def main() -> None:
  """Fill in what is not there yet."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--cost', type=int, default=60)
  parser.add_argument('--out', type=pathlib.Path, default=FILE)
  args = parser.parse_args()
  rows = json.loads(args.out.read_text())['rows'] if args.out.exists() else []
  done = {(row['designer'], row['seed']) for row in rows}
  space = area()
  for seed in range(args.seeds):
    for name, make in DESIGNERS.items():
      if (name, seed) in done:
        continue
      rows.append(course(name, make(space), space, seed, args.cost))
      spent, loss = rows[-1]['course'][-1]
      print(f'{name}, seed {seed}: {loss:.4f} after {spent}')
      args.out.write_text(json.dumps({'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
  main()
