"""Fields that were renamed: their earlier names work, with a warning."""

import pickle
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

import search
from tsukiji.config import fields, settings, validate

RENAMED = [
  (kind, *pair)
  for kind in (fields.Training, fields.Recipe, fields.Search)
  for pair in kind.RENAMED.items()
]
MAKE: dict[type, Any] = {
  fields.Training: settings.training,
  fields.Recipe: lambda **x: settings.compression('', 'prune', **x),
  fields.Search: settings.searching,
}


def other(value: Any) -> Any:
  """Return another value of the same type."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, ConfigDict):
    return {**value.to_dict(), 'macs': 7}
  if isinstance(value, tuple):
    return (*value, 'x')
  return f'{value}x' if isinstance(value, str) else value + 1


@pytest.mark.parametrize(('kind', 'old', 'new'), RENAMED)
def test_an_earlier_name_is_the_field(kind: type, old: str, new: str) -> None:
  make, value = MAKE[kind], other(MAKE[kind]()[new])
  expected = make(**{new: value})
  assert expected != make()
  with pytest.warns(FutureWarning, match=f"'{old}' is now called '{new}'"):
    assert make(**{old: value}) == expected
  made = make()
  with pytest.warns(FutureWarning, match=new):
    made[old] = value
  assert made == expected
  with pytest.warns(FutureWarning, match=new):
    assert getattr(make(), old) == make()[new]
  with pytest.warns(FutureWarning, match=new):
    setattr(made, old, make()[new])
  assert made[new] == make()[new] and old not in list(made)
  with pytest.warns(FutureWarning, match=new):
    made.update({old: value})
  assert made == expected
  with pytest.warns(FutureWarning, match=new):
    assert made.get_type(old) is type(made[new])


def test_parts_keep_their_kind_however_they_are_set() -> None:
  config = settings.default()
  config.networks = {'a': settings.network('small'), 'b': {'kind': 'small'}}
  config.networks.a.train = {'lr': 0.5}
  config.search = ConfigDict(settings.searching().to_dict())
  config.recipes.a = {'method': '', 'train': {}}
  copied = config.copy_and_resolve_references()
  for made in (config, copied, pickle.loads(pickle.dumps(config))):
    kinds = [made.networks.a, made.networks.b, made.networks.a.train]
    kinds += [made.search, made.recipes.a, made.recipes.a.train]
    assert [type(x) for x in kinds] == [
      *(fields.Network, fields.Network, fields.Training),
      *(fields.Search, fields.Recipe, fields.Training),
    ]
    assert type(made.recipes.a.get('parts', ConfigDict())) is ConfigDict


def test_names_that_users_choose_are_theirs() -> None:
  config = settings.default()
  config.recipes.labels = settings.compression('', '', parts={'fewer': 1})
  config.networks.most = settings.network('small', sizes={'settle': 2})
  assert [*config.recipes] == ['labels'] and [*config.networks] == ['most']
  assert config.recipes.labels.parts.fewer == 1
  assert config.networks.most.sizes.settle == 2


def test_a_config_written_by_hand_is_adopted() -> None:
  config = settings.default('search')
  config.networks.net = settings.network('tsukijinet')
  config.train.momentum = search.float(
    0.0, 0.9, when={'train.optimizer': 'sgd'}
  )
  config.train.optimizer = search.choice('adamw', 'sgd')
  written = config.to_dict()
  train = written['train']
  train['optimiser'] = train.pop('optimizer')
  train['momentum'] = search.float(0.0, 0.9, when={'train.optimiser': 'sgd'})
  written['search']['together'] = written['search'].pop('batch_size')
  with pytest.warns(FutureWarning, match='is now called'):
    adopted = fields.adopt(ConfigDict(written))
  validate.check(adopted)
  assert settings.plain(adopted) == settings.plain(config)
  assert fields.adopt(adopted) is adopted


def test_flags_may_have_earlier_names() -> None:
  config, values = settings.default(), flags.FlagValues()
  argv = ['x', '--config.search.together=16', '--config.train.optimiser=sgd']
  argv += ['--config.search.most.macs=5', "--config.search.beside=('random',)"]
  with pytest.warns(FutureWarning, match='is now called'):
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=argv
    )
    values(argv)
  assert config.search.batch_size == 16
  assert config.train.optimizer == 'sgd'
  assert config.search.limits.macs == 5
  assert config.search.baselines == ('random',)


def test_a_field_that_has_no_use_any_more_is_ignored() -> None:
  written = settings.default().to_dict()
  written['search']['lease'] = 30.0
  with pytest.warns(FutureWarning, match="'lease' has no use any more"):
    adopted = fields.adopt(ConfigDict(written))
  assert settings.plain(adopted) == settings.plain(settings.default())
  with pytest.warns(FutureWarning, match="'lease' has no use any more"):
    assert 'lease' not in settings.searching(lease=30.0)
