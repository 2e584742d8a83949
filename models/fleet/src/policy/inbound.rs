//! A policy for requests to a route.

use std::time::Duration;

use mainstay_resilience::{InboundBuilder, InboundSpec, Limit, Policy, Rate, Shed, bulkhead};

use super::outbound::checked;
use super::{Place, rules};
use crate::form::Form;
use crate::reader::Reader;
use crate::value::Value;
use crate::writer::Writer;

/// The inbound order of [`stack`](mainstay_resilience::stack).
pub(super) const PLACES: [Place; 8] = [
    Place { name: "deadline", settings: &["deadline"] },
    Place { name: "coarse shed", settings: &["coarse_shed"] },
    Place { name: "authenticate", settings: &[] },
    Place { name: "access", settings: &[] },
    Place { name: "rate_limit", settings: &["rate_limit"] },
    Place { name: "load_shed", settings: &["load_shed"] },
    Place { name: "cache", settings: &[] },
    Place { name: "bulkhead (route)", settings: &["bulkhead"] },
];

/// A policy for requests to the route of its name: what [`Policy::inbound`] builds, as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    name: String,
    spec: InboundSpec,
}

impl Inbound {
    /// One that says the same as `spec`.
    pub fn new(name: impl Into<String>, spec: InboundSpec) -> Self {
        Inbound { name: name.into(), spec }
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says.
    pub fn spec(&self) -> &InboundSpec {
        &self.spec
    }

    /// Begins the policy that it describes; clock, chance and recording are the process's and still to be said.
    pub fn builder(&self) -> InboundBuilder {
        Policy::inbound(self.name.clone()).spec(self.spec)
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, Value)> {
        let mut writer = Writer::default();
        form(&mut writer, &mut self.spec.clone());
        writer.settings
    }

    pub(super) fn read(name: &str, reader: &mut Reader<'_, '_, '_>) -> Self {
        let mut policy = Inbound::new(name, InboundSpec::default());
        form(reader, &mut policy.spec);
        reader.finish();
        reader.check(policy.spec.check(), |invalid| {
            let (section, field) = (invalid.pattern(), invalid.field());
            Some(if section == "deadline" { section.to_owned() } else { format!("{section}.{field}") })
        });
        policy
    }
}

/// All settings, in the order of the stack.
fn form<F: Form>(form: &mut F, spec: &mut InboundSpec) {
    form.setting("deadline", &mut spec.deadline);
    let measured = Shed::adaptive().limit;
    form.section("coarse_shed", &mut spec.coarse_shed, measured, rules::limit, |limit: Limit| {
        InboundSpec { coarse_shed: Some(limit), ..InboundSpec::default() }.check()
    });
    // A rate and a number of permits have no default: they are asked for, or the section is wrong.
    let rate = Rate::token_bucket(0, Duration::ZERO);
    let refuses = |form: &mut F, spec: &mut Rate| rules::rate_limit(form, spec, true);
    form.section("rate_limit", &mut spec.rate_limit, rate, refuses, |spec| {
        InboundSpec { rate_limit: Some(spec), ..InboundSpec::default() }.check()
    });
    form.section("load_shed", &mut spec.load_shed, Shed::adaptive(), rules::load_shed, checked(Shed::check));
    let permits = bulkhead::Spec::permits(0);
    form.section("bulkhead", &mut spec.bulkhead, permits, rules::bulkhead, checked(bulkhead::Spec::check));
}
