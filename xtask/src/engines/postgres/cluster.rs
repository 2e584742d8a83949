//! The servers of one instance: started, asked, stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::running;
use super::super::tool::{self, Account, finish, succeed, wait_until};
use super::node::{Node, pooler_port};
use super::processes::{end, is_pooler, is_server};
use super::programs::Programs;
use super::state::{Facts, Role, State};
use super::texts;

/// A server is up, or a promoted one takes writes, within so long; one that was killed replays its log first.
pub(super) const START_MAX: Duration = Duration::from_secs(120);

/// A server that was told to stop has ended within so long, otherwise it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// One question takes no longer.
pub(super) const ASK_MAX: Duration = Duration::from_secs(15);

/// A copy of the leader's data takes no longer.
const COPY_MAX: Duration = Duration::from_secs(600);

/// A replica that does not follow after so long won't.
const FOLLOW_MAX: Duration = Duration::from_secs(30);

/// A log past this size is begun anew when its server starts.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// How a server is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Work under way is taken back, everything is flushed.
    Fast,
    /// Killed, as by a crash: its processes are gone without a word.
    Kill,
}

/// The servers of one instance, and what may be done with them.
pub(super) struct Cluster {
    pub(super) facts: Facts,
    pub(super) account: Account,
    pub(super) programs: Programs,
    /// The state file.
    pub(super) file: PathBuf,
}

