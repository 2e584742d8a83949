//! A call that is a function, as a service that the rules can be worn by.

use std::future::Future;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::call::{Describe, Facts};

/// The facts of a call that is a function.
#[derive(Clone)]
pub(super) struct Given(pub(super) Facts);

/// The function's request: the facts of the try, put in before it goes out.
pub(super) type Try = Option<Facts>;

impl Describe<Try> for Given {
    fn facts(&self, _: &Try, _: mainstay_envelope::Monotonic) -> Facts {
        self.0.clone()
    }

    fn repeat(&self, _: &Try) -> Option<Try> {
        Some(None)
    }

    fn send(&self, request: &mut Try, facts: &Facts) {
        *request = Some(facts.clone());
    }
}

#[derive(Clone)]
pub(super) struct Function<F>(pub(super) F);

impl<T, E, F, Fut> Service<Try> for Function<F>
where
    F: Fn(Facts) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, facts: Try) -> Fut {
        // Always there: `send` puts them in.
        (self.0)(facts.unwrap_or(Facts::unknown(mainstay_envelope::Monotonic::ORIGIN)))
    }
}
