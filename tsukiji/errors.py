"""The one form in which a mistake of the user is told."""


def expect(
  where: str, right: object, what: str, got: object, fix: str = ''
) -> None:
  """Raise unless all is well.

  Args:
    where: The argument, file, field or layer at fault.
    right: Whether all is well.
    what: What was expected.
    got: What was given.
    fix: How to mend it, a sentence.

  Raises:
    ValueError: If `right` is false.

  >>> expect('y', False, 'labels >= 0', -1, 'Count classes from 0.')
  Traceback (most recent call last):
  ValueError: y: expected labels >= 0, got -1. Count classes from 0.
  """
  if not right:
    raise ValueError(f'{where}: expected {what}, got {got!r}. {fix}'.rstrip())
