"""Commands that look at the server, its users and its keys, for a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import key_slot

from queue_system.broker.failures import typed
from queue_system.broker.protocol import Argument, Command, Script, load_script, pack, plain
from queue_system.broker.replies import parse_info
from queue_system.broker.wire import ErrorReply
from queue_system.errors import AccessDeniedError

_TRY: Final = Script("try", "#!lua flags=no-writes\n" + load_script("try").source.decode())

_TRIES: Final[Mapping[str, str]] = {line.partition(" ")[0]: line for line in (
    "time", "wait 0 0", "waitaof 0 0 0", "get @operation:x", "set @operation:x v", "msetnx @operation:x v",
    "del @operation:x", "exists @operation:x", "pexpire @change:x 1", "hget @dedup f", "hmget @dedup f",
    "hset @dedup f v", "hdel @dedup f", "hlen @dedup", "hgetall @metrics", "hincrby @metrics f 1", "hkeys @workers",
    "hexists @inflight:x f", "hscan @workers 0", "llen @failures", "lindex @high:x 0", "lpush @high:x v",
    "rpush @high:x v", "rpop @high:x", "lrem @failures 0 v", "ltrim @high:x 0 1", "srem @registry v",
    "lrange @failures 0 1", "lset @failures 0 v", "sadd @registry v", "scard @registry", "sscan @registry 0",
    "zadd @delayed 0 v", "zcard @delayed", "zrem @delayed v", "zscan @delayed 0", "zscore @ready:high v",
    "zrange @ready:high 0 1", "zrevrange @waiters 0 1", "zrangebyscore @resting 0 1", "zremrangebyrank @wake 0 1",
    "zremrangebyscore @waiters 0 1", "bzpopmin @wake:x 0.01", "xadd @change:x * f v", "xread streams @change:x 0",
    "xrevrange @change:x + -",
)}  # fmt: skip
"""Each command with the least arguments; `@` stands for the prefix."""
_COUNTING: Final = "time llen zcard sscan hlen hexists hkeys hscan hgetall"
_ENQUEUEING: Final = "time wait waitaof get msetnx exists hget hset hlen hincrby lpush ltrim sadd scard zadd zcard zrem"
_PRODUCING: Final = (
    f"{_ENQUEUEING} llen sscan hexists hkeys hscan hgetall zrangebyscore zremrangebyscore xread xrevrange"
)
ROLES: Final[Mapping[str, str]] = {
    "viewer": f"{_COUNTING} lrange zrangebyscore",
    "enqueuer": _ENQUEUEING,
    "producer": _PRODUCING,
    "worker": (
        f"{_PRODUCING} set del pexpire hdel hmget rpop rpush lindex lset lrem lrange zscan zscore zrange"
        " zrevrange zremrangebyrank bzpopmin xadd srem"
    ),
}
"""What each role of docs/acl must be able to run, beyond what every client needs."""


SENTINELS_TALK: Final = "__sentinel__:hello"
"""The channel on which the sentinels of a server find each other."""


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One node of a cluster, as another one knows it."""

    address: str
    flags: frozenset[str]
    name: str
    primary: str
    """The name of the node that it follows; "" of a primary."""
    epoch: int
    slots: tuple[tuple[int, int], ...]
    """The ranges that it serves, both ends included."""

    def serves(self, slot: int) -> bool:
        """Tell whether it serves a slot."""
        return any(first <= slot <= last for first, last in self.slots)


def try_commands(prefix: str, names: Sequence[str]) -> Command[list[str]]:
    """Note which of some commands the user may not run. It takes Redis 7 or Valkey. Raises KeyError.

    A command that a script may not call on this server counts as allowed.
    """
    words: list[Argument] = []
    for name in names:
        split = _TRIES[name].replace("@", prefix).split(" ")
        words += [len(split), *split]
    return Command("try", _TRY, 1 + len(words), pack((prefix, *words)), lambda replies: _denied(names, replies))


def may_write_many(name: str, prefix: str) -> Command[bool]:
    """Ask whether scripts may run a command that writes many keys with one lifetime. It takes Redis 7 or Valkey."""
    words = (name, 1, f"{prefix}operation:x", "v", "PX", 1)
    return Command("try", _TRY, 2 + len(words), pack((prefix, len(words), *words)), _is_held_back)


def key_page(prefix: str, cursor: str) -> Command[tuple[str, list[str]]]:
    """Read a page of the keys under a prefix. Reply: the next cursor, and the keys."""
    return plain(_parse_keys, "SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1000)


def key_type(key: str) -> Command[str]:
    """Read a key's type, `"none"` where there is none."""
    return plain(bytes.decode, "TYPE", key)


def key_length(kind: str, key: str) -> Command[int]:
    """Read how many elements a key of type `"list"`, `"hash"`, `"set"` or `"zset"` has."""
    return plain(int, {"list": "LLEN", "hash": "HLEN", "set": "SCARD", "zset": "ZCARD"}[kind], key)


def cluster_info() -> Command[dict[str, str]]:
    """Read what a node of a cluster says of its state."""
    return plain(parse_info, "CLUSTER", "INFO")


def slot_of(prefix: str) -> int:
    """Return the slot of a cluster in which the keys of a prefix with a hash tag lie."""
    return int(key_slot(prefix.encode()))


def cluster_nodes() -> Command[list[ClusterNode]]:
    """Read which nodes a node of a cluster knows."""
    return plain(_parse_nodes, "CLUSTER", "NODES")


def sentinels_listening() -> Command[int]:
    """Read how many sentinels watch the server."""
    return plain(lambda reply: int(reply[1]), "PUBSUB", "NUMSUB", SENTINELS_TALK)


def number_of_keys() -> Command[int]:
    """Read how many keys the database has."""
    return plain(int, "DBSIZE")


def delete_keys(keys: Sequence[str]) -> Command[int]:
    """Delete the keys of a measurement. Reply: how many there were."""
    return plain(int, "DEL", *keys)


def _is_held_back(replies: Sequence[bytes]) -> bool:
    """Tell whether only the script's flag stood against a command: the server has it, and the user may run it."""
    return b"read-only script" in replies[0]


def _denied(names: Sequence[str], replies: Sequence[bytes]) -> list[str]:
    errors = [typed(ErrorReply(reply.decode()), "") for reply in replies]
    return [name for name, error in zip(names, errors, strict=True) if isinstance(error, AccessDeniedError)]


def _parse_nodes(reply: Any) -> list[ClusterNode]:
    nodes = []
    for line in reply.decode(errors="replace").splitlines():
        name, address, flags, primary, _, _, epoch, _, *slots = line.split()
        ranges = [slot.partition("-") for slot in slots if not slot.startswith("[")]  # else it moves
        places = tuple((int(first), int(last or first)) for first, _, last in ranges)
        follows = "" if primary == "-" else primary
        known = frozenset(flags.split(","))
        nodes.append(ClusterNode(address.partition("@")[0], known, name, follows, int(epoch), places))
    return nodes


def _parse_keys(reply: Any) -> tuple[str, list[str]]:
    return reply[0].decode(), [key.decode(errors="backslashreplace") for key in reply[1]]
