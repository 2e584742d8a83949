//! A running shop: `mainstay up` as a child, for the checks that need one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, Ended};
use crate::tree;

/// The services, each a child of the supervisor, in the order of their ports.
pub(crate) const SERVICES: [&str; 4] = ["order", "payment", "inventory", PROCESSOR];

/// Of those, the simulated card processor.
pub(crate) const PROCESSOR: &str = "processor";

/// The shop is up, or a killed service is back, within so long.
pub(crate) const UP_MAX: Duration = Duration::from_secs(60);

/// One question to a store takes no longer.
const ASK_MAX: Duration = Duration::from_secs(120);

/// How often a condition of another process is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// The program with its tests' flags: what the lane has built already is used again.
pub(crate) fn build() -> Result<PathBuf> {
    let status = process::cargo()
        .args(["build", "--all-features", "--package", "mainstay-cli", "--bin", "mainstay"])
        .current_dir(tree::root()?)
        .stdout(std::io::stderr())
        .status()
        .context("cargo can't be started")?;
    if !status.success() {
        bail!("it does not compile; to repeat it: cargo build --all-features --package mainstay-cli");
    }
    Ok(tree::target()?.join("debug/mainstay"))
}

/// A running `mainstay up`.
pub(crate) struct Up<'a> {
    binary: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) port_base: u16,
    child: Option<Child>,
}

impl<'a> Up<'a> {
    pub(crate) fn new(binary: &'a Path, folder: &'a Path, port_base: u16) -> Self {
        Self { binary, folder, port_base, child: None }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the supervisor and waits until every service has its process.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("up.log"))?;
        let mut command = Command::new(self.binary);
        process::without_package(&mut command);
        command.arg("up").arg("--data").arg(self.data()).args(["--port-base", &self.port_base.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} can't be started", self.binary.display()))?;
        self.child = Some(child);
        for service in SERVICES {
            self.service(service)?;
        }
        Ok(())
    }

    /// The process of a service, as soon as there is one.
    fn service(&mut self, name: &str) -> Result<Pid> {
        let began = Instant::now();
        loop {
            let child = self.child.as_mut().context("the shop is not running")?;
            if let Some(status) = child.try_wait()? {
                bail!(
                    "`mainstay up` ended by itself, {status}; see {}",
                    self.folder.join("up.log").display()
                );
            }
            if let Some(pid) = child_of(child.id(), name) {
                return Ok(pid);
            }
            if began.elapsed() > UP_MAX {
                bail!("{name} is not back within {UP_MAX:?}; see {}", self.folder.join("up.log").display());
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn kill_service(&mut self, name: &str) -> Result<()> {
        let pid = self.service(name)?;
        // It fails only when the process has ended meanwhile, and then another kill has met it.
        let _ = kill_process(pid, Signal::KILL);
        Ok(())
    }

    /// Kills the supervisor alone. Its children notice, and a new one waits for them.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("the supervisor can't be killed")?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the shop as a user does; what was wrong with that.
    pub(crate) fn stop(&mut self) -> Result<Option<String>> {
        let Some(mut child) = self.child.take() else { return Ok(Some("the shop was not running".into())) };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(
                    (!status.success()).then(|| format!("`mainstay up` ended with {status} after SIGTERM"))
                );
            }
            if began.elapsed() > UP_MAX {
                self.child = Some(child);
                self.end();
                return Ok(Some(format!("`mainstay up` did not end within {UP_MAX:?} after SIGTERM")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Leaves nothing running, whatever has happened.
    pub(crate) fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let services: Vec<Pid> = SERVICES.iter().filter_map(|name| child_of(child.id(), name)).collect();
        // Failures mean that they are gone already.
        let _ = child.kill();
        let _ = child.wait();
        for pid in services {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Asks a store; its answer as JSON lines, or its complaint.
    pub(crate) fn ask(
        &self,
        words: &[&str],
        store: &Path,
        options: &[&str],
    ) -> Result<Result<String, String>> {
        let path = |name: &str| self.folder.join(name);
        let mut command = Command::new(self.binary);
        process::without_package(&mut command);
        command.args(words).arg(store).args(options).arg("--json");
        command.stdout(File::create(path("stdout"))?).stderr(File::create(path("stderr"))?);
        let ended = process::run(&mut command, ASK_MAX)?;
        let (output, complaint) = (fs::read_to_string(path("stdout"))?, fs::read_to_string(path("stderr"))?);
        Ok(match ended {
            Ended::Exited(status) if status.success() => Ok(output),
            Ended::Exited(_) => Err(complaint + &output),
            Ended::TimedOut => Err(format!("no answer within {ASK_MAX:?}")),
        })
    }
}

/// The child of a process that runs `service NAME`.
fn child_of(parent: u32, name: &str) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok();
    let candidates: Vec<u32> = match children {
        Some(children) => children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        None => Vec::new(),
    };
    let all = || {
        let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| {
            // The parent's id is the second word after the name, which stands in brackets.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split(' ').nth(1).and_then(|id| id.parse().ok()) == Some(parent)
        })
    };
    let is_service = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair == [b"service".as_slice(), name.as_bytes()])
    };
    // The list of children is of the thread that started them, which need not be the first one.
    let found = candidates.into_iter().find(is_service).or_else(|| all().find(is_service))?;
    Pid::from_raw(i32::try_from(found).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_among_the_children_and_nobody_else() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exit 0", "service", "order"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(child_of(std::process::id(), "order"), Some(Pid::from_child(&child)));
        assert_eq!(child_of(std::process::id(), "payment"), None);
        assert_eq!(child_of(child.id(), "order"), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
