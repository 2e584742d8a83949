//! `[policy.NAME]`: what is said of one callee, or of one route.

mod inbound;
mod outbound;
mod repeats;
mod rules;

pub use inbound::Inbound;
pub use outbound::Outbound;
pub use repeats::{Limited, Repeats};

use crate::form::Form;
use crate::reader::Reader;
use crate::value::{Value, words};

/// The longest name, in bytes: as of a policy that is built in Rust.
const NAME_MAX: usize = 128;

/// A policy of a document.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and all of them are kept in a map")]
pub enum Policy {
    /// For calls to a callee.
    Outbound(Outbound),
    /// For requests to a route.
    Inbound(Inbound),
}

/// A place in the order in which rules stand around a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What stands there.
    pub name: &'static str,
    /// The settings that put it there. Empty: only code can.
    pub settings: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Outbound,
    Inbound,
}

words!(Direction { "outbound" => Direction::Outbound, "inbound" => Direction::Inbound });

impl Policy {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Policy::Outbound(policy) => policy.name(),
            Policy::Inbound(policy) => policy.name(),
        }
    }

    /// `outbound` or `inbound`.
    pub fn direction(&self) -> &'static str {
        match self {
            Policy::Outbound(_) => "outbound",
            Policy::Inbound(_) => "inbound",
        }
    }

    /// Every setting that it goes by, those that were left to their defaults included, as a document has them.
    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let direction = Value::Text(self.direction().to_owned());
        let rules = match self {
            Policy::Outbound(policy) => policy.settings(),
            Policy::Inbound(policy) => policy.settings(),
        };
        std::iter::once(("direction", direction)).chain(rules).collect()
    }

    /// Where rules stand around a call, the outermost first: the order of
    /// [`stack`](mainstay_resilience::stack).
    pub fn places(&self) -> &'static [Place] {
        match self {
            Policy::Outbound(_) => &outbound::PLACES,
            Policy::Inbound(_) => &inbound::PLACES,
        }
    }

    /// Reads one; what is wrong with it, the reader tells.
    pub(crate) fn read(name: &str, reader: &mut Reader<'_, '_, '_>) -> Option<Self> {
        let mut direction = Direction::Outbound;
        reader.setting("direction", &mut direction);
        if !reader.is_right() {
            // Whose settings the others are is not known.
            return None;
        }
        if name.is_empty() || name.len() > NAME_MAX {
            reader
                .refuse_all(format!("has a name of {} bytes: it is 1 to {NAME_MAX} bytes long", name.len()));
        }
        Some(match direction {
            Direction::Outbound => Policy::Outbound(Outbound::read(name, reader)),
            Direction::Inbound => Policy::Inbound(Inbound::read(name, reader)),
        })
    }
}
