//! The transactional outbox: a note is recorded together with the message that tells of it, and a relay publishes what is
//! recorded. The relay dies between publishing and marking; the message goes out twice, and takes effect once.
//!
//! Run it: `cargo run --example outbox`. The chapter: docs/guide/outbox.md.

use std::error::Error;
use std::sync::Arc;

use mainstay::flow::inbox::Follower;
use mainstay::flow::outbox::Relay;
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::{Entity, Publisher, Work, transact};
use mainstay::messaging::memory::Memory as Log;
use mainstay::store::memory::Memory;
use mainstay::store::{Abort, Refusal, Row, Store, StreamName, Tx, ViewName};
use mainstay::{Context, Decider, Event};

#[derive(Clone, Debug, PartialEq, Event)]
enum NoteEvent {
    NoteWritten { text: String },
}

#[derive(Default)]
struct Note;

impl Decider for Note {
    type Command = String;
    type Event = NoteEvent;
    type Refusal = std::convert::Infallible;

    fn decide(&self, text: &String) -> Result<Vec<NoteEvent>, Self::Refusal> {
        Ok(vec![NoteEvent::NoteWritten { text: text.clone() }])
    }

    fn evolve(&mut self, _: &NoteEvent) {}
}

/// Counts the notes of the writer, in its own store.
struct Counter;

impl<S: Store> Reactor<S> for Counter {
    fn participant(&self) -> Participant {
        Participant::new("counter").on("NoteWritten", "writer").ends().into()
    }

    fn react(&self, work: &Work<'_, S>, _: &Incoming<'_>) -> Result<(), Failure> {
        let view = ViewName::new("count").map_err(Refusal::from)?;
        let count = work.tx().view_get(&view, "notes")?.map_or(0, |bytes| bytes.len());
        work.tx().view_put(&view, &Row::new("notes", vec![b'|'; count + 1]))?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cx = Context::system();
    let (writer, counter, log) = (Memory::new(), Memory::new(), Log::default());
    let publisher = Publisher::new(&Participant::new("writer").announces("NoteWritten"))?;

    // One transaction: the event, and the message that tells of it. Or neither.
    transact(&writer, &cx, &publisher, |work| {
        let stream = StreamName::new("note-1").map_err(Refusal::from)?;
        let Ok(_) = work.act(&Entity::<Note>::replayed(), &stream, "note-1", &"hello".to_owned())?;
        Ok::<_, Abort<std::convert::Infallible>>(())
    })
    .await?;
    println!("recorded: {} message waits in the outbox", writer.outbox_status().await?.unsent);

    // A relay publishes it, and dies before it has marked it.
    let relay = Relay::new(writer.clone(), log.clone());
    let mut running = relay.begin(&cx).await?;
    assert!(relay.step(&cx, &mut running).await?);
    drop(running);
    println!("published; the relay died: {} still counts as waiting", writer.outbox_status().await?.unsent);

    // The next one can't know, and publishes it again.
    let again = Relay::new(writer.clone(), log.clone()).run_until_empty(&cx).await?;
    println!("published again: {again}; now {} waits", writer.outbox_status().await?.unsent);

    let follower = Follower::new(counter.clone(), log, "writer", Arc::new(Counter))?;
    let delivered = follower.run_until_caught_up(&cx).await?;
    let notes = counter.view_get(&ViewName::new("count")?, "notes").await?.unwrap_or_default().len();
    println!("delivered {delivered} times, counted {notes}");
    assert_eq!((delivered, notes), (2, 1));
    Ok(())
}
