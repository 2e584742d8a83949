//! A shop with its own transaction, which events, messages and inbox marks join.

use std::time::Duration;

use mainstay::Context;
use mainstay::envelope::{ContentHash, MessageIdentity, Producer};
use mainstay::postgres::sequencer::{Sequencer, Spec};
use mainstay::postgres::{JoinError, Joined, Options, Postgres, Schema};
use mainstay::store::{
    Act, Condition, ConsumerName, EventType, Expected, Mark, NewEvent, OutboxRow, Payload, Position, Query,
    Refusal, Store, StreamName, Tag, Topic, Version,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::types::{Json, Uuid};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Order {
    id: Uuid,
    customer: Json<Customer>,
    amount: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Customer {
    name: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("MAINSTAY_TEST_POSTGRES").map_err(|_| {
        "MAINSTAY_TEST_POSTGRES is not set: start a server with `cargo xtask engines up postgres`, and set it to the \
         leader's URL"
    })?;
    let cx = Context::system();
    // Two schemas of this run's own: the user's tables, and Mainstay's beside them.
    let run = std::process::id();
    let (mine, facts) = (format!("outside_{run}"), Schema::new(format!("outside_{run}_facts"))?);
    let connect: PgConnectOptions = url.parse()?;
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(connect.clone().options([("search_path", mine.as_str())]))
        .await?;
    let ended = shop(&cx, &pool, &connect, &mine, &facts).await;
    for schema in [&mine, facts.name()] {
        let drop = sqlx::AssertSqlSafe(format!("drop schema if exists \"{schema}\" cascade"));
        sqlx::raw_sql(drop).execute(&pool).await?;
    }
    ended
}

async fn shop(
    cx: &Context,
    pool: &PgPool,
    connect: &PgConnectOptions,
    mine: &str,
    facts: &Schema,
) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create schema \"{mine}\""))).execute(pool).await?;
    sqlx::migrate!().run(pool).await?;
    facts.install(&mut *pool.acquire().await?, cx).await?;

    // An order, its event, its message: one transaction, the shop's own.
    let order = Order { id: cx.new_id(), customer: Json(Customer { name: "Ann".into() }), amount: 100 };
    let stream = StreamName::new(format!("order-{}", order.id))?;
    let mut tx = pool.begin().await?;
    insert(&mut tx, &order).await?;
    let mut joined = Joined::of(facts, &mut tx, cx).await?;
    let placed = joined.append(act(cx, &stream, Expected::Empty, "OrderPlaced")?).await?;
    joined.outbox(&[message("OrderPlaced")?]).await?;
    tx.commit().await?;

    // A message is met twice, its effect happens once.
    let (consumer, payment) = (ConsumerName::new("payments")?, payment(1)?);
    for expected in [Mark::First, Mark::Repeated] {
        let mut tx = pool.begin().await?;
        let mut joined = Joined::of(facts, &mut tx, cx).await?;
        let mark = joined.inbox_mark(&consumer, &payment).await?;
        assert_eq!(mark, expected);
        if mark == Mark::First {
            joined.append(act(cx, &stream, Expected::Exactly(Version(1)), "OrderPaid")?).await?;
        }
        tx.commit().await?;
    }

    // A conflict is told without an error of the server: the transaction goes on, and records what became of it.
    let late = cx.new_id();
    let mut tx = pool.begin().await?;
    let mut joined = Joined::of(facts, &mut tx, cx).await?;
    let refused = joined.append(act(cx, &stream, Expected::Exactly(Version(1)), "OrderCancelled")?).await;
    assert!(
        matches!(refused, Err(JoinError::Refused(Refusal::Conflict { actual: Version(2), .. }))),
        "{refused:?}"
    );
    let once = Condition { query: Query::tags([Tag::new("order")?]), after: Position::START };
    let refused = joined.require(&once).await;
    assert!(matches!(refused, Err(JoinError::Refused(Refusal::ConditionFailed { .. }))), "{refused:?}");
    sqlx::query("insert into rejected(id, why) values ($1, $2)")
        .bind(late)
        .bind("paid already")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;

    // What is rolled back was never there: order, event, message, mark.
    let mut tx = pool.begin().await?;
    insert(&mut tx, &Order { id: cx.new_id(), customer: order.customer.clone(), amount: 7 }).await?;
    let mut joined = Joined::of(facts, &mut tx, cx).await?;
    joined.append(act(cx, &stream, Expected::Any, "NeverHappened")?).await?;
    joined.outbox(&[message("NeverHappened")?]).await?;
    assert_eq!(joined.inbox_mark(&consumer, &self::payment(2)?).await?, Mark::First);
    tx.rollback().await?;

    // Above READ COMMITTED nothing is joined.
    let mut tx = pool.begin_with("begin isolation level serializable").await?;
    let refused = Joined::of(facts, &mut tx, cx).await.err();
    assert!(matches!(refused, Some(JoinError::Isolation { .. })), "{refused:?}");
    tx.rollback().await?;

    let orders: Vec<Order> =
        sqlx::query_as("select id, customer, amount from orders").fetch_all(pool).await?;
    assert_eq!(orders, [order]);
    let rejected: Vec<Uuid> = sqlx::query_scalar("select id from rejected").fetch_all(pool).await?;
    assert_eq!(rejected, [late]);

    // Somewhere a sequencer runs; whoever follows the feed sees what was committed, in order.
    let sequencer = Sequencer::start(connect.clone(), facts, cx, Spec::default())?;
    let reader = Postgres::open(cx, Options::with(connect.clone()).schema(facts.clone()).read_only()).await?;
    let receipt = reader.settle(&placed.receipt, Duration::from_secs(20)).await?.ok_or("no position came")?;
    assert_eq!(receipt.mark(), 1);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let after = Position(seen.len() as u64);
        let page = reader.read(&Query::all(), after, 10).await?;
        seen.extend(page.events.into_iter().map(|event| event.event_type.as_str().to_owned()));
        reader.wait_past(Position(seen.len() as u64), Duration::from_millis(50)).await;
    }
    assert_eq!(seen, ["OrderPlaced", "OrderPaid"]);
    let messages = reader.outbox_after(0, 10).await?;
    assert_eq!(messages.iter().map(|row| row.row.payload.as_slice()).collect::<Vec<_>>(), [b"OrderPlaced"]);
    sequencer.stop().await;
    reader.close().await;
    println!("1 order, 2 events, 1 message; 1 rejected, 1 rolled back");
    Ok(())
}

async fn insert(conn: &mut sqlx::PgConnection, order: &Order) -> Result<()> {
    sqlx::query("insert into orders(id, customer, amount) values ($1, $2, $3)")
        .bind(order.id)
        .bind(&order.customer)
        .bind(order.amount)
        .execute(conn)
        .await?;
    Ok(())
}

fn act(cx: &Context, stream: &StreamName, expected: Expected, kind: &str) -> Result<Act> {
    let event =
        NewEvent::new(cx.new_id(), EventType::new(kind)?, Payload::plain(*b"{}")).tagged(Tag::new("order")?);
    Ok(Act::append(stream.clone(), expected, vec![event]))
}

fn message(payload: &str) -> Result<OutboxRow> {
    Ok(OutboxRow {
        topic: Topic::new("orders")?,
        key: "order".into(),
        headers: vec![],
        payload: payload.as_bytes().to_vec(),
    })
}

/// A message of another service.
fn payment(seq: u64) -> Result<MessageIdentity> {
    Ok(MessageIdentity {
        producer: Producer::new("payment")?,
        epoch: 1,
        partition: 0,
        seq,
        content: ContentHash::of(b"paid"),
    })
}
