//! What is idle, and which of it is still worth using. Time is a parameter.

use std::time::Duration;

use mainstay_envelope::Monotonic;

/// Idle things, the one that was used last on top: so that of many only as many stay in use as are needed, and the
/// others grow old and go.
#[derive(Debug)]
pub(crate) struct Idle<T> {
    /// The oldest first.
    stack: Vec<(Monotonic, T)>,
    most: usize,
    time: Duration,
}

impl<T> Idle<T> {
    /// Holds `most`, each for `time` at most.
    pub(crate) const fn new(most: usize, time: Duration) -> Self {
        Idle { stack: Vec::new(), most, time }
    }

    /// Puts one down at `now`. What there is no room for comes back: the oldest.
    #[must_use = "what comes back is to be closed"]
    pub(crate) fn put(&mut self, now: Monotonic, thing: T) -> Option<T> {
        if self.most == 0 {
            return Some(thing);
        }
        let pushed_out = (self.stack.len() >= self.most).then(|| self.stack.remove(0).1);
        self.stack.push((now, thing));
        pushed_out
    }

    /// Takes the one that was put down last, unless even that is too old.
    pub(crate) fn take(&mut self, now: Monotonic) -> Option<T> {
        let (since, _) = self.stack.last()?;
        if now.saturating_since(*since) >= self.time {
            return None;
        }
        self.stack.pop().map(|(_, thing)| thing)
    }

    /// Takes out all that are too old.
    #[must_use = "they are to be closed"]
    pub(crate) fn old(&mut self, now: Monotonic) -> Vec<T> {
        let old =
            self.stack.iter().take_while(|(since, _)| now.saturating_since(*since) >= self.time).count();
        self.stack.drain(..old).map(|(_, thing)| thing).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.stack.len()
    }

    /// In how long the oldest one is too old; none if there is none.
    pub(crate) fn next_old(&self, now: Monotonic) -> Option<Duration> {
        let (since, _) = self.stack.first()?;
        Some(self.time.saturating_sub(now.saturating_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn the_last_one_used_is_taken_first_and_what_is_too_old_never() {
        let mut idle = Idle::new(2, Duration::from_secs(10));
        assert_eq!(idle.put(at(0), 'a'), None);
        assert_eq!(idle.put(at(5), 'b'), None);
        assert_eq!(idle.put(at(6), 'c'), Some('a'), "no room: the oldest goes");
        assert_eq!(idle.next_old(at(9)), Some(Duration::from_secs(6)));
        assert_eq!(idle.take(at(9)), Some('c'));
        assert_eq!(idle.take(at(15)), None, "b is too old");
        assert_eq!(idle.old(at(14)), []);
        assert_eq!(idle.old(at(15)), ['b']);
        assert_eq!((idle.len(), idle.next_old(at(15))), (0, None));
        let mut none = Idle::new(0, Duration::from_secs(10));
        assert_eq!(none.put(at(0), 'a'), Some('a'));
    }
}
