"""The endpoint."""

from django.db.models import QuerySet
from django.urls import path
from rest_framework.generics import ListAPIView
from rest_framework.serializers import CharField, ModelSerializer

from tasks.models import Task


class TaskSerializer(ModelSerializer):
    owner = CharField(source="owner.username", read_only=True)

    class Meta:
        model = Task
        fields = (
            "id",
            "title",
            "description",
            "status",
            "due_at",
            "is_public",
            "owner",
            "created_at",
            "updated_at",
        )


class TaskList(ListAPIView):
    """The latest tasks of the user."""

    serializer_class = TaskSerializer

    def get_queryset(self) -> QuerySet[Task]:
        return self.request.user.tasks.order_by("-created_at")  # each comes with its owner, without a join


urlpatterns = [path("tasks/", TaskList.as_view())]
