//! The ledger against the feed.

use std::collections::{BTreeMap, HashMap, HashSet};

use mainstay_event_store::Head;
use serde::Serialize;

use super::Failure;
use super::acts::{Kind, Plan};
use super::feed::{Event, Feed};
use super::ledger::{Ledger, State};

/// How many violations are spelt out.
const SHOWN: usize = 20;

/// What was counted, and what was found wrong. All of `lost` to `foreign` must be 0.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) acts: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Tried and never answered, or answered as unknown.
    pub(crate) open: u64,
    /// Of those, found in the feed.
    pub(crate) open_there: u64,
    pub(crate) events: u64,
    /// Acknowledged, or seen by a reader, and not there.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) doubled: u64,
    /// Refused, and there all the same.
    pub(crate) refused_visible: u64,
    /// There in part: some of its events, or events without their row and message, or the reverse.
    pub(crate) torn: u64,
    /// Positions, versions or messages not dense, or not in the order of what was acknowledged.
    pub(crate) order_broken: u64,
    /// Two acts that exclude each other, both there.
    pub(crate) both: u64,
    /// Not what was written, or not what was seen before.
    pub(crate) changed: u64,
    /// There, and nobody tried it.
    pub(crate) foreign: u64,
    /// Refused because the store could not. For whoever runs the workload to judge: it is right on a machine
    /// that fails, and wrong on one that does not.
    pub(crate) failed: u64,
    /// The first violations in words.
    pub(crate) violations: Vec<String>,
    /// The end of the feed.
    pub(crate) head: Option<Head>,
}

impl Report {
    /// Is everything as promised?
    pub(crate) fn sound(&self) -> bool {
        self.violations.is_empty()
    }

    fn found(&mut self, count: fn(&mut Self) -> &mut u64, what: impl FnOnce() -> String) {
        *count(self) += 1;
        if self.violations.len() < SHOWN {
            self.violations.push(what());
        }
    }
}

/// What stands in the feed of one act.
#[derive(Default)]
struct Found<'a> {
    events: Vec<(u64, &'a Event)>,
    audit: Vec<u64>,
    messages: u64,
}

/// Compares everything with everything.
pub(crate) fn check(ledger: &Ledger, feed: &Feed, seed: u64, writers: u64) -> Result<Report, Failure> {
    let (events, failed) = (feed.events.len() as u64, ledger.failed.len() as u64);
    let mut report = Report { events, failed, head: feed.head(), ..Report::default() };
    for what in feed.changed.iter().chain(&ledger.broken) {
        report.found(|r| &mut r.changed, || what.clone());
    }
    order(&mut report, feed);
    for head in &ledger.seen {
        match head.position.0.checked_sub(1).map(|before| feed.events.get(before as usize)) {
            None => {}
            Some(None) => {
                report.found(|r| &mut r.lost, || format!("a reader saw position {}", head.position))
            }
            Some(Some(event)) if event.hash != head.hash => {
                report
                    .found(|r| &mut r.changed, || format!("a reader saw another hash at {}", head.position));
            }
            Some(Some(_)) => {}
        }
    }
    let mut found = by_act(&mut report, feed);
    let mut winners: HashMap<u64, u64> = HashMap::new();
    for (number, entry) in &ledger.acts {
        let plan = Plan::new(seed, writers, *number)?;
        let found = found.remove(number).unwrap_or_default();
        report.acts += 1;
        let there = whole(&mut report, &plan, &found);
        let first = found.events.iter().map(|(_, event)| event.position).min();
        if let Some(first) = first.filter(|first| *first <= entry.after) {
            let after = entry.after;
            report.found(
                |r| &mut r.order_broken,
                || format!("act {number} is at {first}, tried after {after}"),
            );
        }
        if let Some(contest) = plan.contest().filter(|_| there) {
            let winners = winners.entry(contest).or_default();
            *winners += 1;
            if *winners == 2 {
                report.found(|r| &mut r.both, || format!("act {number} is there, and a rival of it too"));
            }
        }
        match &entry.state {
            State::Open => {
                report.open += 1;
                report.open_there += u64::from(there);
            }
            State::Refused => {
                report.refused += 1;
                if there {
                    report.found(|r| &mut r.refused_visible, || format!("act {number} was refused"));
                }
            }
            State::Acknowledged { position, repeated, versions } => {
                report.acknowledged += 1;
                if !there {
                    report.found(|r| &mut r.lost, || format!("act {number} was acknowledged at {position}"));
                } else if !placed(&plan, &found, *position, *repeated, versions) {
                    report.found(
                        |r| &mut r.order_broken,
                        || {
                            format!(
                                "act {number} was acknowledged at {position} {versions:?}, and is elsewhere"
                            )
                        },
                    );
                }
            }
        }
    }
    for number in found.keys() {
        report.found(|r| &mut r.foreign, || format!("act {number} was never tried"));
    }
    Ok(report)
}

