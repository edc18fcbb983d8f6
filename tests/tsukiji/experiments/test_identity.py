"""One experiment has one identity, whatever its fields are called."""

from typing import Any

import pytest

from search.parameter import log
from tests.tsukiji.experiments.test_store import config
from tsukiji.config import settings
from tsukiji.experiments import identity

# A config.json of the release before fields were renamed, in parts.
EARLIER: dict[str, Any] = {
  'train': {'optimiser': 'sgd', 'settle': 0.5, 'lr': 0.002},
  'finetune': {'optimiser': 'adamw', 'epochs': 3, 'settle': 1.0},
  'helper': 'distill.logits(4.0)',
  'networks': {'net': {'kind': 'small', 'train': {'settle': 0.25}}},
  'recipes': {
    'a': {
      'method': 'quantize.grid(4) >> {cut}',
      'parts': {'cut': 'prune.ticket(0.5)'},
      'family': 'combined',
      'fewer': 1,
      'without': ['conv1'],
      'joint': False,
      'labels': 0.5,
      'helped': False,
      'settle': -1.0,
    }
  },
  'search': {
    'beside': ['random'],
    'together': 4,
    'least': 2,
    'most': {'macs': 9, 'bytes': 0, 'params': 0},
  },
}


def current() -> Any:
  """Return the same config as it is written now."""
  made = config()
  made.train.update(optimizer='sgd', freeze_bn_at=0.5)
  made.helper = 'distill.kd(4.0)'
  made.networks.net.train.freeze_bn_at = 0.25
  made.recipes.a = settings.compression(
    'quantize.uniform(4) >> {cut}',
    'combined',
    parts={'cut': 'prune.lottery_ticket(0.5)'},
    drop_layers=1,
    drop_named=('conv1',),
    label_weight=0.5,
    use_helper=False,
  )
  made.search.update(baselines=('random',), batch_size=4, min_epochs=2)
  made.search.limits.macs = 9
  return made


def test_earlier_names_are_the_same_experiment() -> None:
  assert identity.of(EARLIER) == identity.of(settings.plain(current()))


def test_a_condition_on_an_earlier_name_is_the_same() -> None:
  found = []
  for name in ('optimiser', 'optimizer'):
    made = config()
    made.train.lr = log(0.1, 1.0, when={f'train.{name}': 'sgd'})
    found.append(identity.of(settings.plain(made)))
  assert found[0] == found[1]


def test_the_digest_is_what_it_was_before_fields_were_renamed() -> None:
  # As the release before them computed it from `EARLIER`.
  assert identity.digest(current()) == '0cb8e737dd'


@pytest.mark.parametrize('field', ['optimizer', 'freeze_bn_at'])
def test_another_value_under_an_earlier_name_is_another(field: str) -> None:
  other = current()
  other.train[field] = settings.training()[field]
  assert identity.of(settings.plain(other)) != identity.of(EARLIER)


def test_digest_is_that_of_what_changes_results() -> None:
  digest = identity.digest(config())
  assert len(digest) == 10 and int(digest, 16) >= 0
  same = config(task='bench', workers=7, distributed=True)
  assert identity.digest(same) == digest
  others = [
    config(**{path: value})
    for path, value in (
      ('train.lr', 0.5),
      ('seeds', (1,)),
      ('title', 'x'),
      ('dataset.seed', 1),
    )
  ]
  digests = {digest, *map(identity.digest, others)}
  assert len(digests) == 5
