"""Search: optimizers over configurations.

A field of a config varies if its value is from `log`, `float`, `integer` or
`choice`.
"""

from search.parameter import choice, float, integer, log

__all__ = ['choice', 'float', 'integer', 'log']
