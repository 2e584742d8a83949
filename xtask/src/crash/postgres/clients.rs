//! The processes that work on the store, and everything they said.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// How often a condition is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Work that is under way ends so long after nobody gives any more, with patience of the client's own in between.
const END_MAX: Duration = Duration::from_secs(120);

/// The machine's clock, as the books have it.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What one process said.
#[derive(Debug, Default, Clone)]
pub(super) struct Heard {
    pub(super) books: String,
    /// When acts were acknowledged.
    pub(super) acks: Vec<i64>,
    /// When the follower had come further.
    pub(super) seen: Vec<i64>,
    /// When tries were answered by neither yes nor no.
    pub(super) troubled: Vec<i64>,
    /// Since when its sequencer is the active one, and under which epoch.
    pub(super) active: Option<(i64, u64)>,
}

impl Heard {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let at = |nth: usize| words.get(nth).and_then(|word| word.parse::<i64>().ok());
        match words.first().copied() {
            Some("ack") => self.acks.extend(at(2)),
            Some("seen") => self.seen.extend(at(2)),
            Some("unknown" | "passing") => self.troubled.extend(at(2)),
            Some("role") => {
                let active = words.get(2) == Some(&"active");
                self.active = active.then(|| Some((at(1)?, u64::try_from(at(3)?).ok()?))).flatten();
            }
            _ => {}
        }
        self.books.push_str(line);
        self.books.push('\n');
    }
}

/// A process that works.
pub(super) struct Client {
    child: Child,
    input: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts the program with these words.
    pub(super) fn start(program: &Path, words: &[&str]) -> Result<Client> {
        let mut command = Command::new(program);
        process::without_package(&mut command);
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a client without an output")?);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let books = Arc::clone(&heard);
        let reader = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                books.lock().unwrap_or_else(PoisonError::into_inner).take(&line);
            }
        });
        Ok(Client { child, input, heard, reader: Some(reader) })
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("a client can't be signalled")
    }

    /// Gives no more work.
    pub(super) fn end(&mut self) {
        self.input = None;
    }

    /// Waits for its end; everything it said, and what was wrong with its end.
    pub(super) fn ended(mut self) -> Result<(Heard, Option<String>)> {
        self.end();
        let began = Instant::now();
        let wrong = loop {
            if let Some(status) = self.child.try_wait().context("a client can't be waited for")? {
                break (!status.success()).then(|| format!("a client ended with {status}"));
            }
            if process::interrupted() {
                bail!("interrupted");
            }
            if began.elapsed() > END_MAX {
                let _ = self.child.kill();
                break Some(format!("a client did not end within {END_MAX:?}"));
            }
            thread::sleep(LOOK);
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let heard = self.heard().clone();
        Ok((heard, wrong))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may be stopped, or wait for a server that never answers.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds; whether it came to.
pub(super) fn wait_until(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let began = Instant::now();
    loop {
        if holds()? {
            return Ok(true);
        }
        if process::interrupted() {
            bail!("interrupted");
        }
        if began.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}

/// The longest pause between two moments, of those that end after `since`; in milliseconds.
pub(super) fn longest_pause(mut moments: Vec<i64>, since: i64) -> i64 {
    moments.sort_unstable();
    let pauses = moments.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_is_kept_and_understood() {
        let mut heard = Heard::default();
        for line in ["try 1 5 0", "ack 1 7 new s=1", "seen 3 8 ff", "unknown 2 9 why", "role 4 active 3"] {
            heard.take(line);
        }
        assert_eq!(
            (heard.acks.as_slice(), heard.seen.as_slice(), heard.troubled.as_slice()),
            (&[7][..], &[8][..], &[9][..])
        );
        assert_eq!(heard.active, Some((4, 3)));
        heard.take("role 6 candidate 0");
        assert_eq!(heard.active, None);
        assert!(heard.books.starts_with("try 1 5 0\nack 1 7 new s=1\n"));
    }

    #[test]
    fn a_pause_counts_when_it_ends_after_the_fault() {
        assert_eq!(longest_pause(vec![0, 900, 1_000, 1_300, 1_350], 950), 300);
        assert_eq!(longest_pause(vec![900, 0], 1), 900);
        assert_eq!(longest_pause(vec![5], 0), 0);
    }
}
