//! A process that works on a store, made to be killed: `cargo xtask crash store` starts it, kills it at any
//! moment, and asks another one afterwards whether every promise was kept.
//!
//! ```text
//! store_worker append  --file F --seed N --from K [--writers 4] [--acts 1000000]   lines of a ledger, for ever
//! store_worker check   --file F --seed N --ledger L          ledger against store: one JSON object
//! store_worker resolve --file F --seed N --ledger L          tries again what was never answered: more lines
//! store_worker dump    --file F --seed N                     every event as a JSON line, the chain verified
//! ```
//! Without arguments it shows all of it once, on a file of its own, undisturbed.
//!
//! A line is one `write` to standard output, so a kill can cut the end of what was said, but no line in two.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_envelope::Context;
use mainstay_sqlite::{Options, Sqlite};

#[path = "../tests/workload/mod.rs"]
mod workload;

use workload::drive::{self, Job, Log};
use workload::ledger::Ledger;
use workload::{Failure, acts, check, feed};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&words)))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    file: PathBuf,
    ledger: Option<PathBuf>,
    job: Job,
}

fn parse(words: &[String]) -> Result<Arguments, Failure> {
    let (mut file, mut ledger) = (None, None);
    let mut job = Job { seed: 0, writers: 4, from: 0, acts: 1_000_000 };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
        match name.as_str() {
            "--file" => file = Some(PathBuf::from(value)),
            "--ledger" => ledger = Some(PathBuf::from(value)),
            "--seed" => job.seed = value.parse()?,
            "--writers" => job.writers = value.parse::<u64>()?.max(1),
            "--from" => job.from = value.parse()?,
            "--acts" => job.acts = value.parse()?,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok(Arguments { file: file.ok_or("--file is missing")?, ledger, job })
}

/// True when what was asked for holds.
async fn run(words: &[String]) -> Result<bool, Failure> {
    let Some((command, rest)) = words.split_first() else { return demonstrate().await };
    let arguments = parse(rest)?;
    let (file, job, cx) = (&arguments.file, arguments.job, Context::system());
    let ledger = || -> Result<Ledger, Failure> {
        let path = arguments.ledger.as_ref().ok_or("--ledger is missing")?;
        Ok(Ledger::read(&std::fs::read_to_string(path)?)?)
    };
    match command.as_str() {
        "append" => append(file, &cx, job, &Arc::new(Lines::to(std::io::stdout())?)).await.map(|()| true),
        "check" => check(file, &cx, job, &ledger()?).await,
        "resolve" => {
            for line in resolve(file, &cx, job, &ledger()?).await? {
                println!("{line}");
            }
            Ok(true)
        }
        "dump" => dump(file, &cx, job).await,
        _ => Err(format!("unknown command {command}; there are append, check, resolve and dump").into()),
    }
}

/// Lines as single writes; stops the work when nobody reads them any more.
struct Lines {
    out: File,
    gone: AtomicBool,
}

impl Lines {
    fn to(out: impl AsFd) -> Result<Self, Failure> {
        Ok(Self { out: out.as_fd().try_clone_to_owned()?.into(), gone: AtomicBool::new(false) })
    }
}

impl Log for Lines {
    fn line(&self, line: String) {
        // One write: a pipe takes up to 4,096 bytes whole. What explains a refusal may be longer.
        let mut line: String = line.replace('\n', " ").chars().take(1_000).collect();
        line.push('\n');
        if (&self.out).write_all(line.as_bytes()).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    fn stopped(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

async fn append(file: &Path, cx: &Context, job: Job, log: &Arc<Lines>) -> Result<(), Failure> {
    let store = Sqlite::open(Options::new(file))?;
    acts::prepare(&store, cx).await?;
    drive::run(&store, cx, job, log).await?;
    store.close();
    Ok(())
}

async fn check(file: &Path, cx: &Context, job: Job, ledger: &Ledger) -> Result<bool, Failure> {
    let store = Sqlite::open(Options::new(file))?;
    let feed = feed::read(&store, cx, job.seed, job.writers, |_| {}).await?;
    let mut report = check::check(ledger, &feed, job.seed, job.writers)?;
    // Nothing but kills happens to this store, and after a kill it is to work as before.
    report.violations.extend(ledger.failed.iter().take(5).map(|act| format!("the store failed: act {act}")));
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.sound())
}

async fn resolve(file: &Path, cx: &Context, job: Job, ledger: &Ledger) -> Result<Vec<String>, Failure> {
    let store = Sqlite::open(Options::new(file))?;
    let feed = feed::read(&store, cx, job.seed, job.writers, |_| {}).await?;
    feed::resolve(&store, cx, (job.seed, job.writers), &feed, &ledger.open()).await
}

async fn dump(file: &Path, cx: &Context, job: Job) -> Result<bool, Failure> {
    let store = Sqlite::open(Options::new(file).existing())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let feed = feed::read(&store, cx, job.seed, job.writers, |event| {
        let (act, ordinal) = acts::origin(&event.payload.bytes).unzip();
        let tags: Vec<_> = event.tags.iter().collect();
        let line = serde_json::json!({
            "position": event.position, "stream": event.stream, "version": event.version, "id": event.id,
            "type": event.event_type, "tags": tags, "act": act, "ordinal": ordinal, "hash": event.hash,
        });
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })
    .await?;
    written?;
    for broken in &feed.changed {
        eprintln!("{broken}");
    }
    Ok(feed.changed.is_empty())
}

/// The whole round without a kill: append, check, try again, check.
async fn demonstrate() -> Result<bool, Failure> {
    let folder = std::env::temp_dir().join(format!("mainstay-store-worker-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (file, path) = (folder.join("store.db"), folder.join("ledger"));
    let (cx, job) = (Context::system(), Job { seed: 1, writers: 4, from: 0, acts: 25 });
    let sound = async {
        append(&file, &cx, job, &Arc::new(Lines::to(File::create(&path)?)?)).await?;
        let text = std::fs::read_to_string(&path)?;
        // As if a kill had cut off the last answers: those acts are tried again.
        let heard = text.lines().count() * 3 / 4;
        let mut ledger = Ledger::default();
        for (i, line) in text.lines().enumerate() {
            if i < heard || line.starts_with("try ") {
                ledger.line(line)?;
            }
        }
        for line in resolve(&file, &cx, job, &ledger).await? {
            ledger.line(&line)?;
        }
        check(&file, &cx, job, &ledger).await
    }
    .await;
    std::fs::remove_dir_all(&folder)?;
    sound
}
