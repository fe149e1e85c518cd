//! The metrics of the log and of the members of a cluster, as they are when metrics are read.

use keepfast_storage::{ClusterStatus, Member, NodeId};

use super::cluster::ClusterTimings;
use super::{Item, Value};
use crate::cluster::autopilot::{AutopilotConfig, failure_tolerance, is_healthy, lacks};
use crate::cluster::snapshots::history::Attempts;
use crate::lifecycle::Lifecycle;

/// The metrics of the storage `raft`; of a node without other members the state of the log alone.
pub(super) fn items(server: &Lifecycle) -> Vec<Item> {
    let membership = &server.parts.membership;
    let Some(consensus) = membership.consensus() else { return Vec::new() };
    let status = consensus.status();
    let mut out = of_log(&status, &consensus.identity().node);
    if server.parts.settings.snapshots.is_some() && status.is_leading {
        out.extend(of_snapshots(&server.administration.automatic_snapshots.attempts()));
    }
    if membership.with_others().is_some() {
        out.extend(of_calls(&server.parts.metrics.cluster));
        out.extend(server.parts.metrics.cluster.batches.items("cluster.batches_from_standby"));
        out.extend(of_members(&status));
        if status.is_leading {
            let config = server.administration.autopilot.memory().config();
            out.extend(of_autopilot(&status, &config));
        }
    }
    out
}

fn of_calls(cluster: &ClusterTimings) -> impl Iterator<Item = Item> {
    let timings = cluster.all().into_iter().map(|(name, timing)| Item::new(name, Value::Summary(timing.read())));
    timings.chain(cluster.counters().map(|(name, count)| Item::new(name, Value::Counter(count.read()))))
}

/// The automatic snapshots in the directory of the leader.
fn of_snapshots(attempts: &Attempts) -> Vec<Item> {
    let size = attempts.stored.iter().map(|snapshot| snapshot.size).sum();
    let mut out = vec![
        gauge("autosnapshots.snapshots.in.storage", attempts.stored.len() as u64),
        gauge("autosnapshots.total.snapshot.size", size),
    ];
    if let Some(newest) = attempts.stored.last() {
        out.push(gauge("autosnapshots.snapshot.size", newest.size));
        out.push(Item::new("autosnapshots.last.success.time", Value::Gauge(newest.taken.unix() as f64)));
    }
    out
}

fn of_log(status: &ClusterStatus, node: &NodeId) -> Vec<Item> {
    let waiting = status.committed.saturating_sub(status.applied);
    let values = [
        ("raft_storage.stats.applied_index", status.applied),
        ("raft_storage.stats.commit_index", status.committed),
        ("raft_storage.stats.last_index", status.last),
        ("raft_storage.stats.fsm_pending", waiting),
        ("raft_storage.stats.term", status.term),
    ];
    let voters = status.members.iter().filter(|member| member.voter).count();
    let mut out: Vec<Item> = values.map(|(name, value)| gauge(name, value).labelled("peer_id", node)).to_vec();
    out.push(gauge("raft.peers", status.members.len() as u64));
    out.push(gauge("raft.voters", voters as u64));
    out
}

/// What a leader knows of the others, and a standby of its leader.
fn of_members(status: &ClusterStatus) -> Vec<Item> {
    if !status.is_leading {
        let contact = status.last_contact.map(|contact| Value::Gauge(contact.as_secs_f64() * 1000.0));
        return contact.map(|contact| Item::new("raft_storage.leader.last_contact_ms", contact)).into_iter().collect();
    }
    let mut out = Vec::new();
    for member in status.members.iter().filter(|member| Some(member.id) != status.id) {
        out.push(
            gauge("raft_storage.follower.applied_index_delta", lacks(status, member)).labelled("peer_id", &member.node),
        );
        let peer = status.peers.iter().find(|peer| peer.id == member.id);
        if let Some(contact) = peer.and_then(|peer| peer.last_contact) {
            let value = Value::Gauge(contact.as_secs_f64() * 1000.0);
            let item = Item::new("raft_storage.follower.last_heartbeat_ms", value);
            out.push(item.labelled("peer_id", &member.node));
        }
    }
    out
}

fn of_autopilot(status: &ClusterStatus, config: &AutopilotConfig) -> Vec<Item> {
    let is_healthy = |member: &Member| is_healthy(status, config, member);
    let node = |member: &Member| {
        gauge("autopilot.node.healthy", u64::from(is_healthy(member))).labelled("node_id", &member.node)
    };
    let mut out: Vec<Item> = status.members.iter().map(node).collect();
    out.push(gauge("autopilot.healthy", u64::from(status.members.iter().all(is_healthy))));
    out.push(gauge("autopilot.failure_tolerance", failure_tolerance(status, config) as u64));
    out
}

