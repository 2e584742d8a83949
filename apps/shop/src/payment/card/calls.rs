//! The calls to the card processor, under their policy.

use std::time::Duration;

use mainstay::Context;
use mainstay::envelope::{IdempotencyKey, TextError};
use mainstay::resilience::{Breaker, Failed, Invalid, NotDone, Policy, Retry};
use mainstay::upstream::{Answer, Callee, Http, HttpError, PolicyExt, Spec};
use serde::Serialize;

use super::due::{Ask, Due};
use crate::domain::{CustomerId, Money};
use crate::processor;

/// Calls that may be under way at a time, and that may wait for their turn. A processor that hangs holds so many of
/// Payment's sockets and nothing else.
const PERMITS: u32 = 16;
const QUEUE: u32 = 16;

/// The card processor, as Payment calls it. A clone shares policy and connections.
#[derive(Debug, Clone)]
pub(in crate::payment) struct Calls {
    policy: Policy,
    client: mainstay::upstream::Client,
}

/// How a question to the processor ended, as far as Payment is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As asked.
    Done,
    /// The card was declined. It will be again.
    Declined,
    /// It is not known, or nothing happened: to be asked again under the same key, after this time at the soonest. Was
    /// the processor asked at all?
    Unknown { after: Option<Duration>, asked: bool },
    /// The processor does not take it, now or later.
    Refused(String),
}

#[derive(Serialize)]
struct Charge<'a> {
    card: &'a CustomerId,
    amount: Money,
}

#[derive(Serialize)]
struct Void<'a> {
    charge: &'a str,
}

impl Calls {
    /// The processor at this address.
    ///
    /// The figures: a charge takes some milliseconds; half a second is a try's end, and three tries fit into two
    /// seconds. Half of the last twenty failed: it is left alone for a second, longer each time.
    pub(in crate::payment) fn new(url: &str, cx: &Context) -> Result<Self, Invalid> {
        let (ms, second) = (Duration::from_millis, Duration::from_secs(1));
        let policy = Policy::outbound(processor::NAME)
            .clock(cx.clock().clone())
            .chance(cx.chance().clone())
            .total(2 * second)
            .attempt(ms(500))
            .retry(Retry::full_jitter(ms(50), ms(400)).max_attempts(3))
            .breaker(
                Breaker::failure_rate(0.5)
                    .over(20)
                    .minimum_calls(5)
                    .open_for(second)
                    .open_growth(2, 5 * second)
                    .probe_limit(second),
            )
            .bulkhead(PERMITS, QUEUE)
            .build()?;
        // Whose order it is is nobody else's business.
        let http = Http::with(url, Spec::default().connections(PERMITS))?.callee(Callee::Stranger);
        let client = policy.client(http);
        Ok(Self { policy, client })
    }

    pub(in crate::payment) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks what is due. The key is the order's, whoever asks and however often.
    pub(super) async fn ask(&self, cx: &Context, due: &Due) -> Result<Ended, TextError> {
        let key = IdempotencyKey::new(format!("order-{}", due.order).as_str())?;
        let request = match &due.ask {
            Ask::Charge { .. } => {
                let charge = Charge { card: &due.customer, amount: due.amount };
                self.client.post("/charges").json(&charge).exact_key(key)
            }
            Ask::Void => {
                let void = Void { charge: key.as_str() };
                self.client.post("/voids").json(&void).exact_key(key.derive("void", 0))
            }
        };
        Ok(ended(request.begins_here().send(cx).await))
    }
}

fn ended(answer: Result<Answer, Failed<HttpError>>) -> Ended {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failed::Refused(refusal)) => {
            return Ended::Unknown { after: refusal.retry_after, asked: refusal.not_done == NotDone::Answer };
        }
        Err(Failed::Upstream(_)) => return Ended::Unknown { after: None, asked: true },
    };
    match answer.status().as_u16() {
        200..=299 => Ended::Done,
        402 => Ended::Declined,
        408 | 425 | 429 | 500.. => Ended::Unknown { after: answer.retry_after(), asked: true },
        status => {
            let said = answer.success().err().map_or(String::new(), |error| format!(": {error}"));
            Ended::Refused(format!("status {status}{said}"))
        }
    }
}
