//! A policy for calls to a callee.

use std::time::Duration;

use mainstay_resilience::{
    Adaptive, Breaker, Hedge, Invalid, OutboundBuilder, Policy, PolicySpec, Rate, Retry, bulkhead, timeout,
};

use super::repeats::{Limited, Repeats};
use super::{Place, rules};
use crate::form::Form;
use crate::reader::Reader;
use crate::value::Value;
use crate::writer::Writer;

/// The outbound order of [`stack`](mainstay_resilience::stack).
pub(super) const PLACES: [Place; 11] = [
    Place { name: "fallback", settings: &[] },
    Place { name: "cache", settings: &[] },
    Place { name: "timeout (total)", settings: &["timeout.total"] },
    Place { name: "rate_limit", settings: &["rate_limit"] },
    Place { name: "pacing", settings: &["pacing"] },
    Place { name: "retry | hedge", settings: &["retry", "hedge"] },
    Place { name: "balance", settings: &[] },
    Place { name: "circuit_breaker", settings: &["breaker"] },
    Place { name: "bulkhead", settings: &["bulkhead"] },
    Place { name: "adaptive limit", settings: &["adaptive"] },
    Place { name: "timeout (attempt)", settings: &["timeout.attempt"] },
];

/// A policy for calls to the callee of its name: what [`Policy::outbound`] builds, as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    name: String,
    spec: PolicySpec,
    repeats: Repeats,
}

impl Outbound {
    /// One that says the same as `spec`, and repeats what is idempotent. Settings without a meaning in their place (of
    /// a limit without keys, how many keys it remembers) are not kept.
    pub fn new(name: impl Into<String>, spec: PolicySpec) -> Self {
        Outbound { name: name.into(), spec, repeats: Repeats::default() }
    }

    /// The callee's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// Which requests may be repeated, where it retries or hedges.
    pub fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// Begins the policy that it describes; clock, chance and recording are the process's and still to be said.
    pub fn builder(&self) -> OutboundBuilder {
        Policy::outbound(self.name.clone()).spec(self.spec)
    }

    /// Requests as `describe` describes them, of which only those that the document lists are repeated.
    pub fn describe<D>(&self, describe: D) -> Limited<D> {
        self.repeats.describe(describe)
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, Value)> {
        let mut writer = Writer::default();
        form(&mut writer, &mut self.spec.clone(), &mut self.repeats.clone());
        writer.settings
    }

    pub(super) fn read(name: &str, reader: &mut Reader<'_, '_, '_>) -> Self {
        let mut policy = Outbound::new(name, PolicySpec::default());
        form(reader, &mut policy.spec, &mut policy.repeats);
        reader.finish();
        reader.check(policy.spec.check(), |invalid| {
            let section = match invalid.pattern() {
                "circuit_breaker" => "breaker",
                pattern => pattern,
            };
            let field = invalid.field();
            Some(if field == section { field.to_owned() } else { format!("{section}.{field}") })
        });
        policy
    }
}

/// All settings, in the order of the stack.
fn form<F: Form>(form: &mut F, spec: &mut PolicySpec, repeats: &mut Repeats) {
    let mut timeouts = (spec.timeout != timeout::Spec::default()).then_some(spec.timeout);
    let nothing = timeout::Spec::default();
    form.section("timeout", &mut timeouts, nothing, rules::timeouts, |timeout| {
        PolicySpec { timeout, ..PolicySpec::default() }.check()
    });
    form.then(|| spec.timeout = timeouts.unwrap_or_default());
    // A rate and a number of permits have no default: they are asked for, or the section is wrong.
    let rate = Rate::token_bucket(0, Duration::ZERO);
    let refuses = |form: &mut F, spec: &mut Rate| rules::rate_limit(form, spec, false);
    form.section("rate_limit", &mut spec.rate_limit, rate, refuses, |spec| {
        PolicySpec { rate_limit: Some(spec), ..PolicySpec::default() }.check()
    });
    let rate = Rate::leaky_queue(0, Duration::ZERO, 0);
    form.section("pacing", &mut spec.pacing, rate, rules::pacing, |spec| {
        PolicySpec { pacing: Some(spec), ..PolicySpec::default() }.check()
    });
    let retries = |form: &mut F, spec: &mut Retry| rules::retry(form, spec, repeats);
    form.section("retry", &mut spec.retry, Retry::default(), retries, checked(Retry::check));
    let hedges = |form: &mut F, spec: &mut Hedge| rules::hedge(form, spec, repeats);
    form.section("hedge", &mut spec.hedge, Hedge::default(), hedges, checked(Hedge::check));
    form.section("breaker", &mut spec.breaker, Breaker::default(), rules::breaker, checked(Breaker::check));
    let permits = bulkhead::Spec::permits(0);
    form.section("bulkhead", &mut spec.bulkhead, permits, rules::bulkhead, checked(bulkhead::Spec::check));
    form.section("adaptive", &mut spec.adaptive, Adaptive::default(), rules::adaptive, |spec| {
        PolicySpec { adaptive: Some(spec), ..PolicySpec::default() }.check()
    });
}

/// A check of which only the refusal is of interest.
pub(super) fn checked<T, C>(
    check: impl FnOnce(T) -> Result<C, Invalid>,
) -> impl FnOnce(T) -> Result<(), Invalid> {
    |spec| check(spec).map(drop)
}
