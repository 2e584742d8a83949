//! `mainstay probe durability`.

use std::fmt::Write;

use anyhow::Result;
use mainstay::postgres::durability::{Replica, Require, Settings, Window};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::file;
use super::found::Found;
use crate::output::Output;
use crate::place::{Given, Place, Server, explained};

/// Says how much of what a store has acknowledged is lost when the server's processes are killed, when the power fails, and
/// when its machine is lost and a replica takes over. Of a server it is asked for the settings that this user has in this
/// database, and for its replicas; nothing is created, and no store has to be there. How far replicas are behind is shown
/// only to members of pg_monitor.
///
/// What a disk, or the machine under a virtual one, says it has written and has not, can't be seen from here.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The store: a file, postgres://user:password@host:port/database[?sslmode=…], or env:NAME.
    #[arg(value_name = "STORE")]
    store: Given,
    /// Fail unless nothing is lost then, nor by what is less: crash, then power, then failover.
    #[arg(long, value_name = "WHAT")]
    require: Option<Wanted>,
}

/// What is to be survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// The processes are killed.
    Crash,
    /// The power fails.
    Power,
    /// The machine is lost.
    Failover,
}

impl Wanted {
    fn require(self) -> Require {
        match self {
            Self::Crash => Require::Crash,
            Self::Power => Require::Power,
            Self::Failover => Require::Failover,
        }
    }
}

/// It is less than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("an acknowledgement does not survive {failure} (lost: {lost}): {why}")]
struct Short {
    failure: Require,
    lost: String,
    why: String,
}

#[derive(Serialize)]
struct Told<'a> {
    store: String,
    crash: Lost<'a>,
    power: Lost<'a>,
    failover: Lost<'a>,
    settings: &'a Map<String, Value>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Lost<'a> {
    /// None: without a bound.
    seconds: Option<f64>,
    loss: String,
    why: &'a str,
}

impl<'a> Lost<'a> {
    fn of(window: &'a Window) -> Self {
        Self { seconds: window.loss.seconds(), loss: window.loss.to_string(), why: &window.why }
    }
}

pub(super) async fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    let found = match arguments.store.place()? {
        Place::Server(server) => ask(&server).await?,
        Place::File(path) => file::look(&path)?,
    };
    let verdict = &found.verdict;
    let told = Told {
        store: format!("{:?}", arguments.store),
        crash: Lost::of(&verdict.crash),
        power: Lost::of(&verdict.power),
        failover: Lost::of(&verdict.failover),
        settings: &found.settings,
        notes: &verdict.notes,
    };
    let printed = output.print(&told, Told::text);
    let short = arguments.require.and_then(|wanted| verdict.short_of(wanted.require()));
    // First what was found: it fails also when nobody read it.
    match short {
        Some((failure, window)) => {
            Err(Short { failure, lost: window.loss.to_string(), why: window.why.clone() }.into())
        }
        None => Ok(printed?),
    }
}

async fn ask(server: &Server) -> Result<Found> {
    let settings = Settings::ask(&server.options()).await.map_err(explained)?;
    let on = |on: bool| Value::from(if on { "on" } else { "off" });
    let replica = |replica: &Replica| {
        json!({
            "name": replica.name,
            "sync_state": replica.sync_state,
            "behind_seconds": replica.behind.map(|behind| behind.as_secs_f64()),
        })
    };
    let named = [
        ("fsync", on(settings.fsync)),
        ("full_page_writes", on(settings.full_page_writes)),
        ("synchronous_commit", settings.synchronous_commit.as_str().into()),
        ("wal_sync_method", settings.wal_sync_method.clone().into()),
        ("wal_writer_delay_ms", json!(settings.wal_writer_delay.as_millis())),
        ("commit_delay_us", json!(settings.commit_delay.as_micros())),
        ("data_checksums", on(settings.data_checksums)),
        ("synchronous_standby_names", settings.synchronous_standby_names.clone().into()),
        ("replicas", settings.replicas.iter().map(replica).collect()),
    ];
    let named = named.map(|(name, value)| (name.to_owned(), value));
    Ok(Found { verdict: settings.decide(), settings: named.into_iter().collect() })
}

impl Told<'_> {
    fn text(&self) -> String {
        let mut text = format!("{}\nlost of what was acknowledged, when\n", self.store);
        for (when, lost) in [
            ("its processes are killed", &self.crash),
            ("the power fails", &self.power),
            ("its machine is lost", &self.failover),
        ] {
            let _ = writeln!(text, "  {when:<25} {}: {}", lost.loss, lost.why);
        }
        for (name, value) in self.settings {
            match value {
                Value::Array(replicas) => {
                    for replica in replicas {
                        let _ = writeln!(text, "{}", replica_line(replica));
                    }
                }
                Value::String(value) => drop(writeln!(text, "{name} = {value}")),
                value => drop(writeln!(text, "{name} = {value}")),
            }
        }
        for note in self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn replica_line(replica: &Value) -> String {
    let word = |name: &str| replica[name].as_str().unwrap_or("(not shown)").to_owned();
    let behind = replica["behind_seconds"].as_f64();
    let behind = behind.map_or("(not shown)".to_owned(), |seconds| format!("{seconds:.3} s"));
    format!("replica {}: {}, behind {behind}", word("name"), word("sync_state"))
}
