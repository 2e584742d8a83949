//! PostgreSQL as the tests need it: a leader, two replicas that stream from it, and a pooler before the leader.
//!
//! ```text
//!   base + 3  pgbouncer ── transaction mode ──►┐
//!                                              ▼
//!   base      r0 leads ───── its log ────► r1 base + 1, r2 base + 2
//! ```
//! Which of the three leads changes with a promotion (`fault.rs`); the pooler goes with the leader. Every server listens
//! on the loopback only, asks for a password, and flushes what it commits. Facts and addresses stand in a state file,
//! `target/engines/INSTANCE.json`; several instances stand side by side when their ports do.

mod cluster;
mod create;
mod fault;
mod node;
mod processes;
mod programs;
mod state;
mod status;
mod texts;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::tool::{self, Account};
use crate::tree;
use cluster::Cluster;
use fault::Fault;
use programs::Programs;
use state::State;
use status::Status;

/// Where the instance without a name listens, and the three ports after it.
const PORT_BASE: u16 = 25_432;

/// The lane's own instance: a developer's goes on running beside it, with what is in it.
const LANE: &str = "lane";

const LANE_PORT_BASE: u16 = 25_532;

/// Who refuses to run as root.
const ACCOUNT: &str = "postgres";

/// Which instance.
#[derive(clap::Args)]
pub(super) struct Instance {
    /// Its name; its state file is `target/engines/NAME.json`.
    #[arg(long = "instance", default_value = "postgres", value_parser = to_name, global = true)]
    name: String,
    /// One JSON object on standard output.
    #[arg(long, global = true)]
    json: bool,
}

/// What a new instance is to be.
#[derive(clap::Args)]
pub(super) struct Up {
    #[command(flatten)]
    instance: Instance,
    /// The first of four ports on the loopback [default: 25432].
    #[arg(long)]
    port_base: Option<u16>,
    /// A folder for data, configuration and logs, instead of one beside the state file.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Which instance, and whether its data goes as well.
#[derive(clap::Args)]
pub(super) struct Down {
    #[command(flatten)]
    instance: Instance,
    /// Remove data, configuration, logs and the state file.
    #[arg(long)]
    purge: bool,
}

/// Which instance, and what happens to it.
#[derive(clap::Args)]
pub(super) struct Inject {
    #[command(flatten)]
    instance: Instance,
    #[command(subcommand)]
    fault: Fault,
}

/// What a command answers: what it did, and what the state file says now.
#[derive(Serialize)]
struct Answer<'a> {
    done: &'a [String],
    #[serde(flatten)]
    state: &'a State,
}

/// The files of an instance.
struct Files {
    state: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn of(instance: &str) -> Result<Files> {
        let folder = tree::target()?.join("engines");
        let folder = std::path::absolute(&folder).context("where is the target folder?")?;
        std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        Ok(Files {
            state: folder.join(format!("{instance}.json")),
            lock: folder.join(format!("{instance}.lock")),
        })
    }
}

/// Brings the instance up; nothing to do when it is.
pub(super) fn up(arguments: &Up) -> Result<bool> {
    let Instance { name, json } = &arguments.instance;
    let files = Files::of(name)?;
    let (state, done) = bring_up(name, &files, arguments.port_base, arguments.data.as_deref())?;
    if !json && done.is_empty() {
        eprintln!("{name}: already running; nothing was done");
    }
    answer(*json, &done, &state, &files)?;
    Ok(true)
}

fn bring_up(
    name: &str,
    files: &Files,
    port_base: Option<u16>,
    data: Option<&Path>,
) -> Result<(State, Vec<String>)> {
    let programs = Programs::find_or_install()?;
    let account = Account::of_server(ACCOUNT)?;
    let _lock = tool::lock(&files.lock)?;
    if let Some(mut cluster) = Cluster::open(&files.state, &account, &programs)? {
        let facts = &cluster.facts;
        ensure!(
            port_base.is_none_or(|base| base == facts.port_base),
            "{name} has the ports from {} on; `down postgres --purge` first, or name another --instance",
            facts.port_base
        );
        ensure!(
            data.is_none_or(|data| facts.home.starts_with(data)),
            "{name} has its data in {}; `down postgres --purge` first, or name another --instance",
            facts.home.display()
        );
        ensure!(
            facts.version == programs.version,
            "{name} was made by PostgreSQL {}, and this machine has {}; `down postgres --purge` first",
            facts.version,
            programs.version
        );
        let outcome = cluster.raise();
        // Also after a failure: what was rebuilt before it is no longer out.
        let state = cluster.save()?;
        return Ok((state, outcome?));
    }
    let port_base = port_base.unwrap_or(PORT_BASE);
    let data = data.map(std::path::absolute).transpose().context("where is the folder for the data?")?;
    let wanted = create::Wanted { instance: name, port_base, file: &files.state, data: data.as_deref() };
    let cluster = create::create(&wanted, &account, &programs)?;
    let state = cluster.save()?;
    let done = format!("made a leader, two replicas and a pooler in {}", cluster.facts.home.display());
    Ok((state, vec![done]))
}

/// Tells what runs; true when everything does and both replicas follow.
pub(super) fn status(arguments: &Instance) -> Result<bool> {
    let files = Files::of(&arguments.name)?;
    let cluster = open(&arguments.name, &files)?;
    let status = Status::of(&cluster);
    if arguments.json {
        tool::print(&serde_json::to_string(&status)?);
    } else {
        for line in status.lines()? {
            tool::print(&line);
        }
    }
    Ok(status.up)
}

