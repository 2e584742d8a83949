//! The envelope on the wire: header fields, and what is believed of them.
//!
//! | field | form | at the edge |
//! |---|---|---|
//! | `traceparent`, `tracestate` | W3C Trace Context | kept |
//! | `mainstay-correlation-id` | String, a UUID | kept |
//! | `mainstay-remaining-ms` | Integer, 0 to 15 digits of nines | kept up to the edge's longest |
//! | `idempotency-key` | String (draft-ietf-httpapi-idempotency-key-header), or bare | kept |
//! | `mainstay-causation-id` | String, a UUID | discarded |
//! | `mainstay-priority` | Token: `background`, `low`, `normal`, `critical` | set anew |
//! | `mainstay-retry-tokens` | Integer, 0 to 2 | set anew |
//! | `mainstay-caller`, `mainstay-tenant` | String, or Display String outside ASCII | set anew |
//! | `mainstay-actor` | the same | discarded |
//!
//! String, Token, Integer and Display String are those of RFC 9651; parameters are passed over, as it asks. No
//! HTTP library is involved: fields come and go as pairs of name and value, names without regard to case.
//!
//! The deadline travels as what remains of it, because no two machines' clocks agree. The time on the way is not
//! known to anybody and not taken off; a receiver can wait that much longer, never a sender.

use std::time::Duration;

use sfv::{BareItem, Item, ItemSerializer, Parser, RefBareItem, StringRef, TokenRef};
use uuid::Uuid;

use crate::chance::Chance;
use crate::envelope::Envelope;
use crate::parts::{Actor, CausationId, CorrelationId, Deadline, IdempotencyKey, Identity, Priority, Tenant};
use crate::text::TextError;
use crate::time::Monotonic;
use crate::tokens::RetryTokens;
use crate::trace::{TraceContext, TraceParent};

/// The longest value that is looked at, in bytes: the longest name there is, every character escaped, fits.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;

/// The longest remaining time that can be written: the largest Integer of RFC 9651 §3.3.1, some 31,000 years.
const REMAINING_MS_MAX: u64 = 999_999_999_999_999;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const CORRELATION: &str = "mainstay-correlation-id";
const REMAINING: &str = "mainstay-remaining-ms";
const KEY: &str = "idempotency-key";
const CAUSATION: &str = "mainstay-causation-id";
const PRIORITY: &str = "mainstay-priority";
const TOKENS: &str = "mainstay-retry-tokens";
const CALLER: &str = "mainstay-caller";
const TENANT: &str = "mainstay-tenant";
const ACTOR: &str = "mainstay-actor";

/// Every field that this module reads or writes, in lower case. An edge also strips these from what it forwards
/// unread.
pub const NAMES: [&str; 11] = [
    TRACEPARENT,
    TRACESTATE,
    CORRELATION,
    REMAINING,
    KEY,
    CAUSATION,
    PRIORITY,
    TOKENS,
    CALLER,
    TENANT,
    ACTOR,
];

/// How far the sender is believed.
#[derive(Debug)]
pub enum Boundary {
    /// The sender is one of our own, and authenticated as such: what it says holds, and what can't be read is an
    /// error that has to be found.
    Trusted,
    /// The sender is anybody. What would let them take more than their share, or another's name, is set anew.
    Edge(Edge),
}

/// What an edge puts in place of what a stranger said.
#[derive(Debug)]
pub struct Edge {
    /// The longest time that a caller may claim, and the time of a caller who claims none.
    pub max_deadline: Duration,
    /// The priority of this request.
    pub priority: Priority,
    /// The tokens lent to this request: see [`RetryBucket::lend`](crate::RetryBucket::lend).
    pub tokens: RetryTokens,
    /// Who calls, if the connection has told already. (A token's subject comes later, by
    /// [`Envelope::with_caller`].)
    pub caller: Option<Identity>,
    /// On whose account, if that is known already.
    pub tenant: Option<Tenant>,
}

/// A header field that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header `{header}` of this call can't be used: {problem}. The call was not begun; whoever sent it has to \
     correct the header or leave it out"
)]
pub struct WireError {
    header: &'static str,
    problem: Problem,
}

