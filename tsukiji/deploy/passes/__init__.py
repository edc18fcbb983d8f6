"""Passes that rewrite a trained network to a smaller one."""
