"""From trained networks to files that run."""
