//! The idempotent consumer: a payment is delivered three times, and booked once. One that can't be booked waits with those of
//! the same account; the others are booked meanwhile.
//!
//! Run it: `cargo run --example idempotent_consumer`. The chapter: docs/guide/idempotent-consumer.md.

use std::error::Error;
use std::sync::Arc;

use mainstay::envelope::{CloudEvent, ContentHash, MessageIdentity, Producer};
use mainstay::flow::inbox::{DeadLetters, Follower};
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::messaging::memory::Memory as Log;
use mainstay::messaging::{Log as _, Message, Topic};
use mainstay::store::memory::Memory;
use mainstay::store::{Refusal, Row, Store, Tx, ViewName};
use mainstay::{Context, Event};

#[derive(Clone, Debug, PartialEq, Event)]
enum BankEvent {
    PaymentMade { minor: i64 },
}

/// Adds up what was paid into each account.
struct Bookkeeper;

impl<S: Store> Reactor<S> for Bookkeeper {
    fn participant(&self) -> Participant {
        Participant::new("bookkeeper").on("PaymentMade", "bank").ends().into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let BankEvent::PaymentMade { minor } = message.open()?;
        if minor < 0 {
            return Err(Failure::poisoned("a payment of less than nothing"));
        }
        let view = ViewName::new("booked").map_err(Refusal::from)?;
        let before = work.tx().view_get(&view, message.key())?.unwrap_or_default();
        let sum = String::from_utf8_lossy(&before).parse::<i64>().unwrap_or(0) + minor;
        work.tx().view_put(&view, &Row::new(message.key(), sum.to_string()))?;
        Ok(())
    }
}

/// A message as a bank's own relay would publish it.
fn payment(seq: u64, account: &str, minor: i64) -> Result<Message, Box<dyn Error>> {
    let data = format!(r#"{{"minor":{minor}}}"#);
    let id = uuid(seq);
    Ok(Message {
        identity: MessageIdentity {
            producer: Producer::new("bank")?,
            epoch: 1,
            partition: 0,
            seq,
            content: ContentHash::of(data.as_bytes()),
        },
        topic: Topic::new("bank")?,
        key: account.to_owned(),
        event: CloudEvent::new(id, "/bank", "PaymentMade")?,
        data: data.into(),
        mark: seq,
    })
}

fn uuid(seq: u64) -> String {
    format!("018bcfe5-6800-7000-8000-{seq:012x}")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cx, log, store) = (Context::system(), Log::default(), Memory::new());
    let booked = ViewName::new("booked")?;
    let follower = Follower::new(store.clone(), log.clone(), "bank", Arc::new(Bookkeeper))?;

    for _ in 0..3 {
        log.append(&cx, vec![payment(1, "ada", 100)?]).await?;
    }
    let delivered = follower.run_until_caught_up(&cx).await?;
    let sum = store.view_get(&booked, "ada").await?.unwrap_or_default();
    println!("delivered {delivered} times, booked {}", String::from_utf8_lossy(&sum));
    assert_eq!((delivered, &sum[..]), (3, &b"100"[..]));

    // Ada's next payment can't be booked, so the one after it waits. Bob's does not.
    log.append(&cx, vec![payment(2, "ada", -5)?, payment(3, "ada", 7)?, payment(4, "bob", 9)?]).await?;
    follower.run_until_caught_up(&cx).await?;
    let letters = DeadLetters::new(store.clone())?;
    let (parked, _) = letters.list(None, 10).await?;
    println!("{} of {} parked: {}", parked[0].messages, parked[0].key, parked[0].why);
    assert_eq!(store.view_get(&booked, "bob").await?.as_deref(), Some(&b"9"[..]));
    assert_eq!(store.view_get(&booked, "ada").await?.as_deref(), Some(&b"100"[..]));

    // An operator decides that it is never to be booked; what waited behind it is.
    letters.discard(&cx, &parked[0].id).await?;
    follower.run_until_caught_up(&cx).await?;
    let sum = store.view_get(&booked, "ada").await?.unwrap_or_default();
    println!("discarded; booked {}", String::from_utf8_lossy(&sum));
    assert_eq!(&sum[..], b"107");
    Ok(())
}
