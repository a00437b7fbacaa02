"""The views of the shop: place an order, and see it."""

from __future__ import annotations

import json
from functools import partial

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from examples.django_app.background import confirm_order, queue
from examples.django_app.models import Order


@csrf_exempt
@require_POST
def place_order(request: HttpRequest) -> JsonResponse:
    """Store an order and have it confirmed, or neither: what is enqueued on commit is not enqueued on rollback."""
    data = json.loads(request.body)
    with transaction.atomic():
        order = Order.objects.create(article=data["article"])
        enqueue = partial(queue.enqueue, {"order": order.pk}, confirm_order, operation_id=f"confirm-{order.pk}")
        transaction.on_commit(enqueue)
        if data.get("amount", 1) < 1:
            transaction.set_rollback(True)
            return JsonResponse({"detail": "amount: use at least 1"}, status=422)
    return JsonResponse({"order": order.pk}, status=202, headers={"Location": f"/orders/{order.pk}"})


@require_GET
def show_order(_request: HttpRequest, order: int) -> JsonResponse:
    """Tell an order, and what is known of its confirmation."""
    confirmed = Order.objects.values_list("confirmed", flat=True).get(pk=order)
    record = queue.get_operation(f"confirm-{order}")
    return JsonResponse({"confirmed": confirmed, "operation": None if record is None else record.status})
