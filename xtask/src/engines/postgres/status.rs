//! What runs, who leads, and how far the replicas are behind.

use anyhow::Result;
use rustix::process::Pid;
use serde::Serialize;

use super::cluster::Cluster;
use super::node::{Node, pooler_port};
use super::state::Role;

/// What the leader knows of a replica that follows it; empty columns are of one that has only just connected.
const REPLICATION: &str = "select sync_state, \
     coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0), \
     coalesce(extract(epoch from replay_lag), 0) \
     from pg_stat_replication where application_name = ";

/// Everything, at this moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// Every server and the pooler run and answer, and both replicas follow.
    pub(super) up: bool,
    pub(super) nodes: Vec<NodeStatus>,
    pub(super) pooler: PoolerStatus,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeStatus {
    pub(super) name: Node,
    pub(super) role: Role,
    pub(super) port: u16,
    pub(super) pid: Option<i32>,
    /// It answers a question.
    pub(super) answers: bool,
    /// None for the leader, for one that is out, and for a replica that does not follow.
    pub(super) replication: Option<Replication>,
}

/// How a replica follows.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Replication {
    /// `streaming` when it has caught up once.
    pub(super) state: String,
    /// Whether commits wait for it: `async`, `quorum`.
    pub(super) sync_state: String,
    /// Of the leader's log, written there and not yet visible here.
    pub(super) lag_bytes: u64,
    /// How long the latest of the leader's writes took until it was visible here.
    pub(super) lag_seconds: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct PoolerStatus {
    pub(super) port: u16,
    pub(super) pid: Option<i32>,
    pub(super) answers: bool,
}

impl Status {
    pub(super) fn of(cluster: &Cluster) -> Status {
        let facts = &cluster.facts;
        let raw = |pid: Option<Pid>| pid.map(|pid| pid.as_raw_nonzero().get());
        let node = |name: Node| {
            let role = facts.role(name);
            let pid = raw(cluster.server(name));
            // A leader that recovers, or a replica that thinks it leads, does not do its part.
            let wanted = if role == Role::Leader { "f" } else { "t" };
            let answers = pid.is_some()
                && cluster.ask_node(name, "select pg_is_in_recovery()").is_ok_and(|told| told == wanted);
            NodeStatus { name, role, port: name.port(facts.port_base), pid, answers, replication: None }
        };
        let mut nodes: Vec<NodeStatus> = Node::ALL.into_iter().map(node).collect();
        let leader_answers = nodes.iter().any(|node| node.role == Role::Leader && node.answers);
        for node in nodes.iter_mut().filter(|node| node.role == Role::Replica && leader_answers) {
            let Ok(Some(state)) = cluster.follows(node.name) else { continue };
            let question = format!("{REPLICATION}'{}'", node.name.name());
            let told = cluster.ask_node(facts.leader, &question);
            node.replication = told.ok().and_then(|line| replication(state, &line));
        }
        let port = pooler_port(facts.port_base);
        let pid = raw(cluster.pooler());
        let answers =
            pid.is_some() && cluster.ask(port, "mainstay", "select 1").is_ok_and(|told| told == "1");
        let pooler = PoolerStatus { port, pid, answers };
        Status { up: is_up(&nodes, &pooler), nodes, pooler }
    }

    /// For people: a line each.
    pub(super) fn lines(&self) -> Result<Vec<String>> {
        let runs = |pid: Option<i32>, answers: bool| match (pid, answers) {
            (Some(pid), true) => format!("runs (process {pid})"),
            (Some(pid), false) => format!("runs (process {pid}) and does not do its part"),
            (None, _) => "does not run".to_owned(),
        };
        let mut lines = Vec::new();
        for node in &self.nodes {
            let role = serde_json::to_value(node.role)?;
            let role = role.as_str().unwrap_or_default();
            let follows = match &node.replication {
                Some(found) => format!(
                    ", {} ({}), {} bytes and {:.3} s behind",
                    found.state, found.sync_state, found.lag_bytes, found.lag_seconds
                ),
                None if node.role == Role::Replica => ", does not follow".to_owned(),
                None => String::new(),
            };
            let runs = runs(node.pid, node.answers);
            lines.push(format!("{:<9} {role:<7} port {} {runs}{follows}", node.name.name(), node.port));
        }
        let Self { pooler, .. } = self;
        let runs = runs(pooler.pid, pooler.answers);
        lines.push(format!("{:<9} {:<7} port {} {runs}", "pgbouncer", "pooler", pooler.port));
        Ok(lines)
    }
}

