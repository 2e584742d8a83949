//! Decides recorded decisions again.

use crate::record::Decision;
use crate::refusal::Rule;

/// What deciding a recorded decision again says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The same verdict, bit for bit.
    Same,
    /// Another one: the record was altered, or another version of the rule decided it.
    Different {
        /// What this version decides.
        verdict: u64,
    },
    /// This version can't ask this question: its rule was left out when it was built, or is older or younger.
    Unknown,
}

/// Decides a recorded decision again, from its inputs alone.
pub fn replay(decision: &Decision) -> Replayed {
    match verdict(decision) {
        None => Replayed::Unknown,
        Some(verdict) if verdict == decision.verdict => Replayed::Same,
        Some(verdict) => Replayed::Different { verdict },
    }
}

fn verdict(decision: &Decision) -> Option<u64> {
    let Decision { rule, question, at, inputs, .. } = *decision;
    match rule {
        Rule::LoadShed => crate::load_shed::replay(question, at, inputs),
        Rule::RateLimit => crate::rate_limit::replay(question, at, inputs),
        Rule::Retry => crate::retry::replay(question, at, inputs),
        #[cfg(feature = "bulkhead")]
        Rule::Bulkhead => crate::bulkhead::replay(question, at, inputs),
        #[cfg(feature = "cache")]
        Rule::Cache => crate::cache::replay(question, at, inputs),
        #[cfg(feature = "circuit-breaker")]
        Rule::CircuitBreaker => crate::circuit_breaker::replay(question, at, inputs),
        #[cfg(feature = "fallback")]
        Rule::Fallback => crate::fallback::replay(question, at, inputs),
        #[cfg(feature = "hedge")]
        Rule::Hedge => crate::hedge::replay(question, at, inputs),
        #[cfg(feature = "timeout")]
        Rule::Timeout => crate::timeout::replay(question, at, inputs),
        #[allow(unreachable_patterns, reason = "reached by a rule that was left out when this was built")]
        _ => None,
    }
}
