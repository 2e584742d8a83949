//! The bank account of the guide, on a real store file: event sourcing from end to end.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use mainstay::sqlite::{Options, Sqlite, Transaction};
use mainstay::store::{Direction, Refusal, Store, StreamName, Version};
use mainstay::{CommandError, Commands, Context, Decider, Event, command::given};

#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    AccountCreated { balance: i64 },
    DepositMade { amount: i64 },
    Withdrawal { amount: i64 },
}

use AccountEvent::{AccountCreated, DepositMade, Withdrawal};

enum Ask {
    Create,
    Deposit { amount: i64 },
    Withdraw { amount: i64 },
}

#[derive(Debug, PartialEq)]
struct Overdrawn {
    by: i64,
}

#[derive(Debug, Default, PartialEq)]
struct Account {
    balance: i64,
}

impl Decider for Account {
    type Command = Ask;
    type Event = AccountEvent;
    type Refusal = Overdrawn;

    fn decide(&self, ask: &Ask) -> Result<Vec<AccountEvent>, Overdrawn> {
        match *ask {
            Ask::Create => Ok(vec![AccountCreated { balance: 0 }]),
            Ask::Deposit { amount } => Ok(vec![DepositMade { amount }]),
            Ask::Withdraw { amount } if amount > self.balance => Err(Overdrawn { by: amount - self.balance }),
            Ask::Withdraw { amount } => Ok(vec![Withdrawal { amount }]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match *event {
            AccountCreated { balance } => self.balance = balance,
            DepositMade { amount } => self.balance += amount,
            Withdrawal { amount } => self.balance -= amount,
        }
    }
}

#[test]
fn given_a_deposit_of_100_when_120_are_asked_for_then_20_are_missing() {
    given::<Account>([DepositMade { amount: 100 }])
        .when(Ask::Withdraw { amount: 120 })
        .refused(Overdrawn { by: 20 });
}

/// Created with 0, a deposit of 100, a withdrawal of 20: 80, by replay, also for whoever opens the file later.
#[tokio::test]
async fn the_account_ends_at_80_by_replay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db");
    let cx = Context::system();
    let store = Sqlite::open(Options::new(&file)).unwrap();
    let bank: Commands<Account, _> = Commands::new(store.clone());
    bank.command(&cx, "account-7", Ask::Create).await.unwrap();
    bank.command(&cx, "account-7", Ask::Deposit { amount: 100 }).await.unwrap();
    bank.command(&cx, "account-7", Ask::Withdraw { amount: 20 }).await.unwrap();
    let refused = bank.command(&cx, "account-7", Ask::Withdraw { amount: 100 }).await.unwrap_err();
    assert!(matches!(refused, CommandError::Refused(Overdrawn { by: 20 })), "{refused:?}");
    drop(bank);
    store.close();

    let later: Commands<Account, _> = Commands::new(Sqlite::open(Options::new(&file).existing()).unwrap());
    assert_eq!(later.state(&cx, "account-7").await.unwrap(), (Account { balance: 80 }, Version(3)));
}

/// The user's own row and the fact commit together, or neither does.
#[tokio::test]
async fn a_row_of_the_users_own_is_in_the_same_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let cx = Context::system();
    let store = Sqlite::open(Options::new(folder.path().join("bank.db"))).unwrap();
    let bank: Commands<Account, _> = Commands::new(store.clone());
    bank.command(&cx, "a", Ask::Create)
        .also(|tx: &Transaction| tx.sql().batch("create table audit(amount integer check (amount < 50))"))
        .await
        .unwrap();
    bank.command(&cx, "a", Ask::Deposit { amount: 10 })
        .also(|tx: &Transaction| tx.sql().execute("insert into audit values (?1)", [10]))
        .await
        .unwrap();
    let refused = bank
        .command(&cx, "a", Ask::Deposit { amount: 99 })
        .also(|tx: &Transaction| tx.sql().execute("insert into audit values (?1)", [99]))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("CHECK constraint failed"), "{refused}");
    let name = StreamName::new("a").unwrap();
    let page = store.read_stream(&name, Version(1), Direction::Forwards, 10).await.unwrap();
    assert_eq!(page.version, Version(2), "no fact without its audit row");
    let rows = store
        .transact(&cx, |tx: &Transaction| {
            let rows = tx.sql().query("select amount from audit", [], |row| row.get::<_, i64>(0));
            Ok(rows.map_err(Refusal::from)?)
        })
        .await
        .map_err(|error: mainstay::store::TransactError<()>| format!("{error:?}"))
        .unwrap();
    assert_eq!(rows.value, [10]);
}
