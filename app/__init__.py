"""Bearer Tasks: a task service with login done right."""

__version__ = "0.1.0"

NAME = "Bearer Tasks"
"""The name of the product, as people read it."""

SLUG = "bearer-tasks"
"""The name in one word: the realm of the challenges, temporary folders, and the connections to PostgreSQL."""
