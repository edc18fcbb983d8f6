"""Search: optimisers over configurations.

A field of a config varies if it holds what `log`, `float`, `integer` or
`choice` returns.
"""

from search.parameter import choice, float, integer, log

__all__ = ['choice', 'float', 'integer', 'log']
