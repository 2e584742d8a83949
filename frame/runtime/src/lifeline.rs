//! The child's side: when to finish and end.

use std::io::Read;

use tokio::sync::oneshot;

/// Why a process is to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Its standard input ended: whoever started it is gone, however it went.
    ParentGone,
    /// SIGTERM.
    Terminated,
    /// SIGINT, as from Ctrl-C.
    Interrupted,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ParentGone => "the process that started this one is gone",
            Self::Terminated => "asked to end (SIGTERM)",
            Self::Interrupted => "interrupted (SIGINT)",
        })
    }
}

/// What holds a child to its supervisor: a pipe on its standard input, into which nobody writes. The system
/// closes it when the supervisor ends, also by kill -9; no pid is watched, and none can be mistaken.
#[derive(Debug)]
pub struct Lifeline {
    ended: oneshot::Receiver<()>,
    terminated: tokio::signal::unix::Signal,
    interrupted: tokio::signal::unix::Signal,
}

impl Lifeline {
    /// Watches standard input (what comes in is thrown away) and the two signals. To be called once, early:
    /// a signal that comes before it ends the process.
    ///
    /// # Errors
    /// When the system gives no thread or no signal handler.
    pub fn hold() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (tell, ended) = oneshot::channel();
        // A thread of its own and not the runtime's stdin: a runtime waits at its end for a read that blocks.
        std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut thrown_away = [0; 256];
            loop {
                match input.read(&mut thrown_away) {
                    Ok(0) => break,
                    Err(error) if error.kind() != std::io::ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            let _ = tell.send(());
        })?;
        let terminated = signal(SignalKind::terminate())?;
        let interrupted = signal(SignalKind::interrupt())?;
        Ok(Self { ended, terminated, interrupted })
    }

    /// Waits until this process is to drain. To be awaited once to its end; dropping it before loses nothing.
    pub async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = &mut self.ended => Asked::ParentGone,
            _ = self.terminated.recv() => Asked::Terminated,
            _ = self.interrupted.recv() => Asked::Interrupted,
        }
    }
}
