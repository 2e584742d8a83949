//! A bank account as facts: event sourcing and CQRS in one file.
//!
//! `cargo run --example bank`: an account is created with 0, takes a deposit of 100 and a withdrawal of 20, and
//! shows 80, once by replaying its facts and once from a view made of them. The withdrawal writes the
//! user's own audit row in the same transaction.

use mainstay::projection::{Consistency, Failure, Observed, Projection, Projector, View};
use mainstay::sqlite::{Options, Sqlite, Transaction};
use mainstay::{Commands, Context, Decider, Event};
use serde::{Deserialize, Serialize};

/// What happened to an account. Names are for ever: this is what is stored.
#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    AccountCreated { balance: i64 },
    DepositMade { amount: i64 },
    Withdrawal { amount: i64 },
}

/// What is asked for.
enum Ask {
    Create,
    Deposit { amount: i64 },
    Withdraw { amount: i64 },
}

/// Why the rules say no.
#[derive(Debug, PartialEq)]
enum No {
    Exists,
    Absent,
    Overdrawn { by: i64 },
}

/// The state of one account, folded from its facts.
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

/// The query side: one row an account, as a screen wants it.
struct Balances;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shown {
    balance: i64,
    movements: u32,
}

impl Projection for Balances {
    type Event = AccountEvent;
    type Row = Shown;
    const NAME: &'static str = "balances";

    fn apply(&self, view: &View<'_, Shown>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        let change = match *event.event() {
            AccountEvent::AccountCreated { balance } => balance,
            AccountEvent::DepositMade { amount } => amount,
            AccountEvent::Withdrawal { amount } => -amount,
        };
        view.update(event.stream().as_str(), |shown| {
            shown.balance += change;
            shown.movements += 1;
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The rules, tested without a database.
    use mainstay::command::given;
    let opened = || [AccountEvent::AccountCreated { balance: 0 }, AccountEvent::DepositMade { amount: 100 }];
    given::<Account>(opened())
        .when(Ask::Withdraw { amount: 20 })
        .then([AccountEvent::Withdrawal { amount: 20 }]);
    given::<Account>(opened()).when(Ask::Withdraw { amount: 120 }).refused(No::Overdrawn { by: 20 });

    let folder = std::env::temp_dir().join(format!("mainstay-bank-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = Sqlite::open(Options::new(folder.join("bank.db")))?;
    let cx = Context::system();

    // The command side.
    let bank: Commands<Account, _> = Commands::new(store.clone());
    bank.command(&cx, "account-7", Ask::Create)
        .also(|tx: &Transaction| tx.sql().batch("create table audit(withdrawn integer)"))
        .await?;
    bank.command(&cx, "account-7", Ask::Deposit { amount: 100 }).await?;
    let done = bank
        .command(&cx, "account-7", Ask::Withdraw { amount: 20 })
        .also(|tx: &Transaction| tx.sql().execute("insert into audit values (?1)", [20])) // same transaction
        .await?;
    let refused = bank.command(&cx, "account-7", Ask::Withdraw { amount: 500 }).await;
    println!("a withdrawal of 500: {}", refused.err().map_or_else(String::new, |error| error.to_string()));

    // The query side, fed by the facts; a receipt lets the caller read its own writes.
    let projector = Projector::new(store.clone(), store.clone(), Balances)?;
    let balances = projector.reader();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let feeding = tokio::spawn({
        let cx = cx.clone();
        async move { projector.run(&cx, async { drop(stopped.await) }).await }
    });
    let shown = balances.get(&cx, "account-7", Consistency::ReadYourWrites(&done.receipt)).await?;
    let (replayed, version) = bank.state(&cx, "account-7").await?;
    println!("balance {} by replay of {} facts, {shown:?} from the view", replayed.balance, version.0);
    assert_eq!(replayed.balance, 80);
    assert_eq!(shown, Some(Shown { balance: 80, movements: 3 }));

    drop(stop);
    feeding.await??;
    drop(store);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
