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

    /// The same of the place that a policy gives the pattern, where it is not that of its room.
    #[cfg(feature = "stack")]
    pub(crate) const fn in_place(mut self, place: &'static str) -> Self {
        self.pattern = place;
        self
    }

    /// The pattern's name: that of its room or, of a pattern that a policy has in a place of another name (`pacing`,
    /// `adaptive`, `coarse_shed`), of the place.
    pub fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// The name of the field, as in the pattern's `Spec`.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value, as it was given.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// What is wrong with it, as the middle of a sentence.
    pub fn problem(&self) -> &'static str {
        self.problem
    }

    /// What to do, as the end of a sentence.
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }
}