/// Stops the instance.
pub(super) fn down(arguments: &Down) -> Result<bool> {
    let Instance { name, json } = &arguments.instance;
    let done = take_down(&Files::of(name)?, arguments.purge)?;
    if *json {
        tool::print(&serde_json::json!({ "done": done }).to_string());
    } else if done.is_empty() {
        eprintln!("{name}: nothing ran and nothing was there; nothing was done");
    }
    tell(&done);
    Ok(true)
}

fn take_down(files: &Files, purge: bool) -> Result<Vec<String>> {
    let _lock = tool::lock(&files.lock)?;
    let account = Account::of_server(ACCOUNT);
    let cluster = match (Programs::find(), account) {
        (Ok(programs), Ok(account)) => Cluster::open(&files.state, &account, &programs)?,
        // Without the server's programs nothing can be told to stop; what still runs is killed below.
        _ => None,
    };
    let mut done = Vec::new();
    let mut homes = create::possible_homes(&files.state)?.to_vec();
    if let Some(cluster) = &cluster {
        done = cluster.lower()?;
        cluster.save()?;
        homes.push(cluster.facts.home.clone());
    }
    for home in homes {
        processes::end_all_in(&home)?;
        if purge && home.exists() {
            create::discard(&home)?;
            done.push(format!("removed {}", home.display()));
        }
    }
    if purge && files.state.exists() {
        std::fs::remove_file(&files.state)
            .with_context(|| format!("{} can't be removed", files.state.display()))?;
    }
    Ok(done)
}

/// Prints the settings that tests of a server want, for a shell's `eval`.
pub(super) fn env(arguments: &Instance) -> Result<bool> {
    let files = Files::of(&arguments.name)?;
    let state = open(&arguments.name, &files)?.state()?;
    let settings = state.settings(&files.state);
    if arguments.json {
        let settings: std::collections::BTreeMap<_, _> = settings.into_iter().collect();
        tool::print(&serde_json::to_string(&settings)?);
    } else {
        for (name, value) in settings {
            tool::print(&format!("export {name}={}", texts::shell_word(&value)));
        }
    }
    Ok(true)
}

/// Does a fault to the instance.
pub(super) fn inject(arguments: &Inject) -> Result<bool> {
    let Instance { name, json } = &arguments.instance;
    let files = Files::of(name)?;
    let _lock = tool::lock(&files.lock)?;
    let mut cluster = open(name, &files)?;
    let outcome = fault::inject(&mut cluster, arguments.fault);
    // Also after a failure: process ids, and who leads, may have changed before it.
    let state = cluster.save()?;
    answer(*json, &outcome?, &state, &files)?;
    Ok(true)
}

fn open(name: &str, files: &Files) -> Result<Cluster> {
    let programs = Programs::find()?;
    let account = Account::of_server(ACCOUNT)?;
    Cluster::open(&files.state, &account, &programs)?.with_context(|| {
        format!(
            "there is no instance {name}: {} does not tell of one; `cargo xtask engines up postgres` makes it",
            files.state.display()
        )
    })
}

fn answer(json: bool, done: &[String], state: &State, files: &Files) -> Result<()> {
    if json {
        tool::print(&serde_json::to_string(&Answer { done, state })?);
        return Ok(());
    }
    tell(done);
    tool::print(&format!("leader    {}", state.urls.leader));
    for replica in &state.urls.replicas {
        tool::print(&format!("replica   {replica}"));
    }
    tool::print(&format!("pooler    {}", state.urls.pooler));
    tool::print(&format!("admin     {}", state.urls.admin));
    tool::print(&format!("and more  {}", files.state.display()));
    Ok(())
}

fn tell(done: &[String]) {
    for line in done {
        eprintln!("{line}");
    }
}

/// A name that is safe as a file's.
fn to_name(text: &str) -> Result<String> {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if text.is_empty() || text.len() > 32 || text.starts_with('-') || !text.chars().all(is_plain) {
        bail!("a name is 1 to 32 of a-z, 0-9 and -, and does not start with -");
    }
    Ok(text.to_owned())
}

/// The instance of a lane: new, and gone with its data when this is dropped, however the lane ends.
pub(super) struct Lane {
    files: Files,
    settings: Vec<(&'static str, String)>,
}

impl Lane {
    pub(super) fn up() -> Result<Lane> {
        let files = Files::of(LANE)?;
        // What an earlier lane left when it was killed is of no use to this one.
        take_down(&files, true)?;
        let (state, _) = bring_up(LANE, &files, Some(LANE_PORT_BASE), None)?;
        let settings = state.settings(&files.state);
        Ok(Lane { files, settings })
    }

    /// What the lane's steps find in their environment.
    pub(super) fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Err(error) = take_down(&self.files, true) {
            eprintln!("engines: the lane's servers may still run: {error:#}");
            eprintln!("    to end them: cargo xtask engines down postgres --instance {LANE} --purge");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_files() {
        for good in ["postgres", "lane-2", "a"] {
            assert_eq!(to_name(good).unwrap(), good);
        }
        let long = "a".repeat(33);
        for bad in ["", "../up", "a/b", "A", "-rf", "a.b", &long] {
            assert!(to_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lanes_ports_are_not_the_developers() {
        assert!(LANE_PORT_BASE.abs_diff(PORT_BASE) >= node::PORTS);
    }

    #[test]
    fn an_answer_is_what_was_done_beside_the_state() {
        let facts = state::Facts {
            instance: "postgres".into(),
            version: 15,
            port_base: PORT_BASE,
            leader: node::Node::R0,
            out: Vec::new(),
            sync: false,
            home: "/data".into(),
        };
        let state = facts.state("secret", |_| None, None);
        let json = serde_json::to_value(Answer { done: &["made it".into()], state: &state }).unwrap();
        assert_eq!(json["done"][0], "made it");
        assert_eq!(json["urls"]["leader"], serde_json::Value::String(state.urls.leader.clone()));
    }
}
