"""A server whose users are those of docs/acl, and that lets nobody else in. Never widens what those files allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from tests.kit.servers import OwnServer
from tests.kit.source import ROOT

FILES = ROOT / "docs" / "acl"
ROLES = ("producer", "enqueuer", "worker", "operator", "viewer")
FRESH_PREFIX = "t????????????:"
"""The pattern of the prefixes that the `prefix` fixture makes."""
_SECRET = "acl-secret"


def rules(role: str) -> str:
    """What the file of a role says, in one line."""
    return (FILES / f"{role}.acl").read_text(encoding="utf-8").strip()


class AclServer(OwnServer):
    """Its `url` is that of the worker; `url_of` names the other roles; `client()` is an administrator.

    `prefix` stands for `queue:` in the files; `without` are commands that the server is too old to know.
    """

    def __init__(
        self, prefix: str = "queue:", *, binary: Path | None = None, without: str = "", **options: str
    ) -> None:
        super().__init__(binary=binary, tcp=False, **options)
        users = ["user default off", f"user admin on >{_SECRET} ~* &* +@all"]
        for role in ROLES:
            line = rules(role).replace("queue:", prefix).replace(f" {role} reset", f" {role} reset on >{_SECRET}")
            users.append(" ".join(word for word in line.split(" ") if word not in without.split()))
        path = self.folder / "users.acl"
        path.write_text("\n".join([*users, ""]), encoding="utf-8")
        self._options["aclfile"] = str(path)

    @property
    def url(self) -> str:
        """The address with the worker's name and password."""
        return self.url_of("worker")

    def url_of(self, user: str) -> str:
        """The address with the name and password of one of the roles, or of `admin`."""
        return super().url.replace("://", f"://{user}:{_SECRET}@", 1)

    def client(self, **settings: Any) -> redis.Redis:
        """A new client that may do everything; whoever asks for it closes it."""
        return redis.Redis.from_url(self.url_of("admin"), **settings)
