//! What a read may miss, and what it is to do in a partition: PACELC, chosen for each read.
//!
//! ```text
//!                      Partition: who asks is cut off            Else: latency against consistency
//!   Strong             refuse, or the freshest copy there is     the leader, and everything acknowledged by now
//!   ReadYourWrites(r)  refuse, or the freshest copy there is     any copy that has act r, the leader if none has
//!   BoundedStaleness   refuse, or the freshest copy there is     any copy that is at most so old, else the leader
//!   Eventual           whoever answers                           any copy
//! ```
//! PACELC: Abadi, *Consistency Tradeoffs in Modern Distributed Database System Design*, IEEE Computer 45(2), 2012.
//! Which node is asked is decided here, on what is known of each; who asks it, and how it is known, is the backend's.

use std::time::Duration;

use crate::position::Receipt;

/// What a read must not miss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing that was acknowledged to anybody before the read began.
    #[default]
    Strong,
    /// Nothing up to this act: the caller's own, or one that it was told of.
    ReadYourWrites(Receipt),
    /// Nothing that is older than this.
    BoundedStaleness(Duration),
    /// It may miss anything that is new. What it sees was true once.
    Eventual,
}

/// What a read does when no node that can be reached meets its consistency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfCutOff {
    /// It is refused: correctness before availability.
    #[default]
    Refuse,
    /// The freshest node that can be reached answers, and says that it may be stale: availability before correctness.
    ServeStale,
}

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Does it take writes?
    pub leads: bool,
    /// Did it answer lately?
    pub reachable: bool,
    /// How much it may lack, at most; none where nobody knows. A leader lacks nothing.
    pub staleness: Option<Duration>,
    /// Has it the act of the receipt that was presented, if one was?
    pub has_receipt: bool,
}

impl Seen {
    fn lacks_at_most(&self) -> Option<Duration> {
        if self.leads { Some(Duration::ZERO) } else { self.staleness }
    }
}

/// Who answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This node, by its place among those that were given. `met`: it meets the consistency that was asked for.
    Node {
        /// Its place.
        index: usize,
        /// Is it what was asked for, or only what there was?
        met: bool,
    },
    /// Nobody yet, but it may come in a moment: look again.
    Later,
    /// Nobody.
    Nobody,
}

