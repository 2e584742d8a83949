//! Faults, each a command of its own, so that a test does them while it goes on writing.
//!
//! ```text
//!   r0 leads, r1 and r2 follow ── kill-leader ──► nobody leads ── start-leader ──► r0 leads again
//!                                                     │
//!                                                     └── promote r1 ──► r1 leads, r2 follows r1, r0 is out
//!                                                                              │
//!                                              rebuild-replica r0 ─────────────┴──► r1 leads, r0 and r2 follow
//! ```
//! A promotion while the old leader runs is refused: two leaders would both say yes.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::super::tool::wait_until;
use super::cluster::{ASK_MAX, Cluster, START_MAX, Stop};
use super::node::Node;
use super::state::Role;

/// What is done to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Fault {
    /// Kill the leader as a crash does: its processes are gone without a word.
    KillLeader,
    /// Stop the leader in good order: work under way is taken back, its replicas get all it wrote.
    StopLeader,
    /// Start the leader and wait until it takes writes.
    StartLeader,
    /// Make a replica the leader. The other replica and the pooler follow it, the old leader is out until it is rebuilt.
    Promote {
        /// Which; `furthest` is the one that has received the most of the leader's log.
        #[arg(value_enum)]
        node: Candidate,
    },
    /// Make a replica of any server but the leader, from a new copy of the leader's data.
    RebuildReplica {
        /// Which.
        #[arg(value_enum)]
        node: Node,
    },
    /// Stop a replica in good order.
    StopReplica {
        /// Which.
        #[arg(value_enum)]
        node: Node,
    },
    /// Start a replica and wait until it follows the leader, if there is one.
    StartReplica {
        /// Which.
        #[arg(value_enum)]
        node: Node,
    },
    /// Whether a commit waits until one replica has flushed it (`synchronous_standby_names`).
    Sync {
        /// On or off.
        #[arg(value_enum)]
        switch: Switch,
    },
}

/// Who is to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Candidate {
    R0,
    R1,
    R2,
    Furthest,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Whether a replica has a connection that its leader's log comes through.
const RECEIVING: &str = "select count(*) from pg_stat_wal_receiver where status = 'streaming'";

/// How far a server has received the leader's log: what streamed, or, after a start, what it replayed from its own files.
const RECEIVED: &str = "select greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), \
     coalesce(pg_last_wal_replay_lsn(), '0/0')) - '0/0'::pg_lsn";

/// Does it; what was done.
pub(super) fn inject(cluster: &mut Cluster, fault: Fault) -> Result<Vec<String>> {
    let leader = cluster.facts.leader;
    let done = match fault {
        Fault::KillLeader => {
            ensure!(
                cluster.server(leader).is_some(),
                "{}, the leader, does not run; nothing was done",
                leader.name()
            );
            cluster.stop(leader, Stop::Kill)?;
            format!("killed {}, the leader", leader.name())
        }
        Fault::StopLeader => {
            ensure!(
                cluster.server(leader).is_some(),
                "{}, the leader, does not run; nothing was done",
                leader.name()
            );
            cluster.stop(leader, Stop::Fast)?;
            format!("stopped {}, the leader", leader.name())
        }
        Fault::StartLeader => {
            ensure!(
                cluster.server(leader).is_none(),
                "{}, the leader, runs already; nothing was done",
                leader.name()
            );
            cluster.start(leader)?;
            takes_writes(cluster)?;
            format!("started {}, the leader", leader.name())
        }
        Fault::Promote { node } => return promote(cluster, node),
        Fault::RebuildReplica { node } => {
            refuse_leader(cluster, node)?;
            ensure!(
                cluster.server(leader).is_some(),
                "{}, the leader, does not run, so there is nothing to copy",
                leader.name()
            );
            cluster.copy(node)?;
            ensure!(cluster.comes_to_follow(node)?, "{} is a new copy and does not follow", node.name());
            format!("rebuilt {} as a replica of {}", node.name(), leader.name())
        }
        Fault::StopReplica { node } => {
            refuse_leader(cluster, node)?;
            cluster.stop(node, Stop::Fast)?;
            format!("stopped {}", node.name())
        }
        Fault::StartReplica { node } => {
            refuse_leader(cluster, node)?;
            ensure!(cluster.server(node).is_none(), "{} runs already; nothing was done", node.name());
            ensure!(
                cluster.facts.role(node) == Role::Replica,
                "{0} led when another was promoted, and its history is abandoned: `rebuild-replica {0}` first",
                node.name()
            );
            if cluster.server(leader).is_none() {
                cluster.start(node)?;
                format!("started {}; nobody leads", node.name())
            } else {
                let started = cluster.start_replica(node)?;
                cluster.ensure_follows(node)?.unwrap_or(started)
            }
        }
        Fault::Sync { switch } => {
            cluster.facts.sync = switch == Switch::On;
            if cluster.server(leader).is_some() {
                cluster.reload(leader)?;
                obeys(cluster, leader)?;
            }
            let waits =
                if cluster.facts.sync { "waits until one replica has it" } else { "waits for no replica" };
            format!("a commit {waits}")
        }
    };
    Ok(vec![done])
}