impl WireError {
    /// The field's name, in lower case.
    pub fn header(&self) -> &'static str {
        self.header
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it is there more than once")]
    Twice,
    #[error("its value is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    #[error("its value is not a structured field of RFC 9651 ({0})")]
    Unstructured(String),
    #[error("its value is not {0}")]
    NotA(&'static str),
    #[error("{0}")]
    Text(#[from] TextError),
}

/// The fields of a call, to be sent at `now`.
///
/// What an envelope does not have gets no field, so a sender removes those of [`NAMES`] from what it forwards
/// before it adds these. The tokens left are written and stay where they are: the envelope of an outgoing call has
/// those that were moved to it ([`Envelope::outgoing`]).
pub fn encode(envelope: &Envelope, now: Monotonic) -> Vec<(&'static str, String)> {
    let mut fields = Vec::with_capacity(NAMES.len());
    fields.push((TRACEPARENT, envelope.trace().parent().to_string()));
    if let Some(state) = envelope.trace().state() {
        fields.push((TRACESTATE, state.to_owned()));
    }
    fields.push((CORRELATION, text(&envelope.correlation().0.to_string())));
    if let Some(CausationId(id)) = envelope.causation() {
        fields.push((CAUSATION, text(&id.to_string())));
    }
    if let Some(deadline) = envelope.deadline() {
        // Rounded down: a hop may lower a deadline, never raise it.
        let millis = deadline.remaining(now).as_millis().min(u128::from(REMAINING_MS_MAX));
        fields.push((REMAINING, millis.to_string()));
    }
    fields.push((PRIORITY, envelope.priority().as_str().to_owned()));
    fields.push(answer(envelope.tokens()));
    for (name, value) in [
        (KEY, envelope.idempotency_key().map(IdempotencyKey::as_str)),
        (CALLER, envelope.caller().map(Identity::as_str)),
        (TENANT, envelope.tenant().map(Tenant::as_str)),
        (ACTOR, envelope.actor().map(Actor::as_str)),
    ] {
        if let Some(value) = value {
            fields.push((name, text(value)));
        }
    }
    fields
}

/// A String where the characters allow it, else a Display String (RFC 9651 §3.3.3 and §3.3.8).
fn text(value: &str) -> String {
    let item = match StringRef::from_str(value) {
        Ok(ascii) => RefBareItem::String(ascii),
        Err(_) => RefBareItem::DisplayString(value),
    };
    ItemSerializer::new().bare_item(item).finish()
}

/// The field by which an answer gives back the tokens that a call did not spend.
pub fn answer(left: &RetryTokens) -> (&'static str, String) {
    (TOKENS, left.left().to_string())
}

/// Lowers the tokens `lent` to a call to what its answer gives back.
///
/// Without a readable report they count as spent, so tokens are lent only to callees that know this field. A report
/// of more than was lent is not believed. The caller then takes them back by [`RetryTokens::give_back`].
pub fn settle<N: AsRef<str>, V: AsRef<[u8]>>(lent: &RetryTokens, answer: impl IntoIterator<Item = (N, V)>) {
    let reported = Fields::collect(answer).get(TOKENS, whole_tokens);
    lent.settle(reported.ok().flatten().unwrap_or(0));
}

/// The envelope of a call that arrived at `now` with these fields.
///
/// `chance` is drawn from for a new trace and correlation where none came. Takes some microseconds; values beyond
/// [`VALUE_BYTES_MAX`] are not looked at.
///
/// # Errors
/// From a [trusted](Boundary::Trusted) sender, the first field of ours that is there twice, too long or malformed.
/// At an [edge](Boundary::Edge) such fields count as absent, but for `idempotency-key`: whoever sends one relies on
/// it, and to go on without would do the thing twice. A malformed `traceparent` is nobody's error: it begins a new
/// trace (W3C Trace Context §4.3).
pub fn decode<N: AsRef<str>, V: AsRef<[u8]>>(
    headers: impl IntoIterator<Item = (N, V)>,
    now: Monotonic,
    boundary: Boundary,
    chance: &dyn Chance,
) -> Result<Envelope, WireError> {
    let fields = Fields::collect(headers);
    let trace = fields.trace(chance);
    let key = fields.get(KEY, idempotency_key)?;
    let correlation = fields.get(CORRELATION, id).map(|id| id.map(CorrelationId));
    let remaining = fields.get(REMAINING, remaining);
    let new_correlation = || CorrelationId::random(chance);

    let mut envelope = match boundary {
        Boundary::Edge(edge) => {
            let correlation = correlation.ok().flatten().unwrap_or_else(new_correlation);
            let claimed = remaining.ok().flatten().unwrap_or(edge.max_deadline);
            let mut envelope = Envelope::of(trace, correlation, edge.priority)
                .lower_deadline(Deadline::after(now, claimed.min(edge.max_deadline)))
                .with_tokens(edge.tokens);
            if let Some(caller) = edge.caller {
                envelope = envelope.with_caller(caller);
            }
            if let Some(tenant) = edge.tenant {
                envelope = envelope.with_tenant(tenant);
            }
            envelope
        }
        Boundary::Trusted => {
            let correlation = correlation?.unwrap_or_else(new_correlation);
            let priority = fields.get(PRIORITY, priority)?.unwrap_or_default();
            let mut envelope = Envelope::of(trace, correlation, priority);
            if let Some(remaining) = remaining? {
                envelope = envelope.lower_deadline(Deadline::after(now, remaining));
            }
            if let Some(tokens) = fields.get(TOKENS, whole_tokens)? {
                envelope = envelope.with_tokens(RetryTokens::new(tokens));
            }
            if let Some(causation) = fields.get(CAUSATION, id)? {
                envelope = envelope.with_causation(CausationId(causation));
            }
            if let Some(caller) = fields.get(CALLER, |value| Ok(Identity::new(name(value)?)?))? {
                envelope = envelope.with_caller(caller);
            }
            if let Some(tenant) = fields.get(TENANT, |value| Ok(Tenant::new(name(value)?)?))? {
                envelope = envelope.with_tenant(tenant);
            }
            if let Some(actor) = fields.get(ACTOR, |value| Ok(Actor::new(name(value)?)?))? {
                envelope = envelope.with_actor(actor);
            }
            envelope
        }
    };
    if let Some(key) = key {
        envelope = envelope.with_idempotency_key(key);
    }
    Ok(envelope)
}

/// The fields of ours among those that came.
struct Fields<V> {
    found: [Vec<V>; NAMES.len()],
}

impl<V: AsRef<[u8]>> Fields<V> {
    fn collect<N: AsRef<str>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut found = [const { Vec::new() }; NAMES.len()];
        for (name, value) in headers {
            if let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name.as_ref())) {
                found[at].push(value);
            }
        }
        Self { found }
    }

    fn values(&self, header: &'static str) -> &[V] {
        NAMES.iter().position(|&known| known == header).map_or(&[], |at| &self.found[at])
    }

    /// The field's value, read by `read`; none if it is absent.
    fn get<T>(
        &self,
        header: &'static str,
        read: impl FnOnce(&[u8]) -> Result<T, Problem>,
    ) -> Result<Option<T>, WireError> {
        let value = match self.values(header) {
            [] => return Ok(None),
            [value] => value.as_ref(),
            _ => return Err(WireError { header, problem: Problem::Twice }),
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(WireError { header, problem: Problem::TooLong });
        }
        read(value).map(Some).map_err(|problem| WireError { header, problem })
    }

    fn trace(&self, chance: &dyn Chance) -> TraceContext {
        let parent = self.get(TRACEPARENT, |value| Ok(traceparent(value)));
        let Some(parent) = parent.ok().flatten().flatten() else {
            // Without its traceparent a tracestate means nothing (§4.3).
            return TraceContext::random(chance);
        };
        let lines: Vec<&[u8]> = self.values(TRACESTATE).iter().map(AsRef::as_ref).collect();
        let trace = TraceContext::from(parent);
        if lines.iter().map(|line| line.len()).sum::<usize>() > VALUE_BYTES_MAX {
            return trace;
        }
        match std::str::from_utf8(&lines.join(&b',')) {
            Ok(state) => trace.with_state(state),
            Err(_) => trace,
        }
    }
}

