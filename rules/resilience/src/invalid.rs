//! Settings that can't mean what they say.

/// Settings refused by a pattern's `check`: the settings' fault. Nothing was built from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{pattern} setting `{field}` is {given}: {problem}. No policy was built from these settings; {remedy}."
)]
pub struct Invalid {
    pattern: &'static str,
    field: &'static str,
    given: String,
    problem: &'static str,
    remedy: &'static str,
}

impl Invalid {
    /// Refuses `field` of `pattern`, given as `given`: `problem` says what is wrong with it, `remedy` what to do
    /// (both in the middle of a sentence, without a full stop).
    pub const fn new(
        pattern: &'static str,
        field: &'static str,
        given: String,
        problem: &'static str,
        remedy: &'static str,
    ) -> Self {
        Invalid { pattern, field, given, problem, remedy }
    }

    /// The pattern's name, which is that of its room.
    pub fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// The name of the field, as in the pattern's `Spec`.
    pub fn field(&self) -> &'static str {
        self.field
    }
}