impl Cluster {
    /// The instance that `file` tells of. None when there is no such file, it is not one of ours, or its data is gone.
    pub(super) fn open(file: &Path, account: &Account, programs: &Programs) -> Result<Option<Cluster>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} can't be read", file.display())),
        };
        let Ok(state) = serde_json::from_str::<State>(&text) else { return Ok(None) };
        let facts = state.facts();
        let whole = facts.data(facts.leader).join("PG_VERSION").exists();
        let cluster =
            Cluster { facts, account: account.clone(), programs: programs.clone(), file: file.to_path_buf() };
        Ok(whole.then_some(cluster))
    }

    pub(super) fn password(&self) -> Result<String> {
        let file = self.facts.home.join("password");
        fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))
    }

    /// What the state file says at this moment.
    pub(super) fn state(&self) -> Result<State> {
        let pid = |found: Option<Pid>| found.map(|pid| pid.as_raw_nonzero().get());
        let password = self.password()?;
        Ok(self.facts.state(&password, |node| pid(self.server(node)), pid(self.pooler())))
    }

    /// Writes the state file.
    pub(super) fn save(&self) -> Result<State> {
        let state = self.state()?;
        let text = serde_json::to_string_pretty(&state)?;
        // It holds the password, and belongs to whoever runs the tests.
        Account::own().write(&self.file, &format!("{text}\n"), 0o600)?;
        Ok(state)
    }

    /// The process of a server, None while it does not run.
    pub(super) fn server(&self, node: Node) -> Option<Pid> {
        let data = self.facts.data(node);
        let found = running::find(|words| is_server(words, &data));
        found.first().map(|process| process.pid)
    }

    /// The pooler's process.
    pub(super) fn pooler(&self) -> Option<Pid> {
        let config = self.facts.pooler_config();
        let found = running::find(|words| is_pooler(words, &config));
        found.first().map(|process| process.pid)
    }

    /// Writes what a server reads when it starts or is told to read it again.
    pub(super) fn configure(&self, node: Node) -> Result<()> {
        let text = texts::server(&texts::Server {
            node,
            leader: self.facts.leader,
            sync: self.facts.sync,
            port_base: self.facts.port_base,
            home: &self.facts.home,
        });
        self.account.write(&self.facts.config(node), &text, 0o600)
    }

    /// Makes a running server read its configuration again.
    pub(super) fn reload(&self, node: Node) -> Result<()> {
        self.configure(node)?;
        succeed(self.pg_ctl(node).arg("reload"), "", ASK_MAX).map(drop)
    }

    /// Starts a server and waits until it takes connections.
    pub(super) fn start(&self, node: Node) -> Result<()> {
        self.configure(node)?;
        self.forget_corpse(node);
        let log = self.facts.log(node);
        if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::remove_file(&log).with_context(|| format!("{} can't be begun anew", log.display()))?;
        }
        let config = self.facts.config(node).display().to_string();
        let options = format!("-c config_file={}", texts::shell_word(&config));
        let mut failure = String::new();
        let up = wait_until(START_MAX, || {
            let before = fs::metadata(&log).map_or(0, |log| log.len());
            let mut start = self.pg_ctl(node);
            start
                .args(["start", "-w", "-s", "-t", &START_MAX.as_secs().to_string(), "-o", &options, "-l"])
                .arg(&log);
            let finished = finish(&mut start, "", START_MAX * 2)?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            let said = tool::tail(said.get(usize::try_from(before)?..).unwrap_or_default());
            failure = format!("{}\n{said}", finished.said);
            // Children of a server that was killed may live a moment longer than it: not yet is not never.
            let is_dying = said.contains("pre-existing shared memory block");
            if !finished.success && !is_dying {
                bail!("{} did not start; its log {} says:\n{failure}", node.name(), log.display());
            }
            Ok(finished.success)
        })?;
        if !up {
            bail!("{} did not start; the processes of its predecessor do not end:\n{failure}", node.name());
        }
        Ok(())
    }

    /// A server that was killed leaves a file with its id. While nobody has collected the corpse, PostgreSQL takes it for
    /// a server that runs; we know better.
    fn forget_corpse(&self, node: Node) {
        let file = self.facts.data(node).join("postmaster.pid");
        let id = fs::read_to_string(&file).ok().and_then(|text| text.lines().next()?.trim().parse().ok());
        if id.and_then(Pid::from_raw).is_some_and(running::is_corpse) {
            // If that fails, the server's own words tell it.
            let _ = fs::remove_file(&file);
        }
    }

    /// Stops a server; no error when it does not run.
    pub(super) fn stop(&self, node: Node, how: Stop) -> Result<()> {
        let Some(pid) = self.server(node) else { return Ok(()) };
        if how == Stop::Fast {
            let mut stop = self.pg_ctl(node);
            stop.args(["stop", "-m", "fast", "-s", "-w", "-t", &STOP_MAX.as_secs().to_string()]);
            // One that hangs, or was halted by a signal, is killed like one that is to be killed.
            if finish(&mut stop, "", STOP_MAX * 2).is_ok_and(|stopped| stopped.success) {
                return Ok(());
            }
        }
        // The server itself first: it would take its children's end for a crash of theirs and start again.
        let mut ends = vec![pid];
        ends.extend(running::children(pid));
        end(&ends).with_context(|| format!("{} can't be killed", node.name()))
    }

    /// Starts the pooler, or makes it read its configuration again, and waits until the leader answers through it.
    pub(super) fn raise_pooler(&self) -> Result<()> {
        let text = texts::pooler(self.facts.leader, self.facts.port_base, &self.facts.home);
        let config = self.facts.pooler_config();
        self.account.write(&config, &text, 0o600)?;
        let log = self.facts.pooler_log();
        if let Some(pid) = self.pooler() {
            kill_process(pid, Signal::HUP).context("pgbouncer can't be told to read its configuration")?;
        } else {
            if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
                fs::remove_file(&log).with_context(|| format!("{} can't be begun anew", log.display()))?;
            }
            let mut start = self.account.command(&self.programs.pgbouncer, &self.facts.home);
            succeed(start.args(["-q", "-d"]).arg(&config), "", ASK_MAX)?;
        }
        // The old leader is gone when there is a new one, so an answer comes from the new one.
        let port = pooler_port(self.facts.port_base);
        if !wait_until(ASK_MAX, || Ok(self.ask(port, "mainstay", "select 1").is_ok_and(|one| one == "1")))? {
            let said = tool::tail(&fs::read_to_string(&log).unwrap_or_default());
            bail!("pgbouncer does not answer; its log {} says:\n{said}", log.display());
        }
        Ok(())
    }

    pub(super) fn stop_pooler(&self) -> Result<()> {
        self.pooler().map_or(Ok(()), |pid| end(&[pid]).context("pgbouncer can't be ended"))
    }

    /// Copies the leader's data, whatever the server had before, and starts it as a replica.
    pub(super) fn copy(&mut self, node: Node) -> Result<()> {
        self.stop(node, Stop::Kill)?;
        let data = self.facts.data(node);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("{} can't be removed", data.display()))?;
        }
        let mut copy = self.client("pg_basebackup");
        copy.env("PGAPPNAME", node.name()).arg("-D").arg(&data);
        copy.args(["-h", "127.0.0.1", "-p", &self.port(self.facts.leader), "-U", texts::REPLICATOR]);
        copy.args(["--no-password", "--wal-method=stream", "--checkpoint=fast"]);
        succeed(&mut copy, "", COPY_MAX)
            .with_context(|| format!("{} has no copy of the leader's data", node.name()))?;
        // The mark that makes it a replica.
        self.account.write(&data.join("standby.signal"), "", 0o600)?;
        self.facts.out.retain(|out| *out != node);
        self.start(node)
    }

    /// How a replica follows the leader, in the leader's words (`streaming`, `catchup`); None when it does not.
    ///
    /// The leader's words alone are not enough: a replica that knows more of the old history than its new leader
    /// connects, and is sent away, again and again. One that follows receives the history the leader writes.
    pub(super) fn follows(&self, node: Node) -> Result<Option<String>> {
        let leader = self.facts.leader;
        let history = self.ask_node(leader, "select pg_walfile_name(pg_current_wal_insert_lsn())")?;
        let port = leader.port(self.facts.port_base);
        let question = format!(
            "select 1 from pg_stat_wal_receiver where status = 'streaming' and sender_port = {port} \
             and received_tli = {}",
            timeline(&history).with_context(|| format!("{} told {history}", leader.name()))?
        );
        if self.ask_node(node, &question).ok().as_deref() != Some("1") {
            return Ok(None);
        }
        let question =
            format!("select state from pg_stat_replication where application_name = '{}'", node.name());
        let state = self.ask_node(leader, &question)?;
        Ok((!state.is_empty()).then_some(state))
    }

    /// Waits until a replica has caught up; whether it has, or is on its way there.
    pub(super) fn comes_to_follow(&self, node: Node) -> Result<bool> {
        let mut state = None;
        wait_until(FOLLOW_MAX, || {
            state = self.follows(node)?;
            Ok(state.as_deref() == Some("streaming"))
        })?;
        Ok(state.is_some())
    }

    /// Makes everything run that should; what was done.
    pub(super) fn raise(&mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let leader = self.facts.leader;
        if self.server(leader).is_none() {
            self.start(leader)?;
            done.push(format!("started {}, the leader", leader.name()));
        }
        for node in leader.others() {
            if self.facts.role(node) == Role::Out {
                self.copy(node)?;
                done.push(format!("rebuilt {} as a replica", node.name()));
            } else if self.server(node).is_none() {
                done.push(self.start_replica(node)?);
            }
        }
        if self.pooler().is_none() {
            self.raise_pooler()?;
            done.push("started pgbouncer".into());
        }
        for node in leader.others() {
            done.extend(self.ensure_follows(node)?);
        }
        Ok(done)
    }

    /// Starts a replica of a leader that runs; one that the leader's history has left behind is copied anew.
    pub(super) fn start_replica(&mut self, node: Node) -> Result<String> {
        let Err(error) = self.start(node) else { return Ok(format!("started {}", node.name())) };
        // What keeps any server from starting will keep the copy from it as well, and is told then.
        self.copy(node).with_context(|| format!("nor did it start before: {error:#}"))?;
        Ok(format!("rebuilt {}: its own data could not follow the leader", node.name()))
    }

    /// A replica that the leader's history has left behind is copied anew; what was done.
    pub(super) fn ensure_follows(&mut self, node: Node) -> Result<Option<String>> {
        if self.comes_to_follow(node)? {
            return Ok(None);
        }
        self.copy(node)?;
        if !self.comes_to_follow(node)? {
            bail!(
                "{} does not follow the leader, not even as a new copy; see {}",
                node.name(),
                self.facts.log(node).display()
            );
        }
        Ok(Some(format!("rebuilt {}: its own data could not follow the leader", node.name())))
    }

    /// Stops everything; what was done.
    pub(super) fn lower(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        if self.pooler().is_some() {
            self.stop_pooler()?;
            done.push("stopped pgbouncer".to_owned());
        }
        // The leader first: it ends only after its replicas have what it wrote.
        let leader = self.facts.leader;
        for node in std::iter::once(leader).chain(leader.others()) {
            if self.server(node).is_some() {
                self.stop(node, Stop::Fast)?;
                done.push(format!("stopped {}", node.name()));
            }
        }
        Ok(done)
    }

    /// A statement's answer from one server, as its superuser.
    pub(super) fn ask_node(&self, node: Node, statement: &str) -> Result<String> {
        self.ask(node.port(self.facts.port_base), "postgres", statement)
            .with_context(|| format!("{} was asked", node.name()))
    }

    /// A statement's answer at a port, as the superuser: lines of values with `|` between them.
    pub(super) fn ask(&self, port: u16, database: &str, statement: &str) -> Result<String> {
        let mut psql = self.client("psql");
        psql.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-d", database, "-f", "-"]);
        // On its input, since every user may read a command line.
        succeed(&mut psql, statement, ASK_MAX)
    }

    fn port(&self, node: Node) -> String {
        node.port(self.facts.port_base).to_string()
    }

    fn pg_ctl(&self, node: Node) -> Command {
        let mut command = self.client("pg_ctl");
        command.arg("-D").arg(self.facts.data(node));
        command
    }

    pub(super) fn pg_ctl_promote(&self, node: Node) -> Result<()> {
        let mut promote = self.pg_ctl(node);
        promote.args(["promote", "-w", "-s", "-t", &START_MAX.as_secs().to_string()]);
        succeed(&mut promote, "", START_MAX * 2).map(drop)
    }

    /// One of PostgreSQL's programs, with the file that tells it the password.
    pub(super) fn client(&self, program: &str) -> Command {
        let home = &self.facts.home;
        let mut command = self.account.command(&self.programs.program(program), home);
        command.env("PGPASSFILE", home.join("pgpass")).env("PGCONNECT_TIMEOUT", "5");
        command
    }
}

/// The number of a history, from the name of a file of its log: its first eight digits.
fn timeline(file: &str) -> Option<u32> {
    u32::from_str_radix(file.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_history_is_hexadecimal() {
        assert_eq!(timeline("0000000A00000000000000FE"), Some(10));
        assert_eq!(timeline("0000"), None);
        assert_eq!(timeline("psql: no"), None);
    }
}
