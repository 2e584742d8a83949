//! What a sequencer does next, decided from what its transaction reads. Nothing here reads a clock: `now` is the
//! server's, so that no two candidates disagree about it.
//!
//! ```text
//!                    ┌────────── lease of another one ──────────┐
//!                    ▼                                          │
//!  candidate ──► Wait(until it ends) ──► its lease ran out ──► epoch + 1 ──► active ─┬─► Take(difference)
//!                    ▲                                                       ▲      ├─► Go on(large difference)
//!                    └─────────── another epoch in the newest round ─────────┴──────┴─► Restore(other server)
//! ```
//! That two believe in their lease at once (a process was stopped, a clock was set) costs work and never truth: each
//! round inserts the number after the one that it has read, so only one of two can commit.

use std::fmt;
use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_event_store::Head;

use super::snapshot::{Difference, Snapshot};

/// The newest round, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) holder: String,
    pub(crate) until: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) head: Head,
    /// The outbox's last number.
    pub(crate) outbox: u64,
    /// All that it sees has its place.
    pub(crate) settled: Snapshot,
    /// A large difference under way.
    pub(crate) open: Option<Open>,
    pub(crate) origin: Origin,
}

/// A difference that is taken in several rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    /// What is settled when it is done.
    pub(crate) target: Snapshot,
    /// It is what a restore left, and not what lies between two snapshots.
    pub(crate) restored: bool,
    /// Rows up to this `seq` have their place.
    pub(crate) done: u64,
}

/// Where transaction ids mean what they say: the server's name for itself, the database, and the table of events.
/// After a dump was restored at least one of them is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The server's; none where it does not tell.
    pub(crate) system: Option<String>,
    pub(crate) table: String,
}

impl Origin {
    /// As recorded: `system/database/table`, the first empty where the server does not tell; empty where no
    /// sequencer ran yet.
    pub(crate) fn parse(text: &str) -> Self {
        let (system, table) = text.split_once('/').unwrap_or(("", ""));
        Self { system: Some(system.to_owned()).filter(|system| !system.is_empty()), table: table.to_owned() }
    }

    /// Is it the same, as far as both tell?
    fn is(&self, other: &Self) -> bool {
        let system = match (&self.system, &other.system) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.table.is_empty() || system && self.table == other.table
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.system.as_deref().unwrap_or(""), self.table)
    }
}

/// What a round's transaction sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The server's clock.
    pub(crate) now: Timestamp,
    /// The transaction's own.
    pub(crate) snapshot: Snapshot,
    pub(crate) origin: Origin,
    /// The newest round.
    pub(crate) last: Round,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// A name that no other one has.
    pub(crate) name: String,
    /// The epoch it holds; none before it took over, and after it was replaced.
    pub(crate) epoch: Option<u64>,
    /// A round found that rows have their place already that must not have: the ids are another server's.
    pub(crate) doubtful: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Somebody else's lease lasts this long; nothing may be written.
    Wait(Duration),
    /// Write as this epoch's holder.
    Act(u64, Work),
}

/// What the holder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// The ids are another server's: give what has no place an id of its own, and forget the others'.
    Restore,
    /// Take what is new; if it is too much for one round, open it.
    Take(Difference),
    /// Take the next part of the open difference.
    GoOn(Difference, Open),
}

/// Decides what to do.
pub(crate) fn decide(me: &Candidate, seen: &Seen) -> Step {
    let last = &seen.last;
    let mine = me.epoch == Some(last.epoch) && last.holder == me.name;
    if !mine && seen.now < last.until {
        let left = last.until.as_millis().saturating_sub(seen.now.as_millis());
        return Step::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
    }
    // A lease that ran out and that nobody took is still its holder's.
    let epoch = if mine { last.epoch } else { last.epoch + 1 };
    Step::Act(epoch, work(me, seen))
}

fn work(me: &Candidate, seen: &Seen) -> Work {
    let last = &seen.last;
    // The server has not come to what was settled: it counts anew.
    let ahead = last.settled.xmax > seen.snapshot.xmax
        || last.open.as_ref().is_some_and(|open| open.target.xmax > seen.snapshot.xmax);
    if me.doubtful || ahead || !last.origin.is(&seen.origin) {
        return Work::Restore;
    }
    match &last.open {
        Some(open) if open.restored => Work::GoOn(Difference::restored(), open.clone()),
        Some(open) => Work::GoOn(Difference::between(&last.settled, &open.target), open.clone()),
        None => Work::Take(Difference::between(&last.settled, &seen.snapshot)),
    }
}

/// Is there anything to record? An idle sequencer writes only so often that its heart is seen to beat.
pub(crate) fn worth_recording(took: usize, me: &Candidate, seen: &Seen, heartbeat: Duration) -> bool {
    let beat = i64::try_from(heartbeat.as_millis()).unwrap_or(i64::MAX);
    let due = seen.now.as_millis().saturating_sub(seen.last.at.as_millis()) >= beat;
    // A clock that was set back must not stop the heart.
    let back = seen.now < seen.last.at;
    took > 0 || due || back || me.epoch != Some(seen.last.epoch)
}

/// Until when a lease lasts that is taken or renewed now.
pub(crate) fn until(now: Timestamp, lasts: Duration) -> Timestamp {
    let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_add(lasts))
}

#[cfg(test)]
mod tests {
    use mainstay_event_store::{Hash, Position};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn origin(system: Option<&str>, table: &str) -> Origin {
        Origin { system: system.map(str::to_owned), table: table.to_owned() }
    }

