//! The signals that end `up`.

use anyhow::{Context as _, Result};
use mainstay_runtime::logs::Console;
use mainstay_runtime::supervisor::Stop;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What ends this process.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where it is left as it was found: ignored, as `nohup` wants it; or it ends this process at once, and
    /// the services drain by themselves.
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn hold() -> Result<Self> {
        let hold = |kind| signal(kind).context("no signal handler could be set; nothing was started");
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: hold(SignalKind::interrupt())?,
            terminate: hold(SignalKind::terminate())?,
            hangup: is_obeyed(hangup).then(|| hold(hangup)).transpose()?,
        })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        let Self { interrupt, terminate, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hung_up => "SIGHUP",
        }
    }

    /// The first one drains, the second one does not wait.
    pub(super) async fn obey(mut self, stop: watch::Sender<Stop>, console: Console) {
        for (asked, what) in [
            (Stop::Drain, "finishing what has begun; once more ends it at once"),
            (Stop::Now, "ending at once; what was acknowledged is kept"),
        ] {
            let name = self.next().await;
            console.tell(&format!("{name}: {what}"), &json!({ "event": "signal", "signal": name }));
            if stop.send(asked).is_err() {
                return;
            }
        }
    }
}

/// Was this signal not ignored when this process began? Asking the system for it takes `unsafe` code, so it is read
/// where Linux shows it; where nothing is shown, the answer is no, and the signal is left alone.
fn is_obeyed(kind: SignalKind) -> bool {
    let shown = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&shown).is_some_and(|mask| mask & mask_of(kind) == 0)
}

/// The signals that a process ignores, as its status shows them (proc_pid_status(5)): a bit each, in hexadecimal.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// The lowest bit is that of signal 1.
fn mask_of(kind: SignalKind) -> u64 {
    let bit = u32::try_from(kind.as_raw_value() - 1).ok();
    bit.and_then(|bit| 1u64.checked_shl(bit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        let mask = ignored(status).unwrap();
        assert_ne!(mask & mask_of(SignalKind::hangup()), 0);
        assert_ne!(mask & mask_of(SignalKind::pipe()), 0);
        assert_eq!(mask & mask_of(SignalKind::interrupt()), 0);
        assert_eq!(ignored("Name:\tx\n"), None);
    }
}
