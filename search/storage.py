"""Spaces in an Optuna storage: names, distributions, labels."""

import random
import time
import weakref
from typing import Any

import numpy as np
import optuna
from ml_collections import ConfigDict
from optuna.distributions import (
  BaseDistribution,
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import SQLAlchemyError

from search import space as spaces
from search.parameter import Leaf, unit_of
from search.space import Space

PLAIN = bool | int | float | str | None
ATTEMPTS = 8  # to open a database in which others make their tables
PATIENCE = 60.0  # seconds that a writer of SQLite waits for the others
# Messages of databases about a table, row or type that another one just made.
RACES = ('already exists', 'unique constraint', 'duplicate key', 'is locked')


def opened(where: str) -> BaseStorage:
  """Return the storage at a URL, or a journal in a file `*.log`.

  Its connections are closed when it is no longer used.

  >>> type(opened('sqlite://')).__name__
  'RDBStorage'
  """
  if where.endswith('.log'):
    return JournalStorage(JournalFileBackend(where))
  settings = _engine_settings(where)
  for attempt in range(1, ATTEMPTS + 1):
    try:
      storage = RDBStorage(where, engine_kwargs=settings)
    except (SQLAlchemyError, ValueError) as e:
      if attempt == ATTEMPTS or not _is_race(e):
        raise
      time.sleep(random.uniform(0.1, 0.2) * attempt)
    else:
      weakref.finalize(storage, storage.engine.dispose)
      return storage
  raise AssertionError('unreachable')


def _engine_settings(where: str) -> dict[str, Any]:
  """Return the options of the engine at a URL."""
  url = make_url(where)
  if url.get_backend_name() != 'sqlite':
    return {}
  settings: dict[str, Any] = {'connect_args': {'timeout': PATIENCE}}
  if url.database not in (None, '', ':memory:'):
    # Connections to a file are cheap. Those of a pool stay open where making
    # the tables fails.
    settings['poolclass'] = NullPool
  return settings


def _is_race(error: Exception) -> bool:
  """Return whether another process made the same tables at the same time."""
  return any(said in str(error).lower() for said in RACES)


def config_of(space: Space, trial: FrozenTrial) -> ConfigDict:
  """Return the config that a trial tried."""
  return spaces.to_config(space, point(space, trial))


def suggested(space: Space, trial: optuna.Trial) -> ConfigDict:
  """Return the config of a trial of Optuna's own samplers."""
  unit = np.full(len(space.names), spaces.MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if spaces.active(space, unit[None])[0, i]:
      unit[i] = unit_of(leaf, suggest(trial, name, leaf))
  return spaces.to_config(space, unit)


def point(space: Space, trial: FrozenTrial) -> np.ndarray:
  """Return the point of a trial in the unit cube, `[d]`."""
  unit = np.full(len(space.names), spaces.MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if name in trial.params:
      unit[i] = unit_of(leaf, value(leaf, trial.params[name]))
  return unit


def suggest(trial: optuna.Trial, name: str, leaf: Leaf) -> Any:
  """Ask a trial for the value of a leaf."""
  if leaf.options:
    return value(leaf, trial.suggest_categorical(name, labels(leaf)))
  if leaf.whole:
    return trial.suggest_int(name, int(leaf.low), int(leaf.high), log=leaf.log)
  return trial.suggest_float(name, leaf.low, leaf.high, log=leaf.log)


def distribution(leaf: Leaf) -> BaseDistribution:
  """Return the Optuna distribution of a leaf."""
  if leaf.options:
    return CategoricalDistribution(labels(leaf))
  if leaf.whole:
    return IntDistribution(int(leaf.low), int(leaf.high), log=leaf.log)
  return FloatDistribution(leaf.low, leaf.high, log=leaf.log)


def labels(leaf: Leaf) -> list[Any]:
  """Return the labels of options in a storage: plain values, others as text.

  Options of equal text are distinguished by their index:

  >>> from search.parameter import choice
  >>> labels(choice((1, 2), '(1, 2)', 3).get())
  ['0: (1, 2)', '1: (1, 2)', 3]
  """
  found = [o if isinstance(o, PLAIN) else repr(o) for o in leaf.options]
  return [
    f'{i}: {label}' if found.count(label) > 1 else label
    for i, label in enumerate(found)
  ]


def value(leaf: Leaf, label: Any) -> Any:
  """Return the value of a label."""
  if not leaf.options:
    return label
  return leaf.options[labels(leaf).index(label)]


def params(space: Space, config: ConfigDict) -> dict[str, Any]:
  """Return the active parameters of a config as labels."""
  unit = spaces.to_unit(space, config)
  live = spaces.active(space, unit[None])[0]
  found = {}
  for i in np.flatnonzero(live):
    name, leaf = space.names[i], space.leaves[i]
    got = spaces.at(config, name)
    index = leaf.options.index(got) if leaf.options else 0
    found[name] = labels(leaf)[index] if leaf.options else got
  return found
