//! A call on its way through a policy to [`Http`](crate::Http), and what it tells the rules.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use mainstay_envelope::{Context, IdempotencyKey, Monotonic};
use mainstay_resilience::{Describe, Facts, Safety};

/// A call as it goes through the rules. Made by [`Client`](crate::Client). Cheap to clone: its parts are shared.
#[derive(Debug, Clone)]
pub struct Outgoing {
    draft: Arc<Draft>,
    cx: Context,
    safety: Safety,
    begins_here: bool,
    /// Of the try: put in before it goes out.
    facts: Option<Facts>,
}

/// What is the same in all tries.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) key: Option<IdempotencyKey>,
}

impl Outgoing {
    pub(crate) fn new(draft: Draft, cx: Context, safety: Safety, begins_here: bool) -> Self {
        Outgoing { draft: Arc::new(draft), cx, safety, begins_here, facts: None }
    }

    pub(crate) fn draft(&self) -> &Draft {
        &self.draft
    }

    pub(crate) const fn cx(&self) -> &Context {
        &self.cx
    }

    pub(crate) const fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.draft.method
    }

    /// Its path and query, without the callee's base.
    pub fn target(&self) -> &str {
        &self.draft.target
    }

    /// What repeating it could do, as the type of its builder says.
    pub const fn safety(&self) -> Safety {
        self.safety
    }
}

/// Tells the rules about [`Outgoing`] calls: the deadline, priority and tokens of their context, and their safety, which
/// is a matter of the builder's type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calls;

impl Describe<Outgoing> for Calls {
    fn facts(&self, call: &Outgoing, now: Monotonic) -> Facts {
        let mut facts = Facts::of(call.cx.envelope(), now).with_safety(call.safety);
        if call.begins_here {
            facts.tokens = None;
        }
        facts
    }

    fn repeat(&self, call: &Outgoing) -> Option<Outgoing> {
        // Whatever its safety: that one is not repeated is a decision, and recorded as one.
        Some(call.clone())
    }

    fn identity<'a>(&self, call: &'a Outgoing) -> Option<&'a str> {
        Some(call.cx.envelope().caller()?.as_str())
    }

    fn send(&self, call: &mut Outgoing, facts: &Facts) {
        call.facts = Some(facts.clone());
    }
}
