//! The bank that all tests use.

use std::time::Duration;

use mainstay_envelope::{Context, IdempotencyKey};
use mainstay_event_store::{
    Direction, EventType, IndexEntry, IndexValue, NewEvent, Payload, Store, StreamName, Version,
};
use mainstay_flow::projection::{Failure, Observed, View};
use mainstay_flow::{Commands, Decider, Event, Projection};
use mainstay_resilience::retry::{Checked, Spec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Event)]
#[event(crate = "mainstay_flow")]
pub(crate) enum AccountEvent {
    AccountCreated {
        #[event(tag)]
        owner: String,
    },
    DepositMade {
        amount: i64,
    },
    WithdrawalMade {
        amount: i64,
    },
}
pub(crate) use AccountEvent::{AccountCreated, DepositMade, WithdrawalMade};

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Create {
        owner: String,
    },
    /// Creates it unless it is there.
    Ensure {
        owner: String,
    },
    Deposit {
        amount: i64,
    },
    Withdraw {
        amount: i64,
    },
    /// Decides so many deposits of 1 at once.
    Many {
        deposits: usize,
    },
}
pub(crate) use Ask::{Create, Deposit, Ensure, Many, Withdraw};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum No {
    Overdrawn { by: i64 },
    Exists,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) owner: Option<String>,
    pub(crate) balance: i64,
    pub(crate) events: u64,
}

impl Decider for Account {
    type Command = Ask;
    type Event = AccountEvent;
    type Refusal = No;

    fn decide(&self, ask: &Ask) -> Result<Vec<AccountEvent>, No> {
        match ask {
            Create { .. } if self.owner.is_some() => Err(No::Exists),
            Ensure { .. } if self.owner.is_some() => Ok(vec![]),
            Create { owner } | Ensure { owner } => Ok(vec![AccountCreated { owner: owner.clone() }]),
            Deposit { amount: 0 } => Ok(vec![]),
            Deposit { amount } => Ok(vec![DepositMade { amount: *amount }]),
            Withdraw { amount } if *amount > self.balance => Err(No::Overdrawn { by: amount - self.balance }),
            Withdraw { amount } => Ok(vec![WithdrawalMade { amount: *amount }]),
            Many { deposits } => Ok(vec![DepositMade { amount: 1 }; *deposits]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        self.events += 1;
        match event {
            AccountCreated { owner } => self.owner = Some(owner.clone()),
            DepositMade { amount } => self.balance += amount,
            WithdrawalMade { amount } => self.balance -= amount,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) amount: i64,
    /// Counts the events applied: an event applied twice, or not at all, shows.
    pub(crate) events: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Balances;

impl Projection for Balances {
    type Event = AccountEvent;
    type Row = Balance;
    const NAME: &'static str = "balances";

    fn apply(&self, view: &View<'_, Balance>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        apply_balance(view, event, 1)
    }

    fn indices(row: &Balance) -> Vec<IndexEntry> {
        vec![IndexEntry { index: "amount", value: IndexValue::Integer(row.amount) }]
    }
}

/// The same rows in another currency: another version of the projection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BalancesInCents;

impl Projection for BalancesInCents {
    type Event = AccountEvent;
    type Row = Balance;
    const NAME: &'static str = Balances::NAME;
    const VERSION: u32 = 2;

    fn apply(&self, view: &View<'_, Balance>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        apply_balance(view, event, 100)
    }
}

fn apply_balance(
    view: &View<'_, Balance>,
    event: &Observed<'_, AccountEvent>,
    factor: i64,
) -> Result<(), Failure> {
    view.update(event.stream().as_str(), |balance| {
        balance.events += 1;
        match event.event() {
            AccountCreated { .. } => {}
            DepositMade { amount } => balance.amount += amount * factor,
            WithdrawalMade { amount } => balance.amount -= amount * factor,
        }
    })
}

pub(crate) fn cx() -> Context {
    Context::system()
}

/// The same call, too late.
pub(crate) fn over(cx: &Context) -> Context {
    cx.with_deadline(Duration::ZERO)
}

/// A call with an idempotency key; each one is a span of its own.
pub(crate) fn keyed(key: &str) -> Context {
    let cx = cx();
    cx.with_envelope(cx.envelope().clone().with_idempotency_key(IdempotencyKey::new(key).unwrap()))
}

/// Waits of a millisecond at most, so that tests of many tries are quick.
pub(crate) fn quick(attempts: u32) -> Checked {
    let spec = Spec::full_jitter(Duration::from_micros(10), Duration::from_millis(1));
    spec.max_attempts(attempts).check().unwrap()
}

pub(crate) fn bank<S: Store>(store: &S) -> Commands<Account, S> {
    Commands::new(store.clone())
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// An event as no derived code writes it.
pub(crate) fn raw(event_type: &str, schema: u32, json: &str) -> NewEvent {
    let payload = Payload::plain(json.as_bytes().to_vec());
    NewEvent { schema, ..NewEvent::new(cx().new_id(), EventType::new(event_type).unwrap(), payload) }
}

/// How many events a stream has.
pub(crate) async fn length(store: &impl Store, name: &str) -> usize {
    store.read_stream(&stream(name), Version(1), Direction::Forwards, 1_000).await.unwrap().events.len()
}
