//! One process of a child: started, heard, signalled, waited for.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::notice::What;
use super::state::{Act, Input};
use crate::announce::Announcement;
use crate::logs::Lines;

/// How long the last words of an ended process are waited for. A grandchild may hold its outputs open.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// Lines that are kept, to be told when the child is given up.
const LAST_WORDS: usize = 5;

/// What to run.
#[derive(Clone)]
pub struct Program {
    /// What it is called in logs and errors.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables that are added to this process's own. Unlike arguments they are not shown to the machine's other users.
    pub environment: Vec<(OsString, OsString)>,
    /// Exit codes by which it says that another start would end the same way: its arguments or its files are at
    /// fault. Believed until it was ready once.
    pub for_good: Vec<i32>,
}

impl fmt::Debug for Program {
    /// Of the environment the names alone: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, file, arguments, environment, for_good } = self;
        let names: Vec<_> = environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Program")
            .field("name", name)
            .field("file", file)
            .field("arguments", arguments)
            .field("environment", &names)
            .field("for_good", for_good)
            .finish()
    }
}

/// What a process has to tell the supervisor's loop.
#[derive(Debug)]
pub(super) enum Heard {
    /// Something that may change the child's phase, and what to tell about it.
    Input(Input, What),
    /// Something to tell.
    Told(What),
    /// It ended; nothing more will be heard of it.
    Ended(Input, What, Option<i32>, VecDeque<String>),
}

/// A running process, seen from the loop.
#[derive(Debug)]
pub(super) struct Running {
    acts: mpsc::Sender<Act>,
}

impl Running {
    /// Signals the process, if it still runs.
    pub(super) fn act(&self, act: Act) {
        // Full: it was signalled as often as there are signals. Closed: it has ended.
        let _ = self.acts.try_send(act);
    }
}

/// Starts a process. What it says goes to `hear` with the place of its child.
pub(super) fn start(
    program: &Program,
    place: usize,
    hear: &mpsc::Sender<(usize, Heard)>,
) -> io::Result<(Running, u32)> {
    let mut child = Command::new(&program.file)
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: Ctrl-C on the terminal reaches the supervisor alone, which drains in its order.
        .process_group(0)
        .spawn()?;
    let pid = child.id().unwrap_or_default();
    // Never written to. Held until the process has ended; closed by the system should we end first.
    let mut lifeline = child.stdin.take();
    let (words, mut last_words) = mpsc::channel(LAST_WORDS);
    let mut pumps = tokio::task::JoinSet::new();
    if let Some(output) = child.stdout.take() {
        pumps.spawn(pump(output, true, place, hear.clone(), words.clone()));
    }
    if let Some(output) = child.stderr.take() {
        pumps.spawn(pump(output, false, place, hear.clone(), words));
    }
    let (acts, mut orders) = mpsc::channel(4);
    let (hear, for_good) = (hear.clone(), program.for_good.clone());
    tokio::spawn(async move {
        let mut kept = VecDeque::with_capacity(LAST_WORDS);
        let mut keep = |line| {
            if kept.len() == LAST_WORDS {
                kept.pop_front();
            }
            kept.push_back(line);
        };
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                act = orders.recv(), if lifeline.is_some() => match act {
                    Some(act) => signal(&mut child, act),
                    // The supervisor was dropped: its children learn of it as if this process were gone.
                    None => lifeline = None,
                },
                Some(line) = last_words.recv() => keep(line),
            }
        };
        let silence = async {
            while let Some(line) = last_words.recv().await {
                keep(line)
            }
        };
        // Past this the pumps are dropped, so that no word of this process is taken for the next one's.
        let _ = tokio::time::timeout(LAST_WORDS_WITHIN, silence).await;
        pumps.shutdown().await;
        drop(lifeline);
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let input = Input::Exited { for_good: code.is_some_and(|code| for_good.contains(&code)) };
        let status = status.map_or_else(|cause| format!("unknown: {cause}"), |status| status.to_string());
        let _ = hear.send((place, Heard::Ended(input, What::Ended { status }, code, kept))).await;
    });
    Ok((Running { acts }, pid))
}

fn signal(child: &mut tokio::process::Child, act: Act) {
    // The id is gone once the process was waited for, so no other process can be hit. A signal that is not
    // delivered has nobody to reach: the process is ours, so all that can be wrong is that it has ended.
    match act {
        Act::Kill => {
            let _ = child.start_kill();
        }
        Act::Terminate => {
            let pid =
                child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        Act::Spawn => {}
    }
}

/// Hands on each line of an output.
async fn pump(
    output: impl AsyncRead + Unpin,
    speaks: bool,
    place: usize,
    hear: mpsc::Sender<(usize, Heard)>,
    words: mpsc::Sender<String>,
) {
    let mut lines = Lines::new(BufReader::new(output));
    // An output that can't be read any more is as good as closed.
    while let Ok(Some(line)) = lines.next().await {
        let heard = match Announcement::parse(&line).filter(|_| speaks) {
            None => {
                let _ = words.send(line.clone()).await;
                Heard::Told(What::Log { line })
            }
            Some(Err(problem)) => Heard::Told(What::Misspoke { problem }),
            Some(Ok(announcement)) => match announcement.cleaned() {
                Announcement::Ready { address } => Heard::Input(Input::Ready, What::Ready { address }),
                Announcement::Unready { reason } => Heard::Input(Input::Unready, What::Unready { reason }),
            },
        };
        if hear.send((place, heard)).await.is_err() {
            return;
        }
    }
}
