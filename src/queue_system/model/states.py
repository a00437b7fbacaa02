"""The states of an operation, and the verbs that settle a delivery: one table for Python and for the scripts.

Never talks to Redis. The scripts know the table as `render_states` and `render_verbs` write it in Lua.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class OperationState(StrEnum):
    """What a record says of its operation. `public` is the word for users."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"

    @property
    def is_live(self) -> bool:
        """Whether the operation still is to run, or runs."""
        return not self.is_final

    @property
    def is_waiting(self) -> bool:
        """Whether no worker holds it."""
        return self in (OperationState.QUEUED, OperationState.DELAYED)

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come but callbacks."""
        return self in (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.REJECTED)

    @property
    def public(self) -> str:
        """The word for it in the API, on the command line and in metrics."""
        return SYSTEM_ERROR if self is OperationState.REJECTED else self.value


SYSTEM_ERROR: Final = "system_error"
"""The one public word for an operation that was rejected: it lies in the list `system_errors`."""


class Verb(StrEnum):
    """What a settlement makes of its delivery. Where these are told apart, a new one fails type-checking."""

    COMPLETE = "complete"
    FAIL = "fail"
    REJECT = "reject"
    RETRY = "retry"
    RELEASE = "release"
    RUNNING = "running"
    """A note that the operation runs; it settles nothing."""


class Code(StrEnum):
    """What a script answers for one delivery."""

    DONE = "d"
    WENT = "o"
    """Done, and the oldest dead letter went."""
    LOST = "l"
    KEPT = "k"
    """The item waits, the dead letters being full."""


class Form(NamedTuple):
    """How a verb is sent: how many arguments a delivery has, and which codes may come back besides `LOST`."""

    arity: int
    codes: tuple[Code, ...] = (Code.DONE,)


VERBS: Final[dict[str, Form]] = {
    "plain": Form(3),
    Verb.COMPLETE: Form(5),
    Verb.FAIL: Form(6, (Code.DONE, Code.WENT)),
    Verb.REJECT: Form(6, (Code.DONE, Code.WENT)),
    "decline": Form(7, (Code.DONE, Code.WENT, Code.KEPT)),
    "discard": Form(6, (Code.DONE, Code.WENT)),
    "shelve": Form(7, (Code.DONE, Code.WENT)),
    Verb.RETRY: Form(5),
    Verb.RELEASE: Form(1),
    "aside": Form(2),
    Verb.RUNNING: Form(3),
}
"""The verbs of settle.lua, which has other forms of some. Its header says what each argument is."""


def render_states() -> str:
    """Return the states as functions in Lua."""
    kinds = {
        "is_waiting": [state for state in OperationState if state.is_waiting],
        "is_live": [state for state in OperationState if state.is_live],
        "is_final": [state for state in OperationState if state.is_final],
    }
    tests = {name: " or ".join(f"status == '{state}'" for state in states) for name, states in kinds.items()}
    names = [f"local {state.name} = '{state}'" for state in OperationState]
    return "\n\n".join([*names, *(f"local function {name}(status) return {test} end" for name, test in tests.items())])


def render_verbs() -> str:
    """Return the arities of the verbs, and the codes, as tables and names in Lua."""
    arities = ", ".join(f"{verb} = {form.arity}" for verb, form in VERBS.items())
    codes = [f"local {code.name} = '{code}'" for code in Code]
    return "\n\n".join([f"local ARITY = {{{arities}}}", *codes])