/// Dense positions, dense versions, dense messages; no id twice.
fn order(report: &mut Report, feed: &Feed) {
    let (mut versions, mut ids) = (HashMap::<&str, u64>::new(), HashSet::new());
    for (i, event) in feed.events.iter().enumerate() {
        let version = versions.entry(&event.stream).or_default();
        if event.position != i as u64 + 1 || event.version != *version + 1 {
            report.found(
                |r| &mut r.order_broken,
                || {
                    format!(
                        "position {}, {} version {}, is out of order",
                        event.position, event.stream, event.version
                    )
                },
            );
        }
        *version = event.version;
        if !ids.insert(event.id) {
            report.found(|r| &mut r.doubled, || format!("id {} stands twice", event.id));
        }
    }
    let mut last = 0;
    let positions: HashMap<u64, u64> =
        feed.events.iter().filter_map(|event| Some((event.origin?.0, event.position))).collect();
    for (i, (seq, act)) in feed.outbox.iter().enumerate() {
        let position = positions.get(act).copied().unwrap_or(0);
        if *seq != i as u64 + 1 || position <= last {
            report.found(|r| &mut r.order_broken, || format!("message {seq} of act {act} is out of order"));
        }
        last = position;
    }
}

fn by_act<'a>(report: &mut Report, feed: &'a Feed) -> BTreeMap<u64, Found<'a>> {
    let mut found: BTreeMap<u64, Found<'_>> = BTreeMap::new();
    for event in &feed.events {
        match event.origin {
            Some((act, ordinal)) => found.entry(act).or_default().events.push((ordinal, event)),
            None => {
                report.found(|r| &mut r.changed, || format!("position {} is not as planned", event.position))
            }
        }
    }
    for (act, version) in &feed.audit {
        found.entry(*act).or_default().audit.push(*version);
    }
    for (_, act) in &feed.outbox {
        found.entry(*act).or_default().messages += 1;
    }
    found
}

/// Is the act there? Notes when it is there in part, or more than once.
fn whole(report: &mut Report, plan: &Plan, found: &Found<'_>) -> bool {
    let (number, planned) = (plan.number, plan.events().count());
    let ordinals: Vec<u64> = found.events.iter().map(|(ordinal, _)| *ordinal).collect();
    let mut once = ordinals.clone();
    once.sort_unstable();
    once.dedup();
    let rows = usize::from(matches!(plan.kind, Kind::Transaction | Kind::GivenUp) && !once.is_empty());
    let (audit, messages) = (found.audit.len(), found.messages as usize);
    if once.len() < ordinals.len() || audit > 1 || messages > 1 {
        report.found(
            |r| &mut r.doubled,
            || format!("act {number}: events {ordinals:?}, {audit} rows, {messages} messages"),
        );
    } else if ordinals != once {
        report.found(|r| &mut r.order_broken, || format!("act {number}: its events stand as {ordinals:?}"));
    } else if (!once.is_empty() && once.len() < planned) || audit != rows || messages != rows {
        report.found(
            |r| &mut r.torn,
            || format!("act {number}: {} of {planned} events, {audit} rows, {messages} messages", once.len()),
        );
    }
    once.len() == planned
}

/// Does it stand where the answer said?
fn placed(plan: &Plan, found: &Found<'_>, position: u64, repeated: bool, versions: &[(String, u64)]) -> bool {
    let last = found.events.iter().map(|(_, event)| event.position).max().unwrap_or(0);
    let in_place = if repeated { last <= position } else { last == position };
    let said = plan.parts.iter().all(|(stream, _)| {
        let there = found.events.iter().filter(|(_, event)| event.stream == stream.as_str());
        let there = there.map(|(_, event)| event.version).max();
        there.is_some()
            && there == versions.iter().find(|(name, _)| *name == stream.as_str()).map(|(_, v)| *v)
    });
    in_place && said && found.audit.iter().all(|row| versions.iter().any(|(_, version)| version == row))
}
