"""What all tests share: one cache of compiled programs, also for children."""

import os
import pathlib

CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'home'
os.environ.setdefault('XDG_CACHE_HOME', str(CACHE))
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE / 'tsukiji' / 'xla')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
