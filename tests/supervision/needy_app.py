"""An application that needs what is not installed. Never gets to work."""

from __future__ import annotations

import a_module_that_is_missing  # type: ignore[import-not-found]

config = a_module_that_is_missing.config
