"""An application that kills whoever imports it. Never gets to work."""

from __future__ import annotations

import os

os._exit(7)
