"""What the exporter and the workers of tests/monitoring/test_alerts.py are started with."""

from __future__ import annotations

import os

from queue_system import QueueConfig

config = QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"], lease_seconds=1.0)
