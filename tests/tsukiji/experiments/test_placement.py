"""Where tasks run: here, or in workers where there is work for two."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.test_imports import ROOT
from tests.tsukiji.experiments.test_executor import DATA
from tsukiji.config import settings
from tsukiji.experiments import placement


def test_no_cluster_is_started_for_one_task_or_one_worker(
  tmp_path: pathlib.Path,
) -> None:
  config = settings.default()
  with placement.opened(config, tmp_path, DATA) as executors:
    for tasks, wanted in ((1, 8), (8, 1)):
      assert executors(tasks, wanted).slots() == 1


@pytest.mark.slow
def test_what_needs_no_cluster_imports_none() -> None:
  code = (
    'import json, sys, tsukiji.cli;'
    'print(json.dumps([x for x in sys.modules if "distributed" in x]))'
  )
  found = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    cwd=ROOT,
    check=True,
    text=True,
  )
  names = {name.partition('.')[0] for name in json.loads(found.stdout)}
  assert 'distributed' not in names
