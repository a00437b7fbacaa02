"""A target that never ends its import."""

from __future__ import annotations

import sys
import threading

from tests.supervision.app import config

__all__ = ["config"]

sys.stderr.write("stuck\n")
threading.Event().wait()
