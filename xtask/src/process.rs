//! Child processes that can't outlive their time limit, their parent's patience, or Ctrl-C.
//!
//! Each child leads a process group of its own, and the whole group is killed when the child ends, is out
//! of time or the user interrupts: a test that starts servers must not leave them behind.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How often a waiting parent looks whether the user pressed Ctrl-C.
const INTERRUPT_LOOK: Duration = Duration::from_millis(100);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How a child ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself, or by a signal that was not ours.
    Exited(ExitStatus),
    /// It was still running after its limit; its process group was killed.
    TimedOut,
}

/// From here on Ctrl-C is noticed by [`run`], which kills the child's group before it returns an error.
///
/// Without this a child in its own process group would go on running after the terminal's Ctrl-C.
pub(crate) fn watch_interrupt() -> Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second Ctrl-C ends us at once, in case the first one's clean-up hangs.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("signals can't be watched")?;
    }
    Ok(())
}

/// Has the user pressed Ctrl-C since [`watch_interrupt`]?
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Runs `command` to its end, but no longer than `limit`; afterwards nothing of its process group is left.
///
/// # Errors
/// When the program can't be started or waited for, or when the user interrupts.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    run_with_notice(command, limit, Duration::ZERO)
}

/// As [`run`]. A child that has to end is told so first, as by Ctrl-C, and has so long to do it by itself: for one
/// that starts process groups of its own, which a kill of its group leaves behind.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with_notice(command: &mut Command, limit: Duration, notice: Duration) -> Result<Ended> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("{} can't be started", command.get_program().display()))?;
    let group = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || {
        // NOWAIT leaves the child a zombie, so its id can't be given to a stranger before we kill its group.
        let ended = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // The receiver outlives us: it is dropped only after this thread is joined.
        let _ = tell.send(ended);
    });
    let outcome = loop {
        let left = limit.saturating_sub(started.elapsed());
        match told.recv_timeout(left.min(INTERRUPT_LOOK)) {
            Ok(Ok(_)) => break None,
            Ok(Err(error)) => {
                end_group(&mut child, group);
                bail!("{} can't be waited for: {error}", command.get_program().display());
            }
            Err(_) if interrupted() => {
                give_notice(group, &told, notice);
                end_group(&mut child, group);
                bail!("interrupted; {} was killed", command.get_program().display());
            }
            Err(_) if left.is_zero() => {
                give_notice(group, &told, notice);
                break Some(Ended::TimedOut);
            }
            Err(_) => {}
        }
    };
    let status = end_group(&mut child, group);
    let _ = waiter.join();
    match outcome {
        Some(ended) => Ok(ended),
        None => Ok(Ended::Exited(status.context("the child's exit status is lost")?)),
    }
}

/// Asks the group to end and waits until its leader did, at most as long as the notice.
fn give_notice<T>(group: Pid, told: &mpsc::Receiver<T>, notice: Duration) {
    if !notice.is_zero() && kill_process_group(group, Signal::INT).is_ok() {
        // Ended or not: what is left is killed.
        let _ = told.recv_timeout(notice);
    }
}

/// Kills what is left of the group, then reaps its leader.
fn end_group(child: &mut Child, group: Pid) -> Option<ExitStatus> {
    // Fails only when nobody is left, which is what we want.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().ok()
}

/// The cargo that runs us, without the variables that describe *this* package.
///
/// `cargo run` exports them; passed on, they would make a nested build look different from the user's own.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    without_package(&mut command);
    command
}

/// Removes the variables that `cargo run` sets for this package from the environment of `command`.
pub(crate) fn without_package(command: &mut Command) {
    const OURS: [&str; 6] =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OURS.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_passed_on() {
        let ended = run(Command::new("sh").args(["-c", "exit 3"]), Duration::from_secs(60)).unwrap();
        assert!(matches!(ended, Ended::Exited(status) if status.code() == Some(3)), "{ended:?}");
    }

    #[test]
    fn a_hanging_child_is_killed_together_with_its_own_children() {
        let directory = tempfile::tempdir().unwrap();
        let grandchild = directory.path().join("grandchild");
        // The shell waits for ever on a grandchild that would outlive a kill of the shell alone.
        let script = format!("sleep 100000 & echo $! > {}; wait", grandchild.display());
        let ended = run(Command::new("sh").args(["-c", &script]), Duration::from_secs(2)).unwrap();
        assert!(matches!(ended, Ended::TimedOut), "{ended:?}");
        assert_gone(&grandchild);
    }

    #[test]
    fn a_child_with_notice_ends_the_group_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let stranger = directory.path().join("stranger");
        // What leads a session of its own is out of reach of a kill of our group.
        let script = format!(
            "trap 'kill -9 $stranger; exit 0' INT; setsid sleep 100000 & stranger=$!; echo $stranger > {}; wait",
            stranger.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let ended = run_with_notice(&mut command, Duration::from_secs(2), Duration::from_secs(30)).unwrap();
        assert!(matches!(ended, Ended::TimedOut), "{ended:?}");
        assert_gone(&stranger);
    }

    #[test]
    fn what_a_finished_child_left_behind_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let grandchild = directory.path().join("grandchild");
        let script = format!("sleep 100000 & echo $! > {}", grandchild.display());
        let ended = run(Command::new("sh").args(["-c", &script]), Duration::from_secs(60)).unwrap();
        assert!(matches!(ended, Ended::Exited(status) if status.success()), "{ended:?}");
        assert_gone(&grandchild);
    }

    /// The process is gone, or a zombie that its new parent has not reaped yet.
    fn assert_gone(file: &std::path::Path) {
        let id = std::fs::read_to_string(file).unwrap();
        let stat = format!("/proc/{}/stat", id.trim());
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") || state.contains(") X ") {
                return;
            }
            assert!(Instant::now() < limit, "still running: {state}");
            thread::yield_now();
        }
    }
}
