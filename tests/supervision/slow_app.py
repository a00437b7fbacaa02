"""An application that takes its time to be imported. Never gets to work."""

from __future__ import annotations

import sys
import time

from queue_system import QueueConfig

sys.stderr.write("importing\n")
time.sleep(0.5)
config = QueueConfig()
