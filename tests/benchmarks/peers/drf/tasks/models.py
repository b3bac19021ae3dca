"""The tables."""

from uuid import uuid4

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)

    class Meta:
        db_table = "users"


class Task(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    owner = models.ForeignKey(User, models.CASCADE, related_name="tasks", db_index=False)  # the index below has it
    title = models.CharField(max_length=200)
    description = models.TextField(null=True)
    status = models.CharField(max_length=8, default="todo")
    due_at = models.DateTimeField(null=True)
    is_public = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        db_table = "tasks"
        indexes = (models.Index(fields=["owner", "created_at"]),)

    def __str__(self) -> str:
        return self.title
