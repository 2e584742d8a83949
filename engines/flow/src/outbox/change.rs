//! A transaction of the relay's own: marks, removals, epochs.

use std::convert::Infallible;

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, AppendError, Refusal, Store, TransactError};

use super::error::RelayError;

pub(super) async fn change<S: Store, T: Send + 'static>(
    store: &S,
    cx: &Context,
    change: impl Fn(&S::Tx) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, RelayError> {
    let done = store.transact(cx, move |tx| change(tx).map_err(Abort::<Infallible>::Refused)).await;
    done.map(|done| done.value).map_err(|error| match error {
        TransactError::User(never) => match never {},
        TransactError::Store(AppendError::Refused(refusal)) => RelayError::Mark(refusal),
        // Whoever asked looks again, or does the same again: each change of the relay's allows it.
        TransactError::Store(AppendError::Unknown { why }) => RelayError::Mark(Refusal::Busy { why }),
    })
}
