"""Config files: where they are found, and what is said of those that fail."""

import pathlib

import pytest

from tsukiji.config import loading, settings

HEAD = 'from tsukiji import settings\n'


def written(folder: pathlib.Path, body: str) -> pathlib.Path:
  """Write a config file whose `get_config` has a body of one line."""
  path = folder / 'mine.py'
  path.write_text(f'{HEAD}def get_config(arg=""):\n  {body}\n')
  return path


@pytest.mark.parametrize(
  'name', ['quickstart', 'quickstart.py', 'configs/quickstart.py']
)
def test_packaged_configs_are_found_from_any_folder(
  name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  place = loading.find(f'{name}:tiny')
  assert place.path.name == 'quickstart.py' and place.arg == 'tiny'
  config = loading.load(f'{name}:tiny')
  assert config.train.epochs == 1 and config.is_locked


def test_a_file_is_preferred_to_a_packaged_one(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').mkdir()
  path = tmp_path / 'configs' / 'quickstart.py'
  path.write_text(f'{HEAD}def get_config(): return settings.default("train")\n')
  assert loading.load('configs/quickstart.py').task == 'train'


def test_every_packaged_config_has_a_name() -> None:
  assert {'quickstart', 'search', 'study'} <= {*loading.packaged()}


@pytest.mark.parametrize(
  ('body', 'said'),
  [
    ('return None', "mine.py: expected a ConfigDict .* got 'NoneType'"),
    ('return {}', "mine.py: expected a ConfigDict .* got 'dict'"),
    ('raise ValueError("odd")', r'mine.py:3: odd$'),
    ('return settings.training(lrr=1)', r'mine.py:3: .* Nearest: .lr.'),
    ('return settings.defautl()', r'mine.py:3: AttributeError: .*defautl'),
    ('return (', r'mine.py:3: .*was never closed'),
    ('import nothing_of_this_name', r'mine.py:3: ModuleNotFoundError: No mod'),
    ('raise ValueError("x" * 5000)', r'mine.py:3: x+ ... x+$'),
  ],
)
def test_a_config_that_fails_names_its_line(
  body: str, said: str, tmp_path: pathlib.Path
) -> None:
  path = written(tmp_path, body)
  with pytest.raises(ValueError, match=said) as raised:
    loading.load(str(path))
  assert '\n' not in str(raised.value)


def test_a_file_without_get_config(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'mine.py'
  path.write_text('')
  with pytest.raises(ValueError, match='expected a function get_config'):
    loading.load(str(path))


@pytest.mark.parametrize('name', ['quickstrat', 'configs/quickstrat.py'])
def test_a_config_that_is_not_there(name: str) -> None:
  with pytest.raises(ValueError, match="Nearest: 'quickstart'"):
    loading.find(name)


def test_an_argument_that_changes_nothing() -> None:
  with pytest.raises(ValueError, match="got 'tinyy'. Return the .*':tiny'"):
    loading.load('quickstart:tinyy')


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('stray', "command line: expected flags only, got 'stray'"),
    ('--config.trian.lr=0.1', "config: .* got 'trian'. Nearest: 'train'"),
    ('--config.train.rl=0.1', "config.train: .* got 'rl'. Nearest: 'lr'"),
    ('--noconfig.distribted', "config: .* Nearest: 'distributed'"),
    (
      '--config.train.lr=fast',
      "config.train.lr: expected a value like .* got 'fast'",
    ),
    ('--cofnig=1', "got 'cofnig'. Nearest: 'config'"),
    ('--config.networks.net=1', 'networks'),
  ],
)
def test_a_flag_that_does_not_fit(flag: str, said: str) -> None:
  with pytest.raises(ValueError, match=said) as raised:
    loading.changed(settings.default(), [flag])
  assert '\n' not in str(raised.value)


def test_flags_change_fields() -> None:
  config = settings.default()
  found = loading.changed(
    config,
    ['--config.train.lr', '0.5', '--config.seeds=(3,4)', '--config.title=a b'],
  )
  assert (found.train.lr, found.seeds, found.title) == (0.5, (3, 4), 'a b')


def test_options_of_a_batch_system_have_any_name() -> None:
  config = loading.load(
    'quickstart:tiny',
    [
      '--config.cluster.kind=slurm',
      '--config.cluster.options.queue=long',
      '--config.cluster.options.cores=4',
      "--config.cluster.options.job_extra_directives=['--gpus=1']",
    ],
  )
  assert config.cluster.options.to_dict() == {
    'queue': 'long',
    'cores': 4,
    'job_extra_directives': ['--gpus=1'],
  }
  assert config.is_locked


def test_a_flag_of_no_use_any_more_is_ignored() -> None:
  with pytest.warns(FutureWarning, match="'lease' has no use any more"):
    config = loading.load('quickstart:tiny', ['--config.search.lease=30'])
  assert 'lease' not in config.search
