//! Parking: a message that can't be handled waits in the consumer's own store, with what follows it under the same
//! key; others flow on.
//!
//! ```text
//!   log   a1 b1 a2 c1 a3 b2        a1 fails
//!   parked: a1 ◄ a2 ◄ a3           tried again from here, a1 first; then a2, a3: release is in order
//!   handled: b1 c1 b2
//! ```
//! The mark of a parked message is made when it is parked: from then on it is this store's, and a second delivery is
//! swallowed. Its effect and its leaving the parking commit together, so it happens once.

pub(super) mod release;
pub(super) mod rows;
pub(super) mod state;
