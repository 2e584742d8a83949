//! Snapshots of the server, and what lies between two of them.
//!
//! ```text
//!                old.xmax                    new.xmax
//!  ids ──────────────┼──────────────────────────┼──────────►
//!   settled │ old.running                │ new.running │ running
//!           └─ those of them that new no longer names ─┘
//! ```
//! A transaction belongs to the difference when the old snapshot does not see it and the new one has seen it end.
//! Whether it committed is the server's business: rows of others are invisible.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The first transaction id that a server gives out.
const FIRST_XID: u64 = 3;

/// Added to the ids of rows that a restore left without a place, so that no transaction of this server has them.
pub(crate) const RESTORED: u64 = 1 << 62;

/// What rows get as id that have their place and whose id belongs to another server: a transaction that no
/// difference contains.
pub(crate) const PLACED: u64 = FIRST_XID;

/// A `pg_snapshot`: which transactions had ended when it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// All before this one had ended.
    pub(crate) xmin: u64,
    /// None from this one on had.
    pub(crate) xmax: u64,
    /// Those between that had not, in order.
    pub(crate) running: Vec<u64>,
}

impl Snapshot {
    /// Sees nothing that anybody wrote, as the first one of a schema.
    #[cfg(test)]
    fn nothing() -> Self {
        Self { xmin: FIRST_XID, xmax: FIRST_XID, running: Vec::new() }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.running.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{xid}")?;
        }
        Ok(())
    }
}

/// A text that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadSnapshot(pub(crate) String);

impl FromStr for Snapshot {
    type Err = BadSnapshot;

    fn from_str(text: &str) -> Result<Self, BadSnapshot> {
        let bad = || BadSnapshot(text.chars().take(80).collect());
        let number = |part: &str| part.parse::<u64>().map_err(|_| bad());
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(running), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        let running = match running {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
        };
        let ordered = running.windows(2).all(|pair| pair[0] < pair[1]);
        if xmin > xmax || !ordered || running.iter().any(|xid| !(xmin..xmax).contains(xid)) {
            return Err(bad());
        }
        Ok(Self { xmin, xmax, running })
    }
}

/// The transactions whose rows are looked for: a few by name, and a range without some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// They were running for the old snapshot and have ended for the new one.
    pub(crate) ended: Vec<u64>,
    /// And all from here ...
    pub(crate) from: u64,
    /// ... to before here ...
    pub(crate) to: u64,
    /// ... except these, which still run.
    pub(crate) running: Vec<u64>,
}

impl Difference {
    /// What `new` has seen end and `old` has not. Empty when `new` is the older one.
    ///
    /// Transactions that run in both are not in it: a writer that has written a million rows and goes on costs
    /// nothing, while a condition such as `xid >= xmin` would read all that was committed behind it.
    pub(crate) fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let running: BTreeSet<u64> = new.running.iter().copied().collect();
        let ended = |xid: &u64| *xid < new.xmax && !running.contains(xid);
        Self {
            ended: old.running.iter().copied().filter(ended).collect(),
            from: old.xmax,
            to: new.xmax.max(old.xmax),
            running: new.running.iter().copied().filter(|xid| *xid >= old.xmax).collect(),
        }
    }

    /// What a restore left without a place.
    pub(crate) fn restored() -> Self {
        Self { ended: Vec::new(), from: RESTORED, to: 2 * RESTORED - 1, running: Vec::new() }
    }

    /// Can it contain anything?
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.from >= self.to
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `pg_visible_in_snapshot`, after the documentation.
    fn sees(snapshot: &Snapshot, xid: u64) -> bool {
        xid < snapshot.xmax && !snapshot.running.contains(&xid)
    }

    fn contains(difference: &Difference, xid: u64) -> bool {
        difference.ended.contains(&xid)
            || (difference.from..difference.to).contains(&xid) && !difference.running.contains(&xid)
    }

    /// Snapshots of one server, one after the other: who ended stays ended, who begins gets the next id.
    fn history(steps: &[(u8, u8)]) -> Vec<Snapshot> {
        let (mut next, mut running) = (FIRST_XID, BTreeSet::new());
        let mut taken = vec![Snapshot::nothing()];
        for (begin, end) in steps {
            for _ in 0..*begin {
                running.insert(next);
                next += 1;
            }
            // Of those that run, some end; the longest may stay for ever.
            let ending: Vec<u64> = running.iter().rev().step_by(usize::from(*end) + 1).copied().collect();
            running.retain(|xid| !ending.contains(xid));
            // As the server says it: the first that has not ended, and the one after the last that has.
            let last = (FIRST_XID..next).rev().find(|xid| !running.contains(xid)).map_or(next, |xid| xid + 1);
            let running: Vec<u64> = running.iter().copied().filter(|xid| *xid < last).collect();
            taken.push(Snapshot { xmin: running.first().copied().unwrap_or(last), xmax: last, running });
        }
        taken
    }

    proptest! {
        #[test]
        fn every_transaction_is_in_exactly_one_difference(
            steps in proptest::collection::vec((0u8..5, 0u8..4), 1..30),
        ) {
            let taken = history(&steps);
            let top = taken.iter().map(|snapshot| snapshot.xmax).max().unwrap_or(0);
            for pair in taken.windows(2) {
                let difference = Difference::between(&pair[0], &pair[1]);
                for xid in 0..top + 3 {
                    let expected = sees(&pair[1], xid) && !sees(&pair[0], xid);
                    prop_assert_eq!(contains(&difference, xid), expected, "{} in {:?}", xid, pair);
                }
                prop_assert_eq!(pair[1].to_string().parse::<Snapshot>(), Ok(pair[1].clone()));
            }
        }
    }

    #[test]
    fn who_runs_in_both_is_not_looked_for() {
        let old: Snapshot = "10:20:10,15".parse().unwrap();
        let new: Snapshot = "10:30:10,25".parse().unwrap();
        let difference = Difference::between(&old, &new);
        assert_eq!(difference, Difference { ended: vec![15], from: 20, to: 30, running: vec![25] });
        assert!(Difference::between(&new, &new).is_empty());
        assert!(Difference::between(&new, &old).is_empty(), "an older snapshot has nothing new");
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for bad in ["", "1:2", "1:2:3:4", "2:1:", "1:5:5", "1:5:0", "1:5:3,2", "a:5:", "1:5:,"] {
            assert!(bad.parse::<Snapshot>().is_err(), "{bad}");
        }
    }
}
