//! A rule that a policy may leave out, and put in or take out while calls go through it.

use crate::live::Live;

/// On, it is a rule; off, it is none, and what the rule has learnt is kept for when it is on again. A clone is another
/// handle on the same.
#[derive(Debug)]
pub struct Switch<T>(Live<Position<T>>);

#[derive(Debug)]
struct Position<T> {
    /// None if it was never on.
    rule: Option<T>,
    is_on: bool,
}

impl<T> Switch<T> {
    /// On with a rule, off without one.
    pub fn new(rule: Option<T>) -> Self {
        Switch(Live::new(Position { is_on: rule.is_some(), rule }))
    }

    /// The rule, if it is on.
    pub fn get(&self) -> Option<&T> {
        let Position { rule, is_on } = self.0.get();
        rule.as_ref().filter(|_| *is_on)
    }

    /// The same. Makes this handle let go of what was replaced.
    #[inline]
    pub fn refresh(&mut self) -> Option<&T> {
        let Position { rule, is_on } = self.0.refresh().value();
        rule.as_ref().filter(|_| *is_on)
    }
}

#[cfg(feature = "stack")]
impl<T: Clone> Switch<T> {
    /// Turns it on with these settings, or off without. The rule that it had is given them by `change`; one that never
    /// was is made of them by `make`. Two changes at a time are for the caller to keep apart.
    pub(crate) fn set<S>(&self, settings: Option<S>, make: impl FnOnce(S) -> T, change: impl FnOnce(&T, S)) {
        let known = self.0.get().rule.as_ref();
        let is_on = settings.is_some();
        let rule = match (known, settings) {
            (known, None) => known.cloned(),
            (None, Some(settings)) => Some(make(settings)),
            (Some(known), Some(settings)) => {
                // Before it is on, so that nobody is judged by settings of long ago.
                change(known, settings);
                Some(known.clone())
            }
        };
        // Refused where it stands as it shall.
        let _ = self.0.replace(|old| {
            if old.is_on == is_on && old.rule.is_some() == rule.is_some() {
                return Err(());
            }
            Ok(Position { rule: rule.clone(), is_on })
        });
    }
}

impl<T> Clone for Switch<T> {
    fn clone(&self) -> Self {
        Switch(self.0.clone())
    }
}
