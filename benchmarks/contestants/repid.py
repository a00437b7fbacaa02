"""repid on Redis streams: batches of 100 per read, 1,000 tasks at once, uvloop and hiredis, keep-alive off.

Abandoned messages are not taken over by default; the recovery measure switches that on: every second, idle for 2 s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvloop
from repid import Header, Message, RedisServer, Repid, Router

from benchmarks.contestants.protocol import Order, Payload, Sender, noop, noop_sync
