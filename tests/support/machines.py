"""How far the state machines go."""

from hypothesis import Phase, settings

SHORT = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # twenty steps are soon read; to shrink them takes minutes
)
LONG = settings(max_examples=2_000, stateful_step_count=50, deadline=None)
