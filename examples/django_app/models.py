"""What the shop keeps."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order. It is confirmed by a worker."""

    article = models.CharField(max_length=100)
    confirmed = models.BooleanField(default=False)

    class Meta:
        """Belongs to this application, wherever its folder lies."""

        app_label = "django_app"

    def __str__(self) -> str:
        return f"{self.article} ({self.pk})"
