//! `mainstay up`: until the platform's services are here, the smallest real thing it can run: a bank account
//! whose facts are recorded in a store file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::{Commands, Context, Decider, Event};
use serde::Serialize;

use crate::output::Output;

/// Opens an account, pays in 100 and takes out 20, and prints the balance by replay. Run again, the same
/// commands are acknowledged again and nothing is doubled.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the store file is kept; made when it is not there.
    #[arg(long, default_value = "mainstay-data")]
    data: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    AccountCreated { balance: i64 },
    DepositMade { amount: i64 },
    Withdrawal { amount: i64 },
}

enum Ask {
    Open,
    Deposit { amount: i64 },
    Withdraw { amount: i64 },
}

#[derive(Debug, thiserror::Error)]
enum No {
    #[error("the account is open already")]
    Open,
    #[error("there is no such account")]
    Absent,
    #[error("the account would be overdrawn by {by}")]
    Overdrawn { by: i64 },
    #[error("an amount must be more than 0")]
    Amount,
}

#[derive(Debug, Default)]
struct Account {
    open: bool,
    balance: i64,
}

impl Decider for Account {
    type Command = Ask;
    type Event = AccountEvent;
    type Refusal = No;

    fn decide(&self, ask: &Ask) -> Result<Vec<AccountEvent>, No> {
        match *ask {
            Ask::Open if self.open => Err(No::Open),
            Ask::Open => Ok(vec![AccountEvent::AccountCreated { balance: 0 }]),
            _ if !self.open => Err(No::Absent),
            Ask::Deposit { amount } | Ask::Withdraw { amount } if amount <= 0 => Err(No::Amount),
            Ask::Deposit { amount } => Ok(vec![AccountEvent::DepositMade { amount }]),
            Ask::Withdraw { amount } if amount > self.balance => {
                Err(No::Overdrawn { by: amount - self.balance })
            }
            Ask::Withdraw { amount } => Ok(vec![AccountEvent::Withdrawal { amount }]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match *event {
            AccountEvent::AccountCreated { balance } => *self = Self { open: true, balance },
            AccountEvent::DepositMade { amount } => self.balance += amount,
            AccountEvent::Withdrawal { amount } => self.balance -= amount,
        }
    }
}

#[derive(Serialize)]
struct Shown {
    stream: &'static str,
    balance: i64,
    version: u64,
    store: String,
    read: String,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let folder = &arguments.data;
    std::fs::create_dir_all(folder).with_context(|| {
        format!("{}: the data folder can't be made; nothing was started", folder.display())
    })?;
    let file = folder.join("bank.db");
    let store = Sqlite::open(Options::new(&file))?;
    let bank: Commands<Account, _> = Commands::new(store);
    let cx = Context::system();
    let stream = "account-7";
    // Each command has an id, so that a second `up` on the same folder finds them done.
    bank.command(&cx, stream, Ask::Open).idempotent("open").await?;
    bank.command(&cx, stream, Ask::Deposit { amount: 100 }).idempotent("first deposit").await?;
    bank.command(&cx, stream, Ask::Withdraw { amount: 20 }).idempotent("first withdrawal").await?;
    let (account, version) = bank.state(&cx, stream).await?;
    let program = std::env::args().next().unwrap_or_else(|| "mainstay".into());
    let shown = Shown {
        stream,
        balance: account.balance,
        version: version.0,
        store: file.display().to_string(),
        read: format!(
            "{} events read {} --stream {stream}",
            quoted(&program),
            quoted(&file.to_string_lossy())
        ),
    };
    output.print(&shown, |shown| {
        format!(
            "{}: created with 0, deposit of 100, withdrawal of 20\nbalance {}, by replay of {} events in {}\n\nread them: {}",
            shown.stream, shown.balance, shown.version, shown.store, shown.read
        )
    });
    Ok(())
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c)) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
