"""A FastAPI service that makes reports in the background: enqueue one, ask for its state, or watch it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from queue_system import QueueConfig, QueueManager, web


class ReportRequest(BaseModel):
    """What a client asks for."""

    title: str
    pages: int = Field(ge=1, le=1000)


async def make_report(report: dict[str, Any]) -> dict[str, str]:
    """Make a report. This runs in a worker, never in a request."""
    await asyncio.sleep(report["pages"] * 0.05)
    return {"title": report["title"], "file": f"{report['title']}.pdf"}


config = QueueConfig(allowed_modules=[__name__])  # names in Redis lead to functions of this module only
app = FastAPI(lifespan=web.lifespan(config), exception_handlers=web.exception_handlers)
Queue = Annotated[QueueManager, Depends(web.queue)]


@app.post("/reports", status_code=202)
async def enqueue_report(report: ReportRequest, queue: Queue, response: Response) -> dict[str, Any]:
    """Take the request for a report; `Location` says where its state is."""
    answer = await queue.aenqueue(report.model_dump(), make_report, timeout=120)
    response.headers["Location"] = app.url_path_for("show_operation", operation_id=answer["operation_id"])
    return {"operation_id": answer["operation_id"], "status": answer["status"]}


@app.get("/operations/{operation_id}")
async def show_operation(operation_id: str, queue: Queue) -> dict[str, Any]:
    """Tell the state of an operation, and its result once it has one."""
    record = await queue.aget_operation(operation_id)
    if record is None:
        raise HTTPException(404, "there is no such operation, or no longer")
    return web.operation_json(record)


@app.get("/operations/{operation_id}/events")
async def watch_operation(operation_id: str, queue: Queue) -> StreamingResponse:
    """Stream the state of an operation until it has finished."""
    return await web.operation_stream(queue, operation_id)


@app.get("/health")
async def show_health() -> dict[str, str]:
    """Tell that this process serves; it does not ask Redis."""
    return {"status": "ok"}
