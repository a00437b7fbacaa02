"""Whether a server is a replica, and of which primary: in its own words."""

from __future__ import annotations

from typing import Any, Final

from queue_system.broker.protocol import plain
from queue_system.broker.replies import parse_info


def primary_in(info: dict[str, str]) -> str:
    """Return the address of the primary that a replica follows, from INFO's fields; "" of a server that is none."""
    if info.get("role") not in {"slave", "replica"}:
        return ""
    host = info.get("master_host", "?")
    return f"{f'[{host}]' if ':' in host else host}:{info.get('master_port', '?')}"


def _primary(reply: Any) -> str:
    return primary_in(parse_info(reply)) if isinstance(reply, bytes) else ""  # an ACL may deny INFO


PRIMARY: Final = plain(_primary, "INFO", "replication")
"""Asks a server which primary it follows; "": none, or it does not say."""
