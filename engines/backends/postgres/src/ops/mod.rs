//! What can be done inside a transaction, each as one function on a connection. Used by closures
//! ([`crate::Transaction`]) and by whoever brings a transaction of their own ([`crate::Joined`]).
//!
//! Each ends in one of three ways: done, refused (the transaction can go on, nothing of this call was written), or an
//! error of the server (the transaction is gone).

pub(crate) mod append;
pub(crate) mod checkpoint;
pub(crate) mod inbox;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod sent;
pub(crate) mod views;

use mainstay_event_store::{Refusal, StoreId};

use crate::connect::Way;
use crate::schema::Schema;

/// Done, or refused; or the server failed.
pub(crate) type Ended<T> = sqlx::Result<Result<T, Refusal>>;

/// Which store, and how its connection is used.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) schema: Schema,
    pub(crate) store: StoreId,
    pub(crate) way: Way,
}

impl Place {
    pub(crate) fn persistent(&self) -> bool {
        self.way.persistent()
    }
}
