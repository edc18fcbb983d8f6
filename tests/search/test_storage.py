"""Storages: opened by many at once, closed when they are done with."""

import gc
import pathlib
from concurrent import futures
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import Pool, event
from sqlalchemy.exc import OperationalError

from search import storage


def test_an_empty_database_is_opened_by_many_at_once(
  tmp_path: pathlib.Path,
) -> None:
  where = f'sqlite:///{tmp_path}/trials.db'
  with futures.ThreadPoolExecutor(4) as threads:
    found = list(threads.map(lambda _: storage.opened(where), range(4)))
  for i, one in enumerate(found):
    optuna.create_study(storage=one, study_name=str(i))
  assert len(found[0].get_all_studies()) == 4


def test_a_table_that_exists_is_waited_for(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  said = [
    'table studies already exists',
    'UNIQUE constraint failed: version_info.version_info_id',
    'duplicate key value violates "pg_type_typname_nsp_index"',
  ]
  make = RDBStorage.__init__

  def begin(self: RDBStorage, *args: object, **more: object) -> None:
    if said:
      raise OperationalError('CREATE TABLE', {}, Exception(said.pop()))
    make(self, *args, **more)  # type: ignore[arg-type]

  monkeypatch.setattr(RDBStorage, '__init__', begin)
  found = storage.opened(f'sqlite:///{tmp_path}/trials.db')
  assert not said and found.get_all_studies() == []


def test_connections_are_closed(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Also those of an attempt that fails after it has made tables."""
  left: list[Any] = []
  listeners: tuple[tuple[str, Any], ...] = (
    ('connect', lambda raw, _: left.append(raw)),
    ('close', lambda raw, _: left.remove(raw)),
  )
  make, failures = RDBStorage.__init__, [Exception('is locked')]

  def begin(self: RDBStorage, *args: Any, **more: Any) -> None:
    make(self, *args, **more)
    if failures:
      raise OperationalError('CREATE TABLE', {}, failures.pop())

  monkeypatch.setattr(RDBStorage, '__init__', begin)
  for name, fn in listeners:
    event.listen(Pool, name, fn)
  try:
    found = storage.opened(f'sqlite:///{tmp_path}/trials.db')
    optuna.create_study(storage=found).ask()
    del found
    gc.collect()
    assert not failures and not left
  finally:
    for name, fn in listeners:
      event.remove(Pool, name, fn)
