//! The settings of a fallback.

use crate::invalid::Invalid;

/// Which failures may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Those where a rule of ours said no (an open breaker, a full bulkhead, a timeout). Default true.
    pub on_refusal: bool,
    /// Those of the callee that may pass. Default true.
    pub on_transient: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec { on_refusal: true, on_transient: true }
    }
}

impl Spec {
    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] if nothing would ever be replaced.
    pub fn check(self) -> Result<Checked, Invalid> {
        if !self.on_refusal && !self.on_transient {
            let problem = "with `on_transient` false as well, nothing would ever be replaced";
            let remedy = "set one of them, or leave the fallback out";
            return Err(Invalid::new("fallback", "on_refusal", "false".into(), problem, remedy));
        }
        Ok(Checked(self))
    }
}

/// Settings that have been through [`Spec::check`], or are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checked(Spec);

impl Checked {
    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_for_nothing_is_refused_and_named() {
        let refused = Spec { on_refusal: false, on_transient: false }.check().unwrap_err();
        assert_eq!(refused.field(), "on_refusal");
        assert!(refused.to_string().contains("nothing would ever be replaced"));
        assert!(Spec { on_refusal: false, on_transient: true }.check().is_ok());
        assert!(Spec { on_refusal: true, on_transient: false }.check().is_ok());
    }
}
