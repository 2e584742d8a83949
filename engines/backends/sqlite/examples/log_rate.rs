//! How many messages a second the embedded log takes and gives on this disk.
//!
//! ```text
//! cargo run --release -p mainstay-sqlite --example log_rate [MESSAGES] [BATCH] [FOLDER]
//! ```
//! Appends batches one after another, as a relay does, with a follower that reads along; default 50,000 messages
//! in batches of 250, in a temporary folder. One line each: appended, and until the follower had the last one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mainstay_envelope::{CloudEvent, ContentHash, Context, MessageIdentity, Producer};
use mainstay_messaging::{Log, Message, Offset, Topic};
use mainstay_sqlite::{EmbeddedLog, LogOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let messages: u64 = arguments.next().map_or(Ok(50_000), |text| text.parse())?;
    let batch: u64 = arguments.next().map_or(Ok(250), |text| text.parse())?;
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("mainstay-log-rate-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&folder.join("log.db"), messages, batch.clamp(1, 1_000)).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}

async fn measure(path: &std::path::Path, messages: u64, batch: u64) -> Result<(), Failure> {
    let (cx, topic) = (Context::system(), Topic::new("order")?);
    let log = EmbeddedLog::open(LogOptions::new(path))?;
    let follower = EmbeddedLog::follow(LogOptions::new(path))?;
    let begun = Instant::now();
    let reading = tokio::spawn(read(follower, topic.clone(), messages));
    for first in (0..messages).step_by(usize::try_from(batch)?) {
        let numbers = first..(first + batch).min(messages);
        let batch = numbers.map(|number| message(&topic, number)).collect::<Result<_, Failure>>()?;
        log.append(&cx, batch).await?;
    }
    say("appended", messages, begun.elapsed());
    reading.await??;
    say("followed", messages, begun.elapsed());
    Ok(())
}

fn message(topic: &Topic, number: u64) -> Result<Message, Failure> {
    let data = format!(
        "{{\"order\":{number},\"lines\":[{{\"sku\":\"apple\",\"quantity\":2}}],\"pad\":\"{:0150}\"}}",
        0
    );
    Ok(Message {
        identity: MessageIdentity {
            producer: Producer::new("order")?,
            epoch: 1,
            partition: 0,
            seq: number + 1,
            content: ContentHash::of(data.as_bytes()),
        },
        topic: topic.clone(),
        key: format!("order-{}", number % 1_000),
        event: CloudEvent::new(format!("order-{number}"), "/order", "OrderCreated")?
            .with_data_content_type("application/json")?,
        data: data.into(),
        mark: number + 1,
    })
}

async fn read(log: EmbeddedLog, topic: Topic, messages: u64) -> Result<(), Failure> {
    let (mut after, mut seen) = (Offset::START, 0);
    while seen < messages {
        let page = log.read(&topic, 0, after, 500).await?;
        if page.messages.is_empty() {
            log.wait_past(&topic, 0, after, Duration::from_secs(5)).await;
        }
        (seen, after) = (seen + page.messages.len() as u64, page.next);
    }
    Ok(())
}

fn say(what: &str, messages: u64, took: Duration) {
    println!(
        "{what}: {messages} messages in {took:.2?}, {:.0} a second",
        messages as f64 / took.as_secs_f64()
    );
}
