"""Tables over several results files."""
