"""The triggers that keep SQLite's index of words in step with the tasks, as statements for a migration.

FTS5 keeps no text here. To remove a row it must be told the text of the row.
"""

from typing import Final

TEXT = "{0}.words || '_' || {0}.owner_id || CASE WHEN {0}.is_public THEN ' _public' ELSE '' END"
OF_TASK = "FROM task_numbers WHERE task_id = {0}.id AND {0}.words IS NOT NULL"
ADD = f"INSERT INTO task_words (rowid, words) SELECT number, {TEXT} {OF_TASK}".format("new")
REMOVE = f"INSERT INTO task_words (rowid, words, task_words) SELECT number, {TEXT}, 'delete' {OF_TASK}".format("old")
NUMBER = "INSERT INTO task_numbers (task_id) VALUES (new.id)"
FORGET_NUMBER = "DELETE FROM task_numbers WHERE task_id = old.id"

TRIGGERS: Final = {
    "tasks_insert": f"CREATE TRIGGER tasks_insert AFTER INSERT ON tasks BEGIN {NUMBER}; {ADD}; END",
    "tasks_update": f"CREATE TRIGGER tasks_update AFTER UPDATE OF words, is_public ON tasks BEGIN {REMOVE}; {ADD}; END",
    "tasks_delete": f"CREATE TRIGGER tasks_delete AFTER DELETE ON tasks BEGIN {REMOVE}; {FORGET_NUMBER}; END",
}
