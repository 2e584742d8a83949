//! A fact's envelope as extension attributes, so that it goes with a message into the next service.
//!
//! `traceparent` is the specification's extension for distributed tracing; `correlationid` and `causationid` are
//! its extension for correlation; `tenant` and `actor` are ours.

use uuid::Uuid;

use super::CloudEvent;
use super::check::bad;
use super::error::{CloudEventError, Problem};
use crate::envelope::Fact;
use crate::parts::{Actor, CausationId, CorrelationId, Tenant};

const TRACE: &str = "traceparent";
const CORRELATION: &str = "correlationid";
const CAUSATION: &str = "causationid";
const TENANT: &str = "tenant";
const ACTOR: &str = "actor";

impl CloudEvent {
    /// Adds what a fact keeps of the call that made it: up to five extensions. Noncharacters in names, which
    /// CloudEvents do not allow, become U+FFFD.
    ///
    /// # Errors
    /// When the event has too many extensions then.
    pub fn with_fact(self, fact: &Fact) -> Result<Self, CloudEventError> {
        let name = |text: &str| text.chars().map(|c| if bad(c) { '\u{FFFD}' } else { c }).collect::<String>();
        let parts = [
            (TRACE, fact.trace.map(|trace| trace.to_string())),
            (CORRELATION, Some(fact.correlation.0).filter(|id| !id.is_nil()).map(|id| id.to_string())),
            (CAUSATION, fact.causation.map(|id| id.0.to_string())),
            (TENANT, fact.tenant.as_ref().map(|tenant| name(tenant.as_str()))),
            (ACTOR, fact.actor.as_ref().map(|actor| name(actor.as_str()))),
        ];
        parts.into_iter().try_fold(self, |event, (name, value)| match value {
            Some(value) => event.with_extension(name, value),
            None => Ok(event),
        })
    }

    /// The fact's envelope that travels with the event; what did not come is absent.
    ///
    /// # Errors
    /// An extension of these names that is not of its form. A malformed `traceparent` is nobody's error and counts
    /// as absent (W3C Trace Context §4.3).
    pub fn fact(&self) -> Result<Fact, CloudEventError> {
        let id = |name| {
            let not = |_| CloudEventError::new(name, Problem::NotA("a UUID"));
            self.extension(name).map(|text| Uuid::try_parse(text).map_err(not)).transpose()
        };
        let not = |name, what| CloudEventError::new(name, Problem::NotA(what));
        let tenant = self.extension(TENANT).map(|text| {
            Tenant::new(text)
                .map_err(|_| not(TENANT, "the name of a tenant: 1 to 128 bytes, no control character"))
        });
        let actor = self.extension(ACTOR).map(|text| {
            Actor::new(text)
                .map_err(|_| not(ACTOR, "the name of an actor: 1 to 2048 bytes, no control character"))
        });
        Ok(Fact {
            trace: self.extension(TRACE).and_then(|text| text.parse().ok()),
            correlation: CorrelationId(id(CORRELATION)?.unwrap_or_default()),
            causation: id(CAUSATION)?.map(CausationId),
            tenant: tenant.transpose()?,
            actor: actor.transpose()?,
        })
    }
}
