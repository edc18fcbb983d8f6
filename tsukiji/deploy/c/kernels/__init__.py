"""From steps to C."""