fn refuse_leader(cluster: &Cluster, node: Node) -> Result<()> {
    ensure!(node != cluster.facts.leader, "{} is the leader now; nothing was done", node.name());
    Ok(())
}

fn promote(cluster: &mut Cluster, candidate: Candidate) -> Result<Vec<String>> {
    let old = cluster.facts.leader;
    ensure!(
        cluster.server(old).is_none(),
        "{}, the leader, runs, and two leaders would both say yes; `kill-leader` or `stop-leader` first",
        old.name()
    );
    let received = received(cluster)?;
    let node = match candidate {
        Candidate::R0 => Node::R0,
        Candidate::R1 => Node::R1,
        Candidate::R2 => Node::R2,
        Candidate::Furthest => furthest(&received).context("no replica runs, so none can be promoted")?,
    };
    refuse_leader(cluster, node)?;
    ensure!(
        cluster.facts.role(node) == Role::Replica,
        "{0} is out: its data is of an abandoned history; `rebuild-replica {0}` first",
        node.name()
    );
    let Some(fork) = bytes(&received, node) else {
        bail!("{0} does not run, so it can't be promoted; `start-replica {0}` first", node.name());
    };

    let before = cluster.facts.clone();
    if let Err(error) = lead(cluster, node) {
        cluster.facts = before;
        return Err(error.context(format!("{} was not promoted", node.name())));
    }
    let mut done = vec![format!("promoted {}; {} is out until it is rebuilt", node.name(), old.name())];
    // Kept before anything else can fail: a leader nobody knows of would be started beside the old one.
    cluster.save()?;
    takes_writes(cluster)?;
    cluster.raise_pooler()?;
    for other in cluster.facts.replicas().collect::<Vec<_>>() {
        match bytes(&received, other) {
            // It does not run.
            None => {}
            Some(bytes) if bytes > fork => {
                cluster.copy(other)?;
                cluster.ensure_follows(other)?;
                done.push(format!(
                    "rebuilt {}: it had more of the old history than {}",
                    other.name(),
                    node.name()
                ));
            }
            Some(_) => {
                cluster.reload(other)?;
                let rebuilt = cluster.ensure_follows(other)?;
                done.push(rebuilt.unwrap_or_else(|| format!("{} follows {}", other.name(), node.name())));
            }
        }
    }
    Ok(done)
}

/// Makes a replica the leader.
fn lead(cluster: &mut Cluster, node: Node) -> Result<()> {
    let old = std::mem::replace(&mut cluster.facts.leader, node);
    cluster.facts.out.push(old);
    cluster.reload(node)?;
    // For whom its commits wait, it knows before it takes the first one.
    obeys(cluster, node)?;
    cluster.pg_ctl_promote(node)
}

/// How much of the log of a leader that has ended every replica has that runs.
fn received(cluster: &Cluster) -> Result<Vec<(Node, u64)>> {
    let mut received = Vec::new();
    for node in cluster.facts.replicas().filter(|node| cluster.server(*node).is_some()) {
        // It may still be writing what the leader had sent it.
        wait_until(ASK_MAX, || Ok(cluster.ask_node(node, RECEIVING)? == "0"))?;
        let told = cluster.ask_node(node, RECEIVED)?;
        received.push((node, told.parse().with_context(|| format!("{} told {told}", node.name()))?));
    }
    Ok(received)
}

fn bytes(received: &[(Node, u64)], node: Node) -> Option<u64> {
    received.iter().find(|(known, _)| *known == node).map(|(_, bytes)| *bytes)
}

/// Who has the most; the first of equals.
fn furthest(received: &[(Node, u64)]) -> Option<Node> {
    received.iter().rev().max_by_key(|(_, bytes)| *bytes).map(|(node, _)| *node)
}

/// Waits until the leader has ended its recovery.
fn takes_writes(cluster: &Cluster) -> Result<()> {
    let leader = cluster.facts.leader;
    ensure!(
        wait_until(START_MAX, || Ok(cluster.ask_node(leader, "select pg_is_in_recovery()")? == "f"))?,
        "{} does not end its recovery; see {}",
        leader.name(),
        cluster.facts.log(leader).display()
    );
    Ok(())
}

/// Waits until a leader has read for whom its commits wait: a reload is only a wish when it returns.
fn obeys(cluster: &Cluster, leader: Node) -> Result<()> {
    let wanted = if cluster.facts.sync { "on" } else { "off" };
    let question =
        "select case when current_setting('synchronous_standby_names') = '' then 'off' else 'on' end";
    ensure!(
        wait_until(START_MAX, || Ok(cluster.ask_node(leader, question)? == wanted))?,
        "{} does not turn synchronous replication {wanted}; see {}",
        leader.name(),
        cluster.facts.log(leader).display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_received_the_most_is_promoted() {
        assert_eq!(furthest(&[(Node::R1, 10), (Node::R2, 30)]), Some(Node::R2));
        assert_eq!(furthest(&[(Node::R1, 30), (Node::R2, 10)]), Some(Node::R1));
        assert_eq!(furthest(&[(Node::R1, 30), (Node::R2, 30)]), Some(Node::R1));
        assert_eq!(furthest(&[]), None);
    }
}
