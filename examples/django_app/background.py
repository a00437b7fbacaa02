"""The queue of the project, and what its workers run. Never imported before the settings are known."""

from __future__ import annotations

from typing import Any

import django
from django.apps import apps
from django.db import close_old_connections

from queue_system import QueueConfig, QueueManager

if not apps.ready:  # in a worker, which nobody else prepares
    django.setup()

from examples.django_app.models import Order

config = QueueConfig(allowed_modules=[__name__])  # names in Redis lead to functions of this module only
queue = QueueManager(config)


def confirm_order(data: dict[str, Any]) -> dict[str, Any]:
    """Confirm an order; confirming it twice changes nothing. Runs in a thread of a worker."""
    close_old_connections()
    try:
        Order.objects.filter(pk=data["order"]).update(confirmed=True)
        return {"confirmed": data["order"]}
    finally:
        close_old_connections()
