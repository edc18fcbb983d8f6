"""The packed file format, .tsk."""
