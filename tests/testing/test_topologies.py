"""The topologies of the test kit get ready, and are whole again after a loss."""

from __future__ import annotations

from tests.kit.topologies import OwnCluster, OwnSentinel
from tests.kit.waiting import wait_until


def test_sentinels_name_another_primary_when_it_dies_and_all_come_back(sentinel: OwnSentinel) -> None:
    """After a kill a replica is promoted; healed, there are one primary and two replicas again."""
    former = sentinel.primary
    former.kill()
    assert sentinel.wait_until_switched(former.port) is not former
    sentinel.heal()
    assert [node.role() for node in sentinel.replicas] == ["slave", "slave"]


def test_a_cluster_serves_every_slot_and_promotes_a_replica(cluster: OwnCluster) -> None:
    """A killed primary is replaced by its replica, and comes back as the replica's own."""
    first = cluster.primaries[0]
    first.kill()
    wait_until(lambda: len(cluster.primaries) == 3, "a replica is promoted")
    cluster.heal()
    assert first.role() == "slave"
