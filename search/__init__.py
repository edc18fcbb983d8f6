"""Search: optimisers over configurations."""

from search.space import choice, float, integer, log

__all__ = ['choice', 'float', 'integer', 'log']
