"""The code that the specification shows, as it stands there, its queries apart. Never runs any of it.

Only the server's address differs when a test runs a block: `program` puts in that of a real one.
"""

from __future__ import annotations

from typing import Final

REDIS_URL: Final = "redis://localhost:6379/0"

BASIC_USAGE: Final = """\
import asyncio
from queue_system import QueueConfig, QueueManager, QueueWorker, QueueRetryConfig
from utils import with_timeout, circuit_breaker, retry_with_backoff

# Create shared configuration
config = QueueConfig(redis_url="redis://localhost:6379/0")

# Create queue manager and worker
queue = QueueManager(config=config)
worker = QueueWorker(config=config, max_workers=2)

# Define processor function (can be async)
async def process_data(data):
    # Process the data...
    return {"status": "success", "result": data}

# Define callback function (can be async)
async def on_success(data):
    print(f"Successfully processed: {data['result']}")

# Enqueue an operation - simple, synchronous API
queue.enqueue(
    entity={"user_id": "123", "action": "update"},
    processor=process_data,
    priority="high",
    on_success=on_success
)

# Start the worker (this is async because it runs continuously)
async def main():
    await worker.start()
    try:
        # Keep the worker running
        while True:
            await asyncio.sleep(1)
    except KeyboardInterrupt:
        # Stop the worker on Ctrl+C
        await worker.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""

WITH_TIMEOUT: Final = """\
@with_timeout(default_timeout=30.0)
async def critical_operation():
    # This function will raise TimeoutError if it exceeds 30 seconds
    ...
"""

CIRCUIT_BREAKER: Final = """\
@circuit_breaker(name="redis_operations", failure_threshold=5, recovery_timeout=30.0)
def redis_operation():
    # If this fails 5 times, circuit opens and immediately rejects further calls
    # After 30 seconds, it will allow a trial call to see if service recovered
    ...
"""

RETRY_WITH_BACKOFF: Final = """\
@retry_with_backoff(max_retries=3, base_delay=0.5, exceptions=(ConnectionError,))
def network_operation():
    # If ConnectionError occurs, retry up to 3 times with increasing delays
    ...
"""

RETRY_DEFAULT: Final = """\
retry_config = QueueRetryConfig()  # Uses exponential backoff (base=2, min=1s)
"""

RETRY_FIXED: Final = """\
retry_config = QueueRetryConfig.fixed(
    delay=30,            # 30-second delay between retries
    max_attempts=3,      # Maximum 3 retry attempts
    timeout=300          # Stop retrying after 5 minutes
)
"""

RETRY_EXPONENTIAL: Final = """\
retry_config = QueueRetryConfig.exponential(
    base=2.0,            # Multiply delay by 2 each retry
    min_delay=1.0,       # Start with 1 second delay
    max_delay=60.0,      # Maximum 60 second delay
    max_attempts=5,      # Maximum 5 retry attempts
    timeout=3600         # Stop retrying after 1 hour
)
"""

RETRY_CUSTOM: Final = """\
retry_config = QueueRetryConfig.custom(
    delays=[60, 300, 1800, 7200],  # Custom delay schedule
    timeout=86400                  # Stop retrying after 1 day
)
"""

CALLBACKS: Final = """\
async def notify_success(data):
    print(f"Operation {data['operation_id']} succeeded")

async def notify_failure(data):
    print(f"Operation {data['operation_id']} failed: {data['error']}")

queue.enqueue(
    entity={"user_id": "123"},
    processor=process_data,
    retry_config=retry_config,
    on_success=notify_success,
    on_failure=notify_failure
)
"""

STATUS: Final = """\
status = queue.get_queue_status()
print(status)  # {'queue:high:process_data': 5, 'queue:normal:send_email': 10, ...}
"""

BATCH: Final = """\
# Process multiple items in a single call
entities = [
    {"id": 1, "name": "Item 1"},
    {"id": 2, "name": "Item 2"},
    {"id": 3, "name": "Item 3"}
]

results = queue.enqueue_batch(
    entities=entities,
    processor=process_data,
    priority="high",
    retry_config=retry_config
)

print(f"Enqueued {len(results)} items")
"""

METRICS: Final = """\
# Get current metrics
metrics = config.get_metrics()

# Check success rate
success_rate = metrics.get('success_rate', 0)
print(f"Success rate: {success_rate:.1f}%")

# Check processing volumes
processed = metrics.get('processed', 0)
enqueued = metrics.get('enqueued', 0)
failed = metrics.get('failed', 0)
print(f"Processed: {processed}/{enqueued} (Failed: {failed})")

# Check processing times
avg_process_time = metrics.get('avg_process_time', 0)
print(f"Average processing time: {avg_process_time:.2f}ms")
"""

FASTAPI: Final = """\
from fastapi import FastAPI, BackgroundTasks
from queue_system import QueueConfig, QueueManager, QueueWorker, QueueRetryConfig

app = FastAPI()

# Create shared configuration
config = QueueConfig(redis_url="redis://localhost:6379/0")

# Create manager and worker
queue = QueueManager(config=config)
worker = QueueWorker(config=config, max_workers=2)

@app.on_event("startup")
async def startup_event():
    await worker.start()

@app.on_event("shutdown")
async def shutdown_event():
    await worker.stop()

@app.post("/process")
async def process_request(data: dict):
    # Synchronous API for queueing
    result = queue.enqueue(
        entity=data,
        processor=process_data,
        retry_config=QueueRetryConfig.exponential(timeout=3600)
    )
    return {"operation_id": result["operation_id"], "status": "queued"}

@app.post("/process-batch")
async def process_batch(data: list):
    # Batch API for higher throughput
    results = queue.enqueue_batch(
        entities=data,
        processor=process_data,
        retry_config=QueueRetryConfig.exponential(timeout=3600)
    )
    return {"operation_count": len(results), "status": "queued"}
"""

ERROR_HANDLING: Final = """\
# Get queue status
status = queue.get_queue_status()

# Check failures and system errors
failures_count = status.get('queue:failures', 0)
system_errors_count = status.get('queue:system_errors', 0)

print(f"Failed operations: {failures_count}")
print(f"System errors: {system_errors_count}")
"""

MONITORING: Final = """\
# Metrics logs are automatically sent to your configured log storage
# No additional configuration needed - just use your existing logger:

# When a metric changes significantly
config.update_metric('processed', 1)  # This will log when crossing thresholds

# Force logging for important updates
config.update_metric('success_rate', current_rate, force_log=True)
"""

SHUTDOWN: Final = """\
# 1. Signal that workers should stop processing new items
await worker.stop()

# 2. Optionally flush any metrics or logs
config.logger.info("Shutting down queue system")

# 3. Close Redis connections explicitly if needed
if hasattr(config, 'redis_client') and config.redis_client:
    config.redis_client.close()
"""

ADJUSTED_BREAKER: Final = """\
@circuit_breaker(failure_threshold=10, recovery_timeout=60.0)
"""

ADJUSTED_TIMEOUT: Final = """\
@with_timeout(default_timeout=120.0)  # Increase for longer operations
"""

ADJUSTED_RETRY: Final = """\
@retry_with_backoff(max_retries=5, base_delay=1.0, max_delay=30.0)
"""


def program(*blocks: str, redis_url: str) -> str:
    """Join blocks into one program that uses the server at `redis_url`."""
    return "\n".join(blocks).replace(REDIS_URL, redis_url)
