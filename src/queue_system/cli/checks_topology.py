"""The checks of `doctor` that concern several servers: replicas, sentinels, and the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from queue_system.broker.admission import mode_of
from queue_system.broker.diagnostics import ClusterNode, cluster_info, cluster_nodes, sentinels_listening, slot_of
from queue_system.broker.failures import TO_PRIMARY
from queue_system.broker.role import primary_in
from queue_system.broker.server_check import read_server
from queue_system.broker.watchers import Watch, read_watch
from queue_system.cli.checks import Examination, Level, Result
from queue_system.cli.text import count
from queue_system.errors import ServerError, ServerUnreachableError

_LONGEST_LAG_S: Final = 10
_FEW_SENTINELS: Final = 3
_SLOTS: Final = 16384
_REPLICA_SETTINGS: Final = ("min-replicas-to-write", "min-replicas-max-lag")
_CLUSTER_SETTINGS: Final = ("cluster-require-full-coverage", "cluster-allow-reads-when-down")
_LET_INFO: Final = "let this user run INFO"
_BOTH: Final = f"set min-replicas-to-write 1 and min-replicas-max-lag {_LONGEST_LAG_S} on the primary and its replicas"


@dataclass(slots=True)
class _Findings:
    """What one check has found so far."""

    level: Level = Level.OK
    said: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, problem: str, advice: str, level: Level = Level.WARN) -> None:
        """Note a problem and the way out."""
        self.level = Level.FAIL if Level.FAIL in {level, self.level} else level
        self.said.append(problem)
        self.advice.append(advice)

    def result(self) -> Result:
        """Return all of it as one result."""
        return Result(self.level, "; ".join(self.said), "; ".join(dict.fromkeys(self.advice)), self.details)


def replication(exam: Examination) -> Result:
    """Tell whether this is the primary, how far its replicas are, and whether sentinels could replace it."""
    info, settings = read_server(exam.shard.transport.run, ["replication"], _REPLICA_SETTINGS)
    if "role" not in info:
        return Result(Level.SKIP, "the server does not show its role", _LET_INFO)
    if primary := primary_in(info):
        down = "" if info.get("master_link_status") == "up" else "; its link to that one is down"
        return Result(
            Level.FAIL,
            f"this server is a replica of {primary}: it takes no writes, and what it shows may be old{down}",
            f"{TO_PRIMARY}: --url or QUEUE_SYSTEM_REDIS_URL names it",
            {"role": "replica", "primary": primary},
        )
    replicas = [dict(pair.split("=", 1) for pair in info[name].split(",")) for name in info if _is_replica(name)]
    found = _Findings(details={"role": "primary", "replicas": replicas, **settings})
    watching = 0 if mode_of(exam.info) == "cluster" else _sentinels(exam)
    if not replicas:
        found.said.append("a primary without replicas")
    else:
        _judge_replicas(exam, found, replicas, settings)
    if watching:
        _judge_sentinels(exam, found, watching, len(replicas))
    return found.result()


def _is_replica(name: str) -> bool:
    return name.startswith("slave") and name[5:].isdigit()


def _sentinels(exam: Examination) -> int:
    try:
        return exam.run(sentinels_listening())
    except ServerUnreachableError:
        raise
    except ServerError:  # denied, or in a dialect of its own
        return 0


def _judge_replicas(
    exam: Examination, found: _Findings, replicas: list[dict[str, str]], settings: Mapping[str, str]
) -> None:
    worst = max(int(each.get("lag", 0)) for each in replicas)
    found.said.append(f"the primary of {count(len(replicas), 'replica')}, at most {worst} s behind")
    away = [f"{each.get('ip')}:{each.get('port')}" for each in replicas if each.get("state") != "online"]
    if away:
        found.add(f"not in step: {', '.join(away)}", "look at the log of that replica and at the network")
    if worst > _LONGEST_LAG_S:
        found.add("a replica is far behind", "look at the load of that replica and at the network")
    if exam.config.durability == "replicated" and len(replicas) == 1:
        problem = "durability is 'replicated', and with its only replica gone a primary confirms nothing"
        found.add(problem, "give each primary two replicas")
    if settings.get("min-replicas-to-write") == "0" or settings.get("min-replicas-max-lag") == "0":
        found.add("cut off from its replicas, it would go on taking writes that a failover loses", _BOTH)
    elif int(settings.get("min-replicas-max-lag", 0)) > _LONGEST_LAG_S:
        lag = settings["min-replicas-max-lag"]
        found.add(f"cut off, it would go on taking writes for {lag} s, which a failover loses", _BOTH)
    if exam.settings.get("appendonly") == "no":
        found.add("there is no append-only file", "set appendonly yes on the primary and on its replicas")


def _judge_sentinels(exam: Examination, found: _Findings, watching: int, replicas: int) -> None:
    found.said.append(f"watched by {count(watching, 'sentinel')}")
    found.details["sentinels"] = watching
    if not replicas:
        found.add("no replica could take its place", "give it two replicas")
    if watching < _FEW_SENTINELS:
        found.add("the loss of one sentinel may leave no majority", "run three sentinels on three machines")
    try:
        watch = read_watch(exam.shard.endpoint(), watching)
    except ServerError as error:
        found.said.append(f"their quorum could not be read ({error})")
        return
    if watch is not None:
        _judge_watch(found, watch, replicas)


def _judge_watch(found: _Findings, watch: Watch, replicas: int) -> None:
    found.details |= {"service": watch.service, "quorum": watch.quorum, "known_sentinels": watch.sentinels}
    found.said.append(f"service {watch.service}, quorum {watch.quorum} of {watch.sentinels}")
    if watch.problem:
        found.add(watch.problem, "start the sentinels that are missing, or lower the quorum", Level.FAIL)
    elif watch.quorum > watch.sentinels:
        found.add("the quorum can never be reached", "lower it: SENTINEL SET SERVICE quorum 2", Level.FAIL)
    if watch.replicas != replicas:
        problem = f"the sentinels know {count(watch.replicas, 'replica')}, the primary {replicas}"
        found.add(problem, "SENTINEL RESET forgets those that are gone")


def cluster(exam: Examination) -> Result:
    """Tell the state of the cluster that this node belongs to, and who could take over its slot of the prefix."""
    if (mode := mode_of(exam.info)) != "cluster":
        if not mode:
            return Result(Level.SKIP, "the server does not show its mode", _LET_INFO)
        return Result(Level.OK, f"{mode}: no cluster")
    info = exam.run(cluster_info())
    nodes = exam.run(cluster_nodes())
    _, settings = read_server(exam.shard.transport.run, (), _CLUSTER_SETTINGS)
    slot = slot_of(exam.config.queue_prefix)
    names = ("cluster_state", "cluster_slots_ok", "cluster_known_nodes", "cluster_size", "cluster_current_epoch")
    found = _Findings(details={name: info[name] for name in names if name in info} | {"slot": slot, **settings})
    primaries = [node for node in nodes if not node.primary and node.slots]
    others = count(len(nodes) - len(primaries), "replica")
    found.said.append(f"a cluster of {count(len(primaries), 'primary node')} and {others}")
    _judge_state(found, info, nodes, primaries)
    _judge_slot(found, slot, nodes)
    if settings.get("cluster-require-full-coverage") == "yes":
        problem = "cluster-require-full-coverage is yes: one lost primary without a replica stops all slots"
        found.add(problem, "set cluster-require-full-coverage no on all nodes")
    if settings.get("cluster-allow-reads-when-down") == "yes":
        problem = "cluster-allow-reads-when-down is yes: a node that was cut off shows old data"
        found.add(problem, "set cluster-allow-reads-when-down no on all nodes")
    return found.result()


def _judge_state(
    found: _Findings, info: Mapping[str, str], nodes: list[ClusterNode], primaries: list[ClusterNode]
) -> None:
    if info.get("cluster_state") != "ok" or info.get("cluster_slots_ok") != str(_SLOTS):
        problem = (
            f"its state is {info.get('cluster_state', '?')}; {info.get('cluster_slots_ok', '?')} of {_SLOTS} slots work"
        )
        found.add(problem, "bring the missing nodes back, or CLUSTER FAILOVER TAKEOVER on their replicas", Level.FAIL)
    lost = [node.address for node in nodes if node.flags & {"fail", "fail?"}]
    if lost:
        found.add(f"not reached: {', '.join(lost)}", "look at those nodes and at the network")
    epochs = [node.epoch for node in primaries]
    if len(set(epochs)) < len(epochs):
        found.add(
            "two primaries have the same epoch: who owns a slot is not decided", "CLUSTER BUMPEPOCH on one of them"
        )


def _judge_slot(found: _Findings, slot: int, nodes: list[ClusterNode]) -> None:
    owner = next((node for node in nodes if node.serves(slot)), None)
    if owner is None:
        return
    replicas = [node for node in nodes if node.primary == owner.name]
    found.details |= {"node": owner.address, "replicas_of_node": [node.address for node in replicas]}
    found.said.append(f"this prefix lies in slot {slot} on {owner.address}, with {count(len(replicas), 'replica')}")
    if not replicas:
        found.add("nobody could take over that node", "give each primary two replicas")