fn is_up(nodes: &[NodeStatus], pooler: &PoolerStatus) -> bool {
    let does_its_part = |node: &NodeStatus| match node.role {
        Role::Leader => node.answers,
        Role::Replica => {
            node.answers && node.replication.as_ref().is_some_and(|found| found.state == "streaming")
        }
        Role::Out => false,
    };
    nodes.iter().all(does_its_part) && pooler.answers
}

/// One line of [`REPLICATION`]; None when there is none.
fn replication(state: String, line: &str) -> Option<Replication> {
    let mut words = line.lines().next()?.split('|');
    Some(Replication {
        state,
        sync_state: words.next()?.to_owned(),
        // The leader's word for how far it is may be older than the replica's: then it is not behind.
        lag_bytes: words.next()?.parse::<i64>().ok()?.try_into().unwrap_or(0),
        lag_seconds: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: Node, role: Role, state: Option<&str>) -> NodeStatus {
        let replication = state.map(|state| Replication {
            state: state.into(),
            sync_state: "async".into(),
            lag_bytes: 0,
            lag_seconds: 0.0,
        });
        NodeStatus { name, role, port: 1, pid: Some(1), answers: true, replication }
    }

    fn all() -> Vec<NodeStatus> {
        vec![
            node(Node::R0, Role::Leader, None),
            node(Node::R1, Role::Replica, Some("streaming")),
            node(Node::R2, Role::Replica, Some("streaming")),
        ]
    }

    #[test]
    fn all_is_up_only_when_everything_does_its_part() {
        let pooler = |answers| PoolerStatus { port: 1, pid: Some(1), answers };
        assert!(is_up(&all(), &pooler(true)));
        assert!(!is_up(&all(), &pooler(false)));
        for broken in [
            NodeStatus { answers: false, ..node(Node::R1, Role::Replica, Some("streaming")) },
            node(Node::R1, Role::Replica, Some("catchup")),
            node(Node::R1, Role::Replica, None),
            node(Node::R1, Role::Out, None),
        ] {
            let mut nodes = all();
            nodes[1] = broken;
            assert!(!is_up(&nodes, &pooler(true)), "{nodes:?}");
        }
    }

    #[test]
    fn a_leaders_word_about_a_replica_is_read() {
        let read = |line| replication("streaming".into(), line);
        let found = read("quorum|4096|0.001500\n").unwrap();
        assert_eq!((found.state.as_str(), found.sync_state.as_str()), ("streaming", "quorum"));
        assert_eq!((found.lag_bytes, found.lag_seconds), (4096, 0.0015));
        assert_eq!(read("async|-8|0").unwrap().lag_bytes, 0);
        assert_eq!(read(""), None);
        assert_eq!(read("async|many|0"), None);
    }

    #[test]
    fn people_read_who_is_behind_and_who_is_missing() {
        let mut nodes = all();
        nodes[2] = NodeStatus { pid: None, answers: false, ..node(Node::R2, Role::Replica, None) };
        let status = Status { up: false, nodes, pooler: PoolerStatus { port: 4, pid: None, answers: false } };
        let lines = status.lines().unwrap();
        assert!(lines[0].starts_with("r0        leader  port 1 runs"), "{lines:?}");
        assert!(lines[1].ends_with("streaming (async), 0 bytes and 0.000 s behind"), "{lines:?}");
        assert!(lines[2].ends_with("does not run, does not follow"), "{lines:?}");
        assert!(lines[3].starts_with("pgbouncer pooler  port 4 does not run"), "{lines:?}");
    }
}