fn gauge(name: &'static str, value: u64) -> Item {
    Item::new(name, Value::Gauge(value as f64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepfast_storage::{PeerStatus, RaftId};

    use super::*;
    use crate::cluster::fake::{member, status};
    use crate::cluster::snapshots::directory::StoredSnapshot;

    fn value(items: &[Item], name: &str, node: Option<&str>) -> Option<f64> {
        let of_node = |item: &&Item| node.is_none_or(|node| item.labels.iter().any(|(_, value)| value == node));
        items.iter().filter(|item| item.name == name).find(of_node).map(|item| match item.value {
            Value::Gauge(value) => value,
            other => panic!("{other:?}"),
        })
    }

    fn cluster() -> ClusterStatus {
        let mut status = ClusterStatus { committed: 98, applied: 95, ..status(&[1, 2]) };
        status.members.push(member(3));
        let peer = |number, matched, millis: Option<u64>| PeerStatus {
            id: RaftId(number),
            matched,
            last_contact: millis.map(Duration::from_millis),
        };
        status.peers = vec![peer(2, 93, Some(250)), peer(3, 0, None)];
        status
    }

    #[test]
    fn the_log_has_its_indexes_its_term_and_its_members() {
        let items = of_log(&cluster(), &"n1".to_owned());
        let of = |name: &str| value(&items, name, None).unwrap();
        let stats = ["applied_index", "commit_index", "last_index", "fsm_pending", "term"]
            .map(|name| value(&items, &format!("raft_storage.stats.{name}"), Some("n1")).unwrap());
        assert_eq!(stats, [95.0, 98.0, 100.0, 3.0, 3.0]);
        assert_eq!((of("raft.peers"), of("raft.voters")), (3.0, 2.0));
    }

    #[test]
    fn a_leader_reports_the_lag_of_each_member_and_a_standby_its_leader() {
        let items = of_members(&cluster());
        let delta = |node| value(&items, "raft_storage.follower.applied_index_delta", Some(node));
        let heartbeat = |node| value(&items, "raft_storage.follower.last_heartbeat_ms", Some(node));
        assert_eq!([delta("n1"), delta("n2"), delta("n3")], [None, Some(7.0), Some(100.0)]);
        assert_eq!([heartbeat("n2"), heartbeat("n3")], [Some(250.0), None], "never heard");
        assert_eq!(value(&items, "raft_storage.leader.last_contact_ms", None), None);
        let standby = ClusterStatus {
            is_leading: false,
            peers: Vec::new(),
            last_contact: Some(Duration::from_millis(40)),
            ..cluster()
        };
        let items = of_members(&standby);
        assert_eq!(items.len(), 1);
        assert_eq!(value(&items, "raft_storage.leader.last_contact_ms", None), Some(40.0));
        assert!(of_members(&ClusterStatus { last_contact: None, ..standby }).is_empty());
    }

    #[test]
    fn the_newest_snapshot_has_its_time_and_size() {
        let stored = |second: i64, size| StoredSnapshot {
            taken: keepfast_framework::Timestamp::from_unix(second),
            path: "s".into(),
            size,
        };
        let mut attempts = Attempts { stored: vec![stored(5, 10), stored(9, 20)], ..Attempts::default() };
        let of = |attempts: &Attempts| {
            ["last.success.time", "snapshot.size", "snapshots.in.storage", "total.snapshot.size"]
                .map(|name| value(&of_snapshots(attempts), &format!("autosnapshots.{name}"), None))
        };
        assert_eq!(of(&attempts), [Some(9.0), Some(20.0), Some(2.0), Some(30.0)]);
        attempts.stored.clear();
        assert_eq!(of(&attempts), [None, None, Some(0.0), Some(0.0)]);
    }

    #[test]
    fn autopilot_reports_health_as_its_state_does() {
        let (config, mut status) = (AutopilotConfig::default(), cluster());
        let of = |status: &ClusterStatus, name: &str, node| value(&of_autopilot(status, &config), name, node);
        let nodes = ["n1", "n2", "n3"].map(|node| of(&status, "autopilot.node.healthy", Some(node)));
        assert_eq!(nodes, [Some(1.0), Some(1.0), Some(0.0)]);
        assert_eq!(of(&status, "autopilot.healthy", None), Some(0.0));
        assert_eq!(of(&status, "autopilot.failure_tolerance", None), Some(0.0), "two voters");
        status.members[2].voter = true;
        status.peers[1] = PeerStatus { matched: 100, last_contact: Some(Duration::ZERO), ..status.peers[1].clone() };
        assert_eq!(of(&status, "autopilot.healthy", None), Some(1.0));
        assert_eq!(of(&status, "autopilot.failure_tolerance", None), Some(1.0));
    }
}