fn traceparent(value: &[u8]) -> Option<TraceParent> {
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

fn item(value: &[u8]) -> Result<BareItem, Problem> {
    let item: Item = Parser::new(value).parse().map_err(|error| Problem::Unstructured(error.to_string()))?;
    Ok(item.bare_item)
}

fn whole(value: &[u8], largest: u64, what: &'static str) -> Result<u64, Problem> {
    let number = item(value)?.as_integer().and_then(|integer| u64::try_from(i64::from(integer)).ok());
    number.filter(|&number| number <= largest).ok_or(Problem::NotA(what))
}

fn remaining(value: &[u8]) -> Result<Duration, Problem> {
    whole(value, REMAINING_MS_MAX, "a whole number of milliseconds, zero or more").map(Duration::from_millis)
}

fn whole_tokens(value: &[u8]) -> Result<u8, Problem> {
    let tokens = whole(value, u64::from(RetryTokens::MAX), "a number of retry tokens, 0 to 2")?;
    Ok(u8::try_from(tokens).unwrap_or(RetryTokens::MAX))
}

fn priority(value: &[u8]) -> Result<Priority, Problem> {
    let item = item(value)?;
    let name = item.as_token().map(TokenRef::as_str);
    name.and_then(Priority::from_name).ok_or(Problem::NotA("one of background, low, normal, critical"))
}

/// A String or a Display String.
fn name(value: &[u8]) -> Result<String, Problem> {
    match item(value)? {
        BareItem::String(text) => Ok(text.into()),
        BareItem::DisplayString(text) => Ok(text),
        _ => Err(Problem::NotA("a String, in quotes, or a Display String")),
    }
}

fn id(value: &[u8]) -> Result<Uuid, Problem> {
    let id = Uuid::try_parse(&name(value)?).ok().filter(|id| !id.is_nil());
    id.ok_or(Problem::NotA("a String with a UUID in it, other than the nil UUID"))
}

/// A String, or the bare key that many clients send: it begins with no quote and has only letters, digits and `-._~:`.
fn idempotency_key(value: &[u8]) -> Result<IdempotencyKey, Problem> {
    let bare = value.trim_ascii();
    let is_bare = |c: &u8| c.is_ascii_alphanumeric() || b"-._~:".contains(c);
    match std::str::from_utf8(bare) {
        // A leading colon begins a Byte Sequence, which is something else.
        Ok(key) if bare.iter().all(is_bare) && !bare.starts_with(b":") => Ok(IdempotencyKey::new(key)?),
        _ => match item(value)? {
            BareItem::String(text) => Ok(IdempotencyKey::new(text.as_str())?),
            _ => Err(Problem::NotA("a String, in quotes")),
        },
    }
}
