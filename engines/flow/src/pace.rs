//! Waiting between tries: the one place where this crate sleeps.

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_resilience::retry::{Checked, Decision, Reason, State, Unbudgeted};
use mainstay_resilience::{Outcome, Safety};

/// The retries of one piece of work, bound by its settings and by the deadline of its context.
///
/// Without a budget of tokens: what is retried here is our own loop over our own store, in which a refused
/// try has written nothing. Attempts, backoff and deadline bound it.
pub(crate) struct Pace {
    state: State<Unbudgeted>,
}

impl Pace {
    pub(crate) fn new(cx: &Context, settings: Checked) -> Self {
        let now = cx.now();
        let deadline = cx.envelope().deadline();
        Self { state: State::new(settings, now, deadline, Unbudgeted) }
    }

    /// After a failed try: waits as long as the rule says, or says why there is no further try. Every try
    /// that is repeated here is harmless: it wrote nothing, or it is known by its ids.
    pub(crate) async fn again(&mut self, cx: &Context) -> Result<(), Reason> {
        match self.state.after(cx.now(), Outcome::TRANSIENT, Safety::Safe, cx.next_u64()) {
            Decision::RetryAfter(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Decision::GiveUp(reason) => Err(reason),
        }
    }

    /// Tries that failed.
    pub(crate) fn failures(&self) -> u32 {
        self.state.failures()
    }
}

/// Is the caller's deadline over?
pub(crate) fn is_over(cx: &Context) -> bool {
    cx.remaining() == Some(Duration::ZERO)
}
