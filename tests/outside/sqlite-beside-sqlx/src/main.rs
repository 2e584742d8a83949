//! A bank that records facts with Mainstay and keeps its customers with sqlx, in one program.
//!
//! Both libraries link SQLite, and a program can hold one: that this compiles, runs, and shows one version
//! through both is what it is for.

use mainstay::sqlite::{Options, Sqlite, Transaction, rusqlite};
use mainstay::{Commands, Context, Decider, Event};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::types::{Json, Uuid};

/// Older ones can damage a database when its write-ahead log is reset.
const SQLITE_MIN: (i32, &str) = (3_051_003, "3.51.3");

#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    AccountCreated { balance: i64 },
    DepositMade { amount: i64 },
    Withdrawal { amount: i64 },
}

enum Ask {
    Create,
    Deposit { amount: i64 },
    Withdraw { amount: i64 },
}

#[derive(Debug, PartialEq)]
enum No {
    Exists,
    Absent,
    Overdrawn { by: i64 },
}

#[derive(Debug, Default)]
struct Account {
    exists: bool,
    balance: i64,
}

impl Decider for Account {
    type Command = Ask;
    type Event = AccountEvent;
    type Refusal = No;

    fn decide(&self, ask: &Ask) -> Result<Vec<AccountEvent>, No> {
        match *ask {
            Ask::Create if self.exists => Err(No::Exists),
            Ask::Create => Ok(vec![AccountEvent::AccountCreated { balance: 0 }]),
            _ if !self.exists => Err(No::Absent),
            Ask::Deposit { amount } => Ok(vec![AccountEvent::DepositMade { amount }]),
            Ask::Withdraw { amount } if amount > self.balance => {
                Err(No::Overdrawn { by: amount - self.balance })
            }
            Ask::Withdraw { amount } => Ok(vec![AccountEvent::Withdrawal { amount }]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match *event {
            AccountEvent::AccountCreated { balance } => *self = Self { exists: true, balance },
            AccountEvent::DepositMade { amount } => self.balance += amount,
            AccountEvent::Withdrawal { amount } => self.balance -= amount,
        }
    }
}

/// A customer, as sqlx reads one.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Customer {
    id: Uuid,
    contact: Json<Contact>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contact {
    name: String,
    mail: String,
}

/// What an auditor sees of a withdrawal.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Audited {
    customer: Uuid,
    withdrawn: i64,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Removed when it is dropped: on an error and on a failed assertion too.
    let folder = tempfile::tempdir()?;

    let customers = SqlitePool::connect_with(
        SqliteConnectOptions::new().filename(folder.path().join("customers.db")).create_if_missing(true),
    )
    .await?;
    let ada = new_customer(&customers).await?;

    let store_file = folder.path().join("bank.db");
    let store = Sqlite::open(Options::new(&store_file))?;
    bank(&store, ada.id).await?;

    // The audit row, read by sqlx from the store's file while the store has it open.
    let options = SqliteConnectOptions::new().filename(&store_file).read_only(true);
    let audit = SqlitePool::connect_with(options).await?;
    let rows: Vec<Audited> =
        sqlx::query_as("select customer, withdrawn from audit").fetch_all(&audit).await?;
    assert_eq!(rows, [Audited { customer: ada.id, withdrawn: 20 }]);

    let seen_by_sqlx: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&audit).await?;
    println!("SQLite {} through Mainstay, {seen_by_sqlx} through sqlx", rusqlite::version());
    assert_eq!(rusqlite::version(), seen_by_sqlx, "two copies of SQLite in one program");
    assert!(rusqlite::version_number() >= SQLITE_MIN.0, "older than {}", SQLITE_MIN.1);

    audit.close().await;
    customers.close().await;
    store.close();
    folder.close()?;
    Ok(())
}

/// What sqlx is here for: a migration, an insert with a UUID and JSON, and a row read into a struct.
async fn new_customer(pool: &SqlitePool) -> Result<Customer, Failure> {
    sqlx::migrate!().run(pool).await?;
    let contact = Contact { name: "Ada".into(), mail: "ada@example.com".into() };
    let ada = Customer { id: Uuid::from_u128(7), contact: Json(contact) };
    sqlx::query("insert into customers (id, contact) values (?, ?)")
        .bind(ada.id)
        .bind(&ada.contact)
        .execute(pool)
        .await?;
    let read: Customer = sqlx::query_as("select id, contact from customers where contact ->> 'name' = ?")
        .bind("Ada")
        .fetch_one(pool)
        .await?;
    assert_eq!(read, ada);
    Ok(ada)
}

/// What Mainstay is here for: facts, and an audit row in the transaction of the withdrawal.
async fn bank(store: &Sqlite, customer: Uuid) -> Result<(), Failure> {
    let cx = Context::system();
    let bank: Commands<Account, _> = Commands::new(store.clone());
    bank.command(&cx, "account-7", Ask::Create)
        .also(|tx: &Transaction| {
            tx.sql().batch("create table audit (customer blob not null, withdrawn integer not null)")
        })
        .await?;
    bank.command(&cx, "account-7", Ask::Deposit { amount: 100 }).await?;
    bank.command(&cx, "account-7", Ask::Withdraw { amount: 20 })
        .also(move |tx: &Transaction| {
            tx.sql().execute("insert into audit values (?1, ?2)", (customer.as_bytes(), 20))
        })
        .await?;

    // The rules refuse, and so does an audit row that can't be written: then there is no withdrawal either.
    let refused = bank.command(&cx, "account-7", Ask::Withdraw { amount: 500 }).await;
    println!("a withdrawal of 500: {}", refused.expect_err("there are 80"));
    let unaudited = bank
        .command(&cx, "account-7", Ask::Withdraw { amount: 30 })
        .also(|tx: &Transaction| tx.sql().execute("insert into audit values (null, 30)", ()))
        .await;
    println!("a withdrawal of 30 without a customer: {}", unaudited.expect_err("the column is not null"));

    let (account, version) = bank.state(&cx, "account-7").await?;
    println!("balance {}, by replay of {} facts", account.balance, version.0);
    assert_eq!((account.balance, version.0), (80, 3));
    Ok(())
}
