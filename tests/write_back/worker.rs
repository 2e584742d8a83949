//! A process that writes through write-back, made to be killed: `cargo xtask crash cache` starts it, kills it at drawn
//! moments, and asks another one afterwards whether every promise was kept.
//!
//! ```text
//! write_back_worker append --folder F --from K [--halt STEP --nth N]     lines of a ledger, for ever
//! write_back_worker check  --folder F --ledger L [--flush yes]           ledger against files: lines
//! ```
//! `check` says `seen KEY VERSION VALUE` of each row, `pending N`, and `violation …` of each promise that was broken.
//! Without arguments it shows all of it once, in a folder of its own, undisturbed.
//!
//! A line is one `write` to standard output, so a kill can cut the end of what was said, but no line in two.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod workload;

use workload::{Checked, Failure, Halt, Ledger, STEPS};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&words)));
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    folder: PathBuf,
    from: u64,
    halt: Option<String>,
    nth: u64,
    ledger: PathBuf,
    flush: bool,
}

fn parse(words: &[String]) -> Result<Arguments, Failure> {
    let mut arguments = Arguments::default();
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
        match name.as_str() {
            "--folder" => arguments.folder = value.into(),
            "--from" => arguments.from = value.parse()?,
            "--halt" if STEPS.contains(&&**value) => arguments.halt = Some(value.clone()),
            "--nth" => arguments.nth = value.parse()?,
            "--ledger" => arguments.ledger = value.into(),
            "--flush" => arguments.flush = value == "yes",
            _ => return Err(format!("{name} {value}: no such argument").into()),
        }
    }
    Ok(arguments)
}

/// False when a promise was broken.
async fn run(words: &[String]) -> Result<bool, Failure> {
    let Some((command, rest)) = words.split_first() else { return show().await };
    let arguments = parse(rest)?;
    match command.as_str() {
        "append" => {
            let step = arguments.halt.as_deref();
            let halt = step.map_or(Halt::never(say), |step| Halt::at_step(step, arguments.nth, say));
            workload::append(&arguments.folder, halt, arguments.from, u64::MAX, say).await?;
            Ok(true)
        }
        "check" => {
            check(&arguments.folder, &std::fs::read_to_string(&arguments.ledger)?, arguments.flush).await
        }
        _ => Err(format!("{command}: neither append nor check").into()),
    }
}

async fn check(folder: &Path, lines: &str, flush: bool) -> Result<bool, Failure> {
    let mut ledger = Ledger::default();
    for line in lines.lines() {
        if !ledger.note(line) {
            return Err(format!("no line of a ledger: {line:?}").into());
        }
    }
    let Checked { pending, rows, violations } = workload::check(folder, &ledger, flush).await?;
    rows.iter().for_each(|(key, version, value)| say(&format!("seen {key} {version} {value}")));
    say(&format!("pending {pending}"));
    violations.iter().for_each(|violation| say(&format!("violation {violation}")));
    Ok(violations.is_empty())
}

/// Everything once.
async fn show() -> Result<bool, Failure> {
    let folder = tempfile::tempdir()?;
    workload::append(folder.path(), Halt::never(say), 1, 4, say).await?;
    let said: String = (0..workload::KEYS).map(|key| format!("try k{key} 3\nack k{key} 3\n")).collect();
    check(folder.path(), &said, true).await
}

fn say(line: &str) {
    // Whoever reads is gone: nobody is left to tell, and the kill is on its way.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
