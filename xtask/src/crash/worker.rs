//! A worker that is killed while it speaks: what the runs over a file have in common.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// How a worker ended.
pub(super) struct Killed {
    /// What it had said until then.
    pub(super) lines: u64,
    /// Its time was over, and it was killed for that.
    pub(super) late: bool,
    /// It was killed for what it said.
    pub(super) struck: bool,
    pub(super) status: ExitStatus,
}

/// Starts a worker, has every line of its output heard, and kills it `after` that time, or as soon as `hear` says so of a
/// line. What it said until it was gone is heard too. Its errors go to `log`.
pub(super) fn kill_one(
    command: &mut Command,
    log: &Path,
    after: Duration,
    mut hear: impl FnMut(&str) -> Result<bool>,
) -> Result<Killed> {
    let stderr = File::create(log).context("a log can't be made")?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("{} can't be started", command.get_program().display()))?;
    let (pid, stdout) = (Pid::from_child(&child), child.stdout.take());
    let kill = move || {
        // It fails only when the worker is gone already, which its status tells.
        let _ = kill_process(pid, Signal::KILL);
    };
    let (done, ended) = mpsc::channel::<()>();
    let timer = thread::spawn(move || {
        let late = ended.recv_timeout(after) == Err(RecvTimeoutError::Timeout);
        if late {
            kill();
        }
        late
    });
    let listen = || {
        let mut stdout = BufReader::new(stdout.context("the worker has no output")?);
        let (mut lines, mut line, mut struck) = (0, String::new(), false);
        while stdout.read_line(&mut line).context("the worker's output can't be read")? > 0 {
            if hear(&line)? {
                kill();
                struck = true;
            }
            lines += 1;
            line.clear();
        }
        Ok((lines, struck))
    };
    let heard: Result<(u64, bool)> = listen();
    if heard.is_err() {
        kill();
    }
    // Only now, when nobody kills any more, may the process id be given away.
    drop(done);
    let late = timer.join().unwrap_or(false);
    let status = child.wait().context("the worker can't be waited for")?;
    let (lines, struck) = heard?;
    if process::interrupted() {
        bail!("interrupted; what was done so far is beside {}", log.display());
    }
    Ok(Killed { lines, late, struck, status })
}

/// An empty folder of this name; what an earlier run left in it is gone.
pub(super) fn fresh(out: &Path, name: &str) -> Result<PathBuf> {
    let folder = out.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} can't be removed", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(script: &str, after: Duration, hear: impl FnMut(&str) -> Result<bool>) -> Result<Killed> {
        let folder = tempfile::tempdir().unwrap();
        kill_one(Command::new("sh").args(["-c", script]), &folder.path().join("stderr"), after, hear)
    }

    #[test]
    fn it_is_killed_for_a_line_or_when_its_time_is_over_and_what_is_not_understood_ends_it_too() {
        let never = Duration::from_secs(30);
        let struck = says("echo one; echo two; exec sleep 3600", never, |line| Ok(line == "two\n")).unwrap();
        assert_eq!(
            (struck.lines, struck.late, struck.struck, struck.status.success()),
            (2, false, true, false)
        );
        let late = says("exec sleep 3600", Duration::from_millis(20), |_| Ok(false)).unwrap();
        assert_eq!((late.lines, late.late, late.struck), (0, true, false));
        let own = says("echo one; exit 3", never, |_| Ok(false)).unwrap();
        assert_eq!((own.lines, own.late, own.struck, own.status.code()), (1, false, false, Some(3)));
        let strange = says("echo what; exec sleep 3600", never, |line| bail!("it says {line:?}"));
        assert!(strange.is_err_and(|error| error.to_string().contains("what")));
    }
}
