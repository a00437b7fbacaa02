"""What a forked child must begin anew, such as locks that another thread of its parent holds."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Inheritable", "renew_in_children"]


class Inheritable(Protocol):
    """What lives on in forked children."""

    def renew(self) -> None:
        """Note, in a child that was forked just now, that no other thread of the parent is there any more."""


_inherited: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def renew_in_children(inheritable: Inheritable) -> None:
    """Renew it in every child that is forked from now on, for as long as it is used."""
    _inherited.add(inheritable)


def _renew_all() -> None:
    for inheritable in list(_inherited):
        inheritable.renew()


os.register_at_fork(after_in_child=_renew_all)
