//! How facts move: commands become events, events become rows, and what one service decided reaches the others.
//!
//! ```text
//! command ──► Decider::decide ──► events ──► store ──► feed ──► Projection::apply ──► rows ──► query
//!   (state: Decider::evolve over the stream)  │          (checkpoint in the rows' transaction)
//!  outbox rows, in the events' transaction ───┴──► Relay ──► log ──► another service's Follower ──► Reactor::react
//!                                         (mark, effect, events, outbox rows, checkpoint in one transaction)
//! ```
//!
//! # A bank account
//!
//! The state is what its events say: created with 0, 100 deposited, 20 withdrawn, so 80.
//!
//! ```
//! use mainstay_envelope::Context;
//! use mainstay_event_store::memory::Memory;
//! use mainstay_flow::command::given;
//! use mainstay_flow::projection::Consistency::ReadYourWrites;
//! use mainstay_flow::projection::{Failure, Observed, Projector, View};
//! use mainstay_flow::{Commands, Decider, Event, Projection};
//!
//! #[derive(Clone, Debug, PartialEq, Event)]
//! #[event(crate = "mainstay_flow")]           // not needed by those who use the facade `mainstay`
//! enum AccountEvent {
//!     AccountCreated { #[event(tag)] owner: String },
//!     DepositMade { amount: u64 },
//!     Withdrawal { amount: u64 },
//! }
//! use AccountEvent::{AccountCreated, DepositMade, Withdrawal};
//!
//! enum Ask { Create { owner: String }, Deposit { amount: u64 }, Withdraw { amount: u64 } }
//! use Ask::{Create, Deposit, Withdraw};
//!
//! #[derive(Debug, PartialEq)]
//! struct Overdrawn { by: u64 }
//!
//! #[derive(Default)]
//! struct Account { balance: u64 }
//!
//! impl Decider for Account {
//!     type Command = Ask;
//!     type Event = AccountEvent;
//!     type Refusal = Overdrawn;
//!
//!     fn decide(&self, ask: &Ask) -> Result<Vec<AccountEvent>, Overdrawn> {
//!         match ask {
//!             Create { owner } => Ok(vec![AccountCreated { owner: owner.clone() }]),
//!             Deposit { amount } => Ok(vec![DepositMade { amount: *amount }]),
//!             Withdraw { amount } if *amount > self.balance => Err(Overdrawn { by: amount - self.balance }),
//!             Withdraw { amount } => Ok(vec![Withdrawal { amount: *amount }]),
//!         }
//!     }
//!
//!     fn evolve(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountCreated { .. } => {}
//!             DepositMade { amount } => self.balance += amount,
//!             Withdrawal { amount } => self.balance -= amount,
//!         }
//!     }
//! }
//!
//! // Its rules need no store to be tested.
//! given::<Account>([DepositMade { amount: 100 }]).when(Withdraw { amount: 120 }).refused(Overdrawn { by: 20 });
//!
//! struct Balances;                                                         // what customers are shown
//! impl Projection for Balances {
//!     type Event = AccountEvent;
//!     type Row = u64;
//!     const NAME: &'static str = "balances";
//!
//!     fn apply(&self, view: &View<'_, u64>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
//!         view.update(event.stream().as_str(), |balance| match event.event() {
//!             AccountCreated { .. } => {}
//!             DepositMade { amount } => *balance += amount,
//!             Withdrawal { amount } => *balance -= amount,
//!         })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (cx, store) = (Context::system(), Memory::new());
//! let bank = Commands::<Account, _>::new(store.clone());
//!
//! bank.command(&cx, "account-7", Create { owner: "Ada".into() }).await?;
//! bank.command(&cx, "account-7", Deposit { amount: 100 }).await?;
//! let done = bank.command(&cx, "account-7", Withdraw { amount: 20 }).await?;
//!
//! let (account, version) = bank.state(&cx, "account-7").await?;
//! assert_eq!((account.balance, version.0), (80, 3));                     // by replay
//!
//! let projector = Projector::new(store.clone(), store, Balances)?;
//! projector.run_until_caught_up(&cx).await?;                              // a service: projector.run(&cx, stop)
//! let shown = projector.reader().get(&cx, "account-7", ReadYourWrites(&done.receipt)).await?;
//! assert_eq!(shown, Some(80));                                            // by the read model
//! # Ok(())
//! # }
//! ```
//!
//! # Nouns
//! - [`Event`]: a family of facts, with the names and schemas they are stored under; derived.
//! - [`Decider`]: the rules of one kind of thing, pure. [`Commands`]: the way to the things of one decider.
//! - [`Projection`]: rows made from events. [`Projector`](projection::Projector) follows the feed,
//!   [`Reader`](projection::Reader) answers. A receipt is what a command gives, and what a reader waits for.
//! - [`Work`](unit_of_work::Work): one transaction of a service, for request handlers and reactors alike.
//! - [`Relay`](outbox::Relay): publishes what was decided. [`Follower`](inbox::Follower): handles what others
//!   published, once. [`DeadLetters`](inbox::DeadLetters): what could not be handled, for operators.
//! - `StoreJournal` (feature `journal`): where a write-back cache keeps what it has acknowledged.
//! - [`Reactor`](saga::Reactor): a participant of a saga by choreography; [`inbox`] has an example of two.
//!
//! # When it fails
//!
//! Every error says whether something was written. A conflict is decided again; a lost answer is resolved by
//! handing in the same ids; projections and followers go on at their checkpoints. What needs a person stops (of
//! messages: its key only) and says where.
//!
//! # Floor
//!
//! `engines`: it knows `models` (the contracts of store and log), `rules` (retry) and `terms`, and no backend. To add
//! a way in which facts move: a folder beside [`command`] and [`projection`], over the contracts only.

pub mod command;
pub mod correlation;
mod event;
pub mod inbox;
#[cfg(feature = "journal")]
pub mod journal;
pub mod outbox;
mod pace;
mod participant;
mod plain;
pub mod projection;
pub mod saga;
pub mod timeline;
pub mod unit_of_work;

pub use command::{CommandError, Commands, Decider, Done};
pub use event::{Event, Undecodable, Unstorable};
pub use mainstay_derive::Event;
pub use projection::Projection;

/// What derived code uses; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use mainstay_event_store::{BadName, Tag};
    pub use {serde, serde_json};

    pub use crate::event::{Undecodable, Upcast, decode, tag};
}
