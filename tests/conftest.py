"""What all tests share: one cache of compiled programs, and their order."""

import os
import pathlib
from collections.abc import Iterator

import pytest

CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'home'
os.environ.setdefault('XDG_CACHE_HOME', str(CACHE))
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE / 'tsukiji' / 'xla')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

# Files go to workers whole: the longest first, so that none ends alone.
LONGEST = ('test_main', 'test_stopped', 'test_laws')


@pytest.fixture(scope='module', autouse=True)
def _drop_compiled_programs() -> Iterator[None]:
  """Drop what a file compiled after it: a worker would grow by gigabytes."""
  yield
  import jax

  jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Put the tests of the longest files first, all others as they were."""
  order = {name: i for i, name in enumerate(LONGEST)}
  items.sort(key=lambda item: order.get(item.path.stem, len(order)))
