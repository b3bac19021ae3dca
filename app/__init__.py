"""Bearer Tasks: a task service with login done right."""

__version__ = "0.1.0"
