"""Several real servers that belong together: a primary with replicas and sentinels, and a cluster.

Each starts in about two seconds on free ports of 127.0.0.1, from any server's program. A test may kill, freeze and
switch its servers; `heal` brings all of them back.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from pathlib import Path
from typing import Any, Final, Self

import redis

from tests.kit.servers import OwnServer
from tests.kit.waiting import wait_until

DOWN_AFTER_MS: Final = 1000
"""After how long a silence sentinels take a server for dead."""
NODE_TIMEOUT_MS: Final = 2000
"""After how long a silence the nodes of a cluster take one for dead."""
SERVICE: Final = "main"
"""The name under which sentinels know the primary."""
SLOTS: Final = 16384
_ANSWERS_WITHIN_S: Final = 2.0
_PORTS: Final = range(12_000, 22_000)
"""Below those that the system gives to outgoing connections; a cluster's nodes talk on ports 10,000 above theirs."""
_SENTINEL_DEFAULTS: Final = {
    "down-after-milliseconds": str(DOWN_AFTER_MS),
    "failover-timeout": "6000",
    "parallel-syncs": "5",
}


class Node(OwnServer):
    """A server of a topology: it has a port, and a file with its settings that the server itself writes to."""

    def __init__(self, *, binary: Path | None = None, sentinel: str = "", **options: str) -> None:
        """`sentinel` is what a sentinel's file says beyond the settings; "" for a server that keeps data."""
        usual = {"appendfsync": "everysec", "repl_diskless_sync_delay": "0"}
        super().__init__(binary=binary, tcp=True, **({} if sentinel else usual), **options)
        self.port = free_port_pair()
        self._sentinel = sentinel
        self.frozen = False

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def runs(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self._process is not None

    def ask(self, *words: str | int) -> Any:
        """Run one command on it, on a connection of its own, and return the reply."""
        with contextlib.closing(self.client(socket_timeout=_ANSWERS_WITHIN_S, decode_responses=True)) as client:
            return client.execute_command(*words)

    def fields(self, *words: str) -> dict[str, str]:
        """Run a command that answers with a field a line, such as INFO."""
        reply = self.ask(*words)
        if isinstance(reply, dict):  # redis-py reads some itself
            return {name: str(value) for name, value in reply.items()}
        return dict(line.split(":", 1) for line in reply.splitlines() if ":" in line)

    def role(self) -> str:
        """Whether it is a `"master"` or a `"slave"` now; "" if it does not answer."""
        try:
            return str(self.ask("ROLE")[0])
        except (redis.RedisError, OSError):
            return ""

    def freeze(self) -> None:
        """Let it do nothing, with its connections open, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """Let it go on. Does nothing if it is not frozen."""
        if self.frozen:
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """End it at once, also when it is frozen."""
        super().kill()
        self.frozen = False

    def _command(self) -> list[str]:
        binary, *settings = super()._command()
        path = self.folder / "server.conf"
        if not path.exists():  # afterwards it is the server's own
            keeps = [(name[2:], value) for name, value in zip(settings[::2], settings[1::2], strict=True)]
            if self._sentinel:
                keeps = [(name, value) for name, value in keeps if name in {"port", "bind", "dir", "requirepass"}]
            lines = [f'{name} "{value}"' for name, value in keeps]
            path.write_text("\n".join([*lines, self._sentinel, ""]), encoding="utf-8")
        return [binary, str(path), *(["--sentinel"] if self._sentinel else [])]


class _Topology:
    """Servers that start and end together."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        """Those that keep data."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all, and wait until they have found each other."""
        raise NotImplementedError

    def close(self) -> None:
        """Kill all servers and remove their data."""
        for node in self._all():
            node.close()

    def node_at(self, port: int) -> Node:
        """The node that listens at a port. Raises KeyError."""
        return {node.port: node for node in self.nodes}[port]

    def _all(self) -> list[Node]:
        return self.nodes

    def _revive(self) -> None:
        for node in self._all():
            node.thaw()
            if not node.runs:
                node.start()

    def _in_step(self) -> bool:
        """Tell whether every replica follows a primary and has all that this one has."""
        try:
            told = [node.fields("INFO", "replication") for node in self.nodes]
        except (redis.RedisError, OSError):
            return False
        return all(each["role"] == "master" or each["master_link_status"] == "up" for each in told)


class OwnSentinel(_Topology):
    """One primary, its replicas, and the sentinels that watch them under the name `main`.

    `options` are settings of the primary and the replicas, with `_` for `-`.
    """

    def __init__(self, replicas: int = 2, sentinels: int = 3, *, binary: Path | None = None, **options: str) -> None:
        password = options.get("requirepass")
        if password:
            options["masterauth"] = password
        super().__init__([Node(binary=binary, **options) for _ in range(replicas + 1)])
        first = self.nodes[0]
        quorum = sentinels // 2 + 1
        lines = [f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} {quorum}"]
        lines += [f"sentinel {name} {SERVICE} {value}" for name, value in _SENTINEL_DEFAULTS.items()]
        if password:
            lines.append(f"sentinel auth-pass {SERVICE} {password}")
        self.sentinels = [Node(binary=binary, sentinel="\n".join(lines)) for _ in range(sentinels)]
        self._options = options

    @property
    def url(self) -> str:
        """All sentinels and the service, as `QueueConfig(redis_url=...)` takes them."""
        password = self._options.get("requirepass")
        secret = f":{password}@" if password else ""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{secret}{hosts}/{SERVICE}"

    @property
    def primary(self) -> Node:
        """The node that the sentinels name."""
        return self.node_at(self.named())

    @property
    def replicas(self) -> list[Node]:
        """All nodes but the one that the sentinels name."""
        named = self.named()
        return [node for node in self.nodes if node.port != named]

    def start(self) -> None:
        """Start all, and wait until the sentinels know each other and the replicas, which have all data."""
        first, *others = self.nodes
        for node in self.nodes:
            node.start()
        for node in others:
            _subordinate(node, first)
        wait_until(self._in_step, "the replicas have the primary's data")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(self._agree, "the sentinels know each other and the replicas")

    def named(self) -> int:
        """The port of the primary, as most sentinels that answer name it. Raises RuntimeError if none does."""
        ports = [port for port in map(_named_by, self.sentinels) if port]
        if not ports:
            raise RuntimeError("no sentinel names a primary")
        return max(set(ports), key=ports.count)

    def client(self, **settings: Any) -> redis.Redis:
        """A new client of the primary that the sentinels name now; whoever asks for it closes it."""
        return self.primary.client(**settings)

    def failover(self, *how: str) -> Node:
        """Let a sentinel switch, wait until most name another primary, and return that. `how` goes to the command."""
        former = self.named()
        self._any_sentinel().ask("SENTINEL", "FAILOVER", SERVICE, *how)
        return self.wait_until_switched(former)

    def wait_until_switched(self, former: int) -> Node:
        """Wait until the sentinels name another primary than the one at this port, and return it."""
        wait_until(lambda: self.named() != former, "the sentinels name another primary")
        return self.primary

    def heal(self) -> None:
        """Bring every server back, and wait until one is the primary and the others follow it. Data stay.

        Sentinels would set right what came back as a primary, too, but after ten seconds and more.
        """
        for sentinel in self.sentinels:
            sentinel.thaw()
            if not sentinel.runs:
                sentinel.start()
        wait_until(self._is_settled, "no failover is under way")
        self._revive()
        wait_until(self._is_healed, "primary, replicas and sentinels are whole again")

    def _all(self) -> list[Node]:
        return [*self.sentinels, *self.nodes]

    def _any_sentinel(self) -> Node:
        return next(each for each in self.sentinels if each.runs and not each.frozen)

    def _is_settled(self) -> bool:
        """Tell whether all sentinels name the same primary, which is one, and none is about to name another."""
        try:
            told = [_pairs(each.ask("SENTINEL", "MASTER", SERVICE)) for each in self.sentinels]
        except (redis.RedisError, OSError):
            return False
        calm = not any("failover_in_progress" in each["flags"] for each in told)
        return calm and self._agree_on_primary() and self.primary.role() == "master"

    def _is_healed(self) -> bool:
        """Tell whether all is whole; make a replica of what came back as a primary."""
        if not self._is_settled():
            return False
        primary = self.primary
        try:
            for node in self.nodes:
                if node is not primary and not _follows(node, primary):
                    _subordinate(node, primary)
        except (redis.RedisError, OSError):
            return False
        return self._agree() and self._in_step()

    def _agree_on_primary(self) -> bool:
        return len({_named_by(each) for each in self.sentinels} - {0}) == 1

    def _agree(self) -> bool:
        """Tell whether each sentinel reaches the same primary, all replicas and all other sentinels."""
        try:
            told = [_pairs(each.ask("SENTINEL", "MASTER", SERVICE)) for each in self.sentinels]
            reached = [
                [_pairs(replica)["flags"] for replica in each.ask("SENTINEL", "REPLICAS", SERVICE)].count("slave")
                for each in self.sentinels
            ]
        except (redis.RedisError, OSError):
            return False
        whole = {"num-other-sentinels": str(len(self.sentinels) - 1), "flags": "master"}
        wanted = len(self.nodes) - 1
        roles = sorted(node.role() for node in self.nodes)
        return (
            self._agree_on_primary()
            and all(whole.items() <= each.items() for each in told)
            and min(reached) == wanted
            and roles == ["master"] + ["slave"] * wanted
        )


class OwnCluster(_Topology):
    """A cluster of primaries that share the slots evenly, and of replicas, one or more for each in turn.

    `options` are settings of every node, with `_` for `-`.
    """

    def __init__(self, primaries: int = 3, replicas: int = 3, *, binary: Path | None = None, **options: str) -> None:
        settings = {"cluster_enabled": "yes", "cluster_node_timeout": str(NODE_TIMEOUT_MS), **options}
        super().__init__([Node(binary=binary, **settings) for _ in range(primaries + replicas)])
        self._primaries = primaries

    @property
    def url(self) -> str:
        """All nodes, as `QueueConfig(redis_url=...)` takes them."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    @property
    def primaries(self) -> list[Node]:
        """The nodes that are primaries now, in the order in which they were started."""
        return [node for node in self.nodes if node.role() == "master"]

    def start(self) -> None:
        """Start all, and wait until each knows all others and every slot is served."""
        first = self.nodes[0]
        for node in self.nodes:
            node.start()
        bounds = [SLOTS * i // self._primaries for i in range(self._primaries + 1)]
        for i, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i < self._primaries:
                node.ask("CLUSTER", "ADDSLOTS", *range(bounds[i], bounds[i + 1]))
            if i:
                first.ask("CLUSTER", "MEET", *node.address)
        wait_until(self._all_met, "the nodes know each other")
        for i, node in enumerate(self.nodes[self._primaries :]):
            node.ask("CLUSTER", "REPLICATE", self.nodes[i % self._primaries].ask("CLUSTER", "MYID"))
        wait_until(self._is_whole, "the cluster serves every slot, and replicas have the data")

    def heal(self) -> None:
        """Bring every server back, and wait until every slot is served and replicas follow. Roles and data stay."""
        self._revive()
        wait_until(self._is_whole, "the cluster is whole again")

    def _all_met(self) -> bool:
        return all(_known(node) == len(self.nodes) for node in self.nodes)

    def _is_whole(self) -> bool:
        try:
            states = [node.fields("CLUSTER", "INFO") for node in self.nodes]
        except (redis.RedisError, OSError):
            return False
        served = all(each["cluster_state"] == "ok" and each["cluster_slots_ok"] == str(SLOTS) for each in states)
        shape = [node.role() for node in self.nodes].count("master")
        return served and shape == self._primaries and self._in_step()


def free_port_pair() -> int:
    """A port of 127.0.0.1 that nobody uses now, nor the one 10,000 above it. Raises RuntimeError."""
    for port in random.sample(_PORTS, 200):
        if _is_free(port) and _is_free(port + 10_000):
            return port
    raise RuntimeError("no free port was found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _named_by(sentinel: Node) -> int:
    """Return the port of the primary that a sentinel names; 0 if it does not answer."""
    if not sentinel.runs or sentinel.frozen:
        return 0
    try:
        host_and_port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
    except (redis.RedisError, OSError):
        return 0
    return int(host_and_port[1])


def _pairs(flat: Any) -> dict[str, str]:
    """Return a reply of names and values in turn; redis-py gives some as a dictionary."""
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _subordinate(node: Node, primary: Node) -> None:
    """Make a node a replica, for good."""
    node.ask("REPLICAOF", *primary.address)
    node.ask("CONFIG", "REWRITE")


def _follows(node: Node, primary: Node) -> bool:
    return node.fields("INFO", "replication").get("master_port") == str(primary.port)


def _known(node: Node) -> int:
    return int(node.fields("CLUSTER", "INFO")["cluster_known_nodes"])
