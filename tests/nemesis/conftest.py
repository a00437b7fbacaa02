"""Lends the fixtures of the fault tests to those of the nemesis. Never defines one itself."""

from tests.faults.conftest import figures, full

__all__ = ["figures", "full"]