    /// Holder "a" of epoch 4, whose lease lasts until 1,000; all before transaction 20 but 15 is settled.
    fn seen(now: i64) -> Seen {
        Seen {
            now: at(now),
            snapshot: "18:30:18".parse().unwrap(),
            origin: origin(Some("1"), "5/6"),
            last: Round {
                number: 9,
                epoch: 4,
                holder: "a".into(),
                until: at(1_000),
                at: at(500),
                head: Head { position: Position(3), hash: Hash([0; 32]) },
                outbox: 2,
                settled: "15:20:15,18".parse().unwrap(),
                open: None,
                origin: origin(Some("1"), "5/6"),
            },
        }
    }

    fn candidate(name: &str, epoch: Option<u64>) -> Candidate {
        Candidate { name: name.into(), epoch, doubtful: false }
    }

    fn taken() -> Work {
        Work::Take(Difference { ended: vec![15], from: 20, to: 30, running: vec![] })
    }

    #[test]
    fn a_holder_goes_on_also_when_its_lease_ran_out() {
        for now in [600, 999, 1_000, 5_000] {
            let step = decide(&candidate("a", Some(4)), &seen(now));
            assert_eq!(step, Step::Act(4, taken()), "at {now}");
        }
    }

    #[test]
    fn a_lease_is_waited_for_and_taken_in_the_next_epoch() {
        for me in
            [candidate("b", None), candidate("b", Some(4)), candidate("a", None), candidate("a", Some(3))]
        {
            assert_eq!(decide(&me, &seen(600)), Step::Wait(Duration::from_millis(400)), "{me:?}");
            assert_eq!(decide(&me, &seen(999)), Step::Wait(Duration::from_millis(1)), "{me:?}");
            assert_eq!(decide(&me, &seen(1_000)), Step::Act(5, taken()), "{me:?}");
        }
    }

    #[test]
    fn a_replaced_holder_waits_like_everybody_else() {
        let mut seen = seen(600);
        (seen.last.epoch, seen.last.holder) = (5, "b".into());
        assert_eq!(decide(&candidate("a", Some(4)), &seen), Step::Wait(Duration::from_millis(400)));
    }

    #[test]
    fn an_open_difference_is_finished_with_the_snapshot_it_began_with() {
        let mut seen = seen(600);
        let open = Open { target: "18:25:18,22".parse().unwrap(), restored: false, done: 77 };
        seen.last.open = Some(open.clone());
        let difference = Difference { ended: vec![15], from: 20, to: 25, running: vec![22] };
        let step = decide(&candidate("b", None), &Seen { now: at(2_000), ..seen.clone() });
        assert_eq!(step, Step::Act(5, Work::GoOn(difference, open.clone())));
        let open = Open { restored: true, ..open };
        seen.last.open = Some(open.clone());
        let step = decide(&candidate("a", Some(4)), &seen);
        assert_eq!(step, Step::Act(4, Work::GoOn(Difference::restored(), open)));
    }

    #[test]
    fn another_servers_ids_are_noticed() {
        let restored = |change: fn(&mut Seen)| {
            let mut seen = seen(600);
            change(&mut seen);
            decide(&candidate("a", Some(4)), &seen) == Step::Act(4, Work::Restore)
        };
        assert!(!restored(|_| {}));
        assert!(restored(|seen| seen.origin = origin(Some("2"), "5/6")), "another server");
        assert!(restored(|seen| seen.origin = origin(Some("1"), "5/7")), "another table");
        assert!(!restored(|seen| seen.origin = origin(None, "5/6")), "it does not tell");
        assert!(restored(|seen| seen.origin = origin(None, "5/7")), "it tells enough");
        assert!(!restored(|seen| seen.last.origin = Origin::parse("")), "nobody looked yet");
        for origin in [origin(None, "5/6"), origin(Some("1"), "5/6")] {
            assert_eq!(Origin::parse(&origin.to_string()), origin);
        }
        assert!(restored(|seen| seen.snapshot = "10:19:".parse().unwrap()), "it counts anew");
        assert!(restored(|seen| {
            let target = "18:31:18".parse().unwrap();
            seen.last.open = Some(Open { target, restored: false, done: 0 });
        }));
        let doubtful = Candidate { doubtful: true, ..candidate("a", Some(4)) };
        assert_eq!(decide(&doubtful, &seen(600)), Step::Act(4, Work::Restore));
        assert_eq!(decide(&doubtful, &Seen { now: at(600), ..seen(0) }), Step::Act(4, Work::Restore));
        let waiting = Candidate { doubtful: true, ..candidate("b", None) };
        assert!(matches!(decide(&waiting, &seen(600)), Step::Wait(_)), "only the holder may mend it");
    }

    #[test]
    fn an_idle_holder_records_its_heartbeat_and_nothing_else() {
        let beat = Duration::from_millis(250);
        let me = candidate("a", Some(4));
        assert!(!worth_recording(0, &me, &seen(749), beat));
        assert!(worth_recording(0, &me, &seen(750), beat));
        assert!(worth_recording(1, &me, &seen(501), beat));
        assert!(worth_recording(0, &me, &seen(400), beat), "the clock was set back");
        assert!(
            worth_recording(0, &candidate("b", None), &seen(501), beat),
            "a takeover is recorded at once"
        );
    }
}
