"""A Flask service that resizes images in the background: enqueue one, ask for its state."""

from __future__ import annotations

from typing import Any

from flask import Flask, request, url_for
from flask.typing import ResponseReturnValue

from queue_system import CircuitOpenError, InvalidInputError, QueueConfig, QueueManager, ServerError

config = QueueConfig(allowed_modules=[__name__])  # names in Redis lead to functions of this module only
queue = QueueManager(config)
app = Flask(__name__)


def resize_image(image: dict[str, Any]) -> dict[str, Any]:
    """Resize an image. This runs in a thread of a worker, never in a request."""
    return {"name": image["name"], "width": image["width"]}


@app.post("/images")
def enqueue_image() -> ResponseReturnValue:
    """Take an image; `Location` says where the state of its operation is."""
    answer = queue.enqueue(request.get_json(), resize_image)
    location = url_for("show_operation", operation_id=answer["operation_id"])
    return {"operation_id": answer["operation_id"]}, 202, {"Location": location}


@app.get("/operations/<operation_id>")
def show_operation(operation_id: str) -> ResponseReturnValue:
    """Tell the state of an operation, and its result once it has one."""
    record = queue.get_operation(operation_id)
    if record is None:
        return {"detail": "there is no such operation, or no longer"}, 404
    return {"status": record.status, "result": record.result, "error": record.error, "finished": record.finished}


@app.errorhandler(InvalidInputError)
def refuse(error: InvalidInputError) -> ResponseReturnValue:
    """Tell what is wrong with the input."""
    return {"detail": str(error), "field": error.field}, 422


@app.errorhandler(ServerError)
@app.errorhandler(CircuitOpenError)
def ask_to_try_again(error: Exception) -> ResponseReturnValue:
    """Tell when to try again, and nothing of the server behind the queue."""
    after_s = error.retry_after if isinstance(error, CircuitOpenError) else 5.0
    return {"detail": "the queue is not available"}, 503, {"Retry-After": str(int(after_s) + 1)}
