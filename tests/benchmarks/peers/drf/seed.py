"""Create the tables, with users and tasks as in tests/benchmarks/seed.py, and print the access tokens of some users.

python seed.py USERS TASKS_EACH
"""

import sys
from datetime import timedelta

import app  # noqa: F401 - sets Django up, which the rest must find done

# isort: split
from django.apps import apps
from django.db import connection, transaction
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken
from tasks.models import Task, User

TOKENS = 200
AT_ONCE = 10_000  # rows
STATUSES = ("todo", "doing", "done")


def main() -> None:
    users, tasks_each = map(int, sys.argv[1:])
    owners = [User(username=f"user{n}", password="!") for n in range(users)]
    present = timezone.now()
    begin = present - timedelta(days=1)

    def task(n: int) -> Task:
        moment = begin + timedelta(microseconds=n)
        return Task(
            owner=owners[n % users],
            title=f"Task {n}",
            description=f"What is to be done about it, and by when: number {n}.",
            status=STATUSES[n % 3],
            due_at=present + timedelta(minutes=n) if n // users % 2 else None,
            is_public=n // users % 2 == 0,
            created_at=moment,
            updated_at=moment,
        )

    with connection.schema_editor() as editor:
        for model in apps.get_models():
            editor.create_model(model)
    with transaction.atomic(), connection.cursor() as cursor:
        User.objects.bulk_create(owners)
        total = users * tasks_each
        for start in range(0, total, AT_ONCE):
            Task.objects.bulk_create(task(n) for n in range(start, min(start + AT_ONCE, total)))
        cursor.execute("ANALYZE")
    for owner in owners[:TOKENS]:
        print(AccessToken.for_user(owner))


if __name__ == "__main__":
    main()
