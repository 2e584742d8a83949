//! The settings of a section, listed once: a reader fills them in, a writer writes them down.

use mainstay_resilience::Invalid;

use crate::value::Setting;

/// What goes through the settings of a section, in their order.
pub(crate) trait Form {
    /// One setting. `value` is its default before, where it is read.
    fn setting<T: Setting>(&mut self, key: &'static str, value: &mut T);

    /// One setting that has no default.
    fn required<T: Setting>(&mut self, key: &'static str, value: &mut T);

    /// A section of its own, which begins as `fresh`; without it, `value` stays as it is.
    fn section<T: Copy>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        fresh: T,
        settings: impl FnOnce(&mut Self, &mut T),
        check: impl FnOnce(T) -> Result<(), Invalid>,
    );

    /// Where it is read: sets what follows from the settings so far, as the default of those to come.
    fn then(&mut self, follows: impl FnOnce());

    /// Where it is read: these settings have no meaning beside another one.
    fn meaningless(&mut self, keys: &[&'static str], why: &'static str);

    /// Where it is read: refuses what `key` says, for this reason.
    fn refuse(&mut self, key: &'static str, why: String);
}
