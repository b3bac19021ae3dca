"""${message}.

Revision: ${up_revision}
Revises: ${comma(down_revision) if down_revision else "nothing"}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

<%!
    import json


    def literal(revisions):
        """Revisions as Python, in double quotes: one, several or None."""
        if isinstance(revisions, tuple):
            return f"({', '.join(map(json.dumps, revisions))})"
        return "None" if revisions is None else json.dumps(revisions)
%>\
revision = ${literal(up_revision)}
down_revision = ${literal(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
