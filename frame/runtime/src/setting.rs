//! Settings that can't mean what they say.

/// Settings refused by a `check`: the settings' fault. Nothing was started with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} setting `{field}` is {given}: {problem}. Nothing was started; give another value.")]
pub struct Invalid {
    part: &'static str,
    field: &'static str,
    given: String,
    problem: &'static str,
}

impl Invalid {
    pub(crate) fn new(part: &'static str, field: &'static str, given: String, problem: &'static str) -> Self {
        Self { part, field, given, problem }
    }

    /// The name of the field, as in the `Spec`.
    pub fn field(&self) -> &'static str {
        self.field
    }
}