/// Chooses the node for a read. `chance` spreads reads that several nodes can answer; `may_wait`: is there time left to
/// look again?
///
/// Copies are preferred to the leader wherever one will do: the leader has the writes to do.
pub fn choose(
    asked: &Consistency,
    if_cut_off: IfCutOff,
    nodes: &[Seen],
    may_wait: bool,
    chance: u64,
) -> Choice {
    let fits = |node: &Seen| match asked {
        Consistency::Strong => node.leads,
        Consistency::ReadYourWrites(_) => node.has_receipt,
        Consistency::BoundedStaleness(most) => node.lacks_at_most().is_some_and(|lacks| lacks <= *most),
        Consistency::Eventual => true,
    };
    let reachable = || nodes.iter().enumerate().filter(|(_, node)| node.reachable);
    let copies: Vec<usize> =
        reachable().filter(|(_, node)| fits(node) && !node.leads).map(|(index, _)| index).collect();
    let spread = usize::try_from(chance % (copies.len().max(1) as u64)).unwrap_or(0);
    if let Some(index) = copies.get(spread) {
        return Choice::Node { index: *index, met: true };
    }
    if let Some((index, _)) = reachable().find(|(_, node)| fits(node) && node.leads) {
        return Choice::Node { index, met: true };
    }
    // An act that is acknowledged reaches every copy in time, also those whose leader the caller can't reach.
    if matches!(asked, Consistency::ReadYourWrites(_)) && may_wait && reachable().next().is_some() {
        return Choice::Later;
    }
    if if_cut_off == IfCutOff::Refuse {
        return Choice::Nobody;
    }
    let freshest = reachable().min_by_key(|(_, node)| node.lacks_at_most().unwrap_or(Duration::MAX));
    freshest.map_or(Choice::Nobody, |(index, _)| Choice::Node { index, met: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;
    use crate::position::StoreId;

    const SECOND: Duration = Duration::from_secs(1);

    fn leader(reachable: bool) -> Seen {
        Seen { leads: true, reachable, staleness: None, has_receipt: true }
    }

    fn copy(staleness: u64, has_receipt: bool) -> Seen {
        Seen { leads: false, reachable: true, staleness: Some(SECOND * staleness as u32), has_receipt }
    }

    fn node(index: usize, met: bool) -> Choice {
        Choice::Node { index, met }
    }

    #[test]
    fn each_consistency_is_met_by_a_copy_where_one_will_do_and_by_the_leader_where_none_will() {
        let mine = Consistency::ReadYourWrites(Receipt::new(StoreId(uuid::Uuid::nil()), 7));
        let within = |seconds| Consistency::BoundedStaleness(SECOND * seconds);
        let nodes = [leader(true), copy(3, false), copy(1, true)];
        let cases = [
            (Consistency::Strong, 0),
            (mine, 2),
            (within(2), 2),
            (within(0), 0),
            (Consistency::Eventual, 1), // either copy: by chance the first
        ];
        for (asked, index) in cases {
            assert_eq!(choose(&asked, IfCutOff::Refuse, &nodes, true, 0), node(index, true), "{asked:?}");
        }
        assert_eq!(
            choose(&Consistency::Eventual, IfCutOff::Refuse, &nodes, true, 1),
            node(2, true),
            "spread"
        );
        // No copy has it: the leader.
        let nodes = [leader(true), copy(3, false), copy(1, false)];
        assert_eq!(choose(&mine, IfCutOff::Refuse, &nodes, true, 0), node(0, true));
    }

    #[test]
    fn cut_off_from_the_leader_a_read_is_refused_or_stale_as_it_chose() {
        let mine = Consistency::ReadYourWrites(Receipt::new(StoreId(uuid::Uuid::nil()), 7));
        let nodes = [leader(false), copy(9, false), copy(4, false)];
        for asked in [Consistency::Strong, Consistency::BoundedStaleness(SECOND)] {
            assert_eq!(choose(&asked, IfCutOff::Refuse, &nodes, true, 0), Choice::Nobody, "{asked:?}");
            assert_eq!(choose(&asked, IfCutOff::ServeStale, &nodes, true, 0), node(2, false), "{asked:?}");
        }
        // The copies may still follow the leader that the caller can't reach.
        assert_eq!(choose(&mine, IfCutOff::ServeStale, &nodes, true, 0), Choice::Later);
        assert_eq!(choose(&mine, IfCutOff::ServeStale, &nodes, false, 0), node(2, false));
        assert_eq!(choose(&mine, IfCutOff::Refuse, &nodes, false, 0), Choice::Nobody);
        // Eventual is met by whoever answers; and a node of which nothing is known is the last resort.
        let unknown = Seen { staleness: None, ..copy(0, false) };
        let nodes = [leader(false), unknown];
        assert_eq!(choose(&Consistency::Eventual, IfCutOff::Refuse, &nodes, true, 0), node(1, true));
        let within = Consistency::BoundedStaleness(Duration::MAX);
        assert_eq!(
            choose(&within, IfCutOff::Refuse, &nodes, true, 0),
            Choice::Nobody,
            "unknown is not fresh"
        );
        assert_eq!(choose(&within, IfCutOff::ServeStale, &nodes, true, 0), node(1, false));
        let none = [leader(false), Seen { reachable: false, ..unknown }];
        for asked in [Consistency::Strong, mine, within, Consistency::Eventual] {
            assert_eq!(choose(&asked, IfCutOff::ServeStale, &none, true, 0), Choice::Nobody, "{asked:?}");
        }
    }
}
