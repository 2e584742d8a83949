//! What is known of work by its name: how long it takes, and how much of it waits.

use std::time::Duration;

/// So many names are told apart; what comes under more of them is counted together, as [`OTHERS`].
pub const MOST_NAMES: usize = 64;
/// The name of work whose name came after [`MOST_NAMES`] others.
pub const OTHERS: &str = "(others)";

/// A run counts for an eighth of what is expected of the next: some ten runs after a change it is followed. The
/// weight that RFC 6298 (section 2) gives a round trip, for the same reason.
const WEIGHT: u32 = 8;

/// One name's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobStats {
    /// The name.
    pub name: &'static str,
    /// Pieces of work that wait.
    pub waiting: u32,
    /// Pieces that ran, to whatever end.
    pub runs: u64,
    /// What the next run is expected to take; zero as long as nothing is known.
    pub expected: Duration,
    /// The longest run.
    pub longest: Duration,
}

/// Which name; an index that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(usize);

#[derive(Debug, Default)]
pub(super) struct Kinds(Vec<JobStats>);

impl Kinds {
    /// The kind of that name. Cost: as many comparisons as there are names before it.
    pub(super) fn named(&mut self, name: &'static str) -> Kind {
        if let Some(place) = self.0.iter().position(|kind| kind.name == name) {
            return Kind(place);
        }
        if self.0.len() > MOST_NAMES {
            return Kind(MOST_NAMES);
        }
        let name = if self.0.len() == MOST_NAMES { OTHERS } else { name };
        self.0.push(JobStats {
            name,
            waiting: 0,
            runs: 0,
            expected: Duration::ZERO,
            longest: Duration::ZERO,
        });
        Kind(self.0.len() - 1)
    }

    pub(super) fn get(&self, kind: Kind) -> &JobStats {
        &self.0[kind.0]
    }

    pub(super) fn all(&self) -> &[JobStats] {
        &self.0
    }

    /// What all that waits is expected to take, on one thread.
    pub(super) fn expected_waiting(&self) -> Duration {
        self.0
            .iter()
            .fold(Duration::ZERO, |sum, kind| sum.saturating_add(kind.expected.saturating_mul(kind.waiting)))
    }

    pub(super) fn waits(&mut self, kind: Kind) {
        self.0[kind.0].waiting += 1;
    }

    pub(super) fn waits_no_more(&mut self, kind: Kind) {
        self.0[kind.0].waiting -= 1;
    }

    /// One ran for so long. What was told to stop would have taken longer, so it only ever raises what is expected.
    pub(super) fn ran(&mut self, kind: Kind, took: Duration, to_its_end: bool) {
        let kind = &mut self.0[kind.0];
        kind.expected = match (kind.expected, to_its_end) {
            (known, false) => known.max(took),
            (Duration::ZERO, true) => took,
            (known, true) => known - known / WEIGHT + took / WEIGHT,
        };
        kind.longest = kind.longest.max(took);
        kind.runs += 1;
    }

    /// One was refused because of what is expected of it. If that never faded, work that once was slow would be
    /// refused for ever, and nobody would find out that it is fast again.
    pub(super) fn refused_for_its_length(&mut self, kind: Kind) {
        let kind = &mut self.0[kind.0];
        kind.expected -= kind.expected / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; MOST_NAMES + 2] = {
        // Names are static; here are as many as needed, each a slice of this one.
        const ALL: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let mut names = [""; MOST_NAMES + 2];
        let mut n = 0;
        while n < names.len() {
            names[n] = ALL.split_at(n + 1).0;
            n += 1;
        }
        names
    };

    #[test]
    fn names_are_bounded_and_the_rest_is_counted_together() {
        let mut kinds = Kinds::default();
        let places: Vec<Kind> = NAMES.iter().map(|name| kinds.named(name)).collect();
        assert_eq!(kinds.all().len(), MOST_NAMES + 1);
        assert_eq!((places[MOST_NAMES], kinds.get(places[MOST_NAMES]).name), (Kind(MOST_NAMES), OTHERS));
        assert_eq!(places[MOST_NAMES + 1], Kind(MOST_NAMES));
        assert_eq!(kinds.named(NAMES[3]), Kind(3), "a known name keeps its own");
    }

    #[test]
    fn what_is_expected_follows_what_ran() {
        let mut kinds = Kinds::default();
        let kind = kinds.named("hash");
        let millis = Duration::from_millis;
        kinds.ran(kind, millis(80), true);
        assert_eq!(kinds.get(kind).expected, millis(80), "the first one is all there is to know");
        kinds.ran(kind, millis(160), true);
        assert_eq!(kinds.get(kind).expected, millis(90));
        kinds.ran(kind, millis(10), false);
        assert_eq!(kinds.get(kind).expected, millis(90), "it was told to stop: it says nothing");
        kinds.ran(kind, millis(400), false);
        assert_eq!(kinds.get(kind).expected, millis(400), "it takes at least so long");
        assert_eq!((kinds.get(kind).runs, kinds.get(kind).longest), (4, millis(400)));
    }
}
