//! How every command answers: for people, or as JSON; and with which exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use mainstay::flow::inbox::DeadLetterError;
use mainstay::flow::timeline::TimelineError;
use mainstay::postgres;
use mainstay::sqlite::{LogError, OpenError};
use mainstay::store::{AppendError, Broken, ReadError, Refusal, TransactError};
use mainstay_runtime::supervisor;
use serde::Serialize;

use crate::secret::without_passwords;

/// What the exit code says. Documented in the help; scripts rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The arguments or the input are at fault; nothing was done.
    Usage = 2,
    /// The store refused; nothing was written. Reading again and deciding again may help.
    Refused = 3,
    /// The store, or its file, can't be used as it is.
    Unusable = 4,
    /// The outcome is unknown: the same command with the same ids finds out.
    Unknown = 5,
    /// The store is not what was recorded.
    Broken = 6,
}

/// Shown at the end of the help.
pub(crate) const CODES: &str = "Exit codes: 0 done · 1 failed · 2 usage or input at fault, nothing done · \
3 refused, nothing written · 4 the store can't be used · 5 outcome unknown, run the same again · \
6 the store is not what was recorded";

/// The input is at fault.
#[derive(Debug)]
pub(crate) struct BadInput(pub(crate) String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// What is on disk, or who holds it, is in the way.
#[derive(Debug)]
pub(crate) struct Unusable(pub(crate) String);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Standard output took no answer. What the command had to do beside answering is done.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be written to standard output: {0}")]
pub(crate) struct NotWritten(#[from] io::Error);

/// Did the reader of the output go away, as `head` does when it has enough?
pub(crate) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let gone = |NotWritten(cause): &NotWritten| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(gone))
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Failure {
    error: Explained,
}

#[derive(Serialize)]
struct Explained {
    code: u8,
    message: String,
}

impl Output {
    /// One answer: JSON on one line, or text.
    ///
    /// # Errors
    /// As those of [`Output::line`].
    pub(crate) fn print<T: Serialize>(
        &self,
        answer: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), NotWritten> {
        let line =
            if self.json { serde_json::to_string(answer).map_err(io::Error::from)? } else { human(answer) };
        self.line(&line)
    }

    /// A line of output.
    ///
    /// # Errors
    /// [`NotWritten`], to be handed up: the program must not say by its exit code that all was told. Whether a reader
    /// that went away is a failure depends on the command, and is decided in one place, in `main`.
    pub(crate) fn line(&self, line: &str) -> Result<(), NotWritten> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        // A buffer may keep the end of a line that holds line breaks.
        Ok(stdout.flush()?)
    }

    /// Answers arguments that make no command: with what is wrong, or with the help or the version when these were
    /// asked for.
    pub(crate) fn misused(&self, error: &clap::Error) -> ExitCode {
        if error.use_stderr() {
            let said = error.render().to_string();
            let said = said.strip_prefix("error: ").unwrap_or(&said);
            return self.failed(Code::Usage, said.trim_end());
        }
        match error.print() {
            Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
                self.fail(&anyhow::Error::new(NotWritten(cause)))
            }
            _ => ExitCode::SUCCESS,
        }
    }

    /// A word on long work, on standard error, if somebody is looking.
    pub(crate) fn progress(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[2K{text}");
            let _ = stderr.flush();
        }
    }

    /// What the answer lacks, on standard error: it is no part of it, and no failure.
    pub(crate) fn note(&self, text: &str) {
        self.progress_done();
        let _ = writeln!(io::stderr().lock(), "note: {}", without_passwords(text));
    }

    /// Ends the line of progress.
    pub(crate) fn progress_done(&self) {
        self.progress("");
    }

    /// Tells what went wrong and gives the exit code.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> ExitCode {
        self.progress_done();
        // The chain's texts once each: a cause is often quoted by what wraps it.
        let mut message = String::new();
        for cause in error.chain() {
            let text = cause.to_string();
            if !message.contains(&text) {
                if !message.is_empty() {
                    message.push_str(": ");
                }
                message.push_str(&text);
            }
        }
        self.failed(code(error), &message)
    }

    fn failed(&self, code: Code, message: &str) -> ExitCode {
        // Whatever quoted it: an argument that was refused, a library's error.
        let message = without_passwords(message);
        let code = code as u8;
        let failure = Failure { error: Explained { code, message: message.clone() } };
        let told = self.json && self.print(&failure, |_| String::new()).is_ok();
        if !told {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr().lock(), "error: {message}");
        }
        ExitCode::from(code)
    }
}

fn code(error: &anyhow::Error) -> Code {
    for cause in error.chain() {
        if cause.is::<BadInput>() {
            return Code::Usage;
        }
        if let Some(error) = cause.downcast_ref::<postgres::OpenError>() {
            return match error {
                postgres::OpenError::BadUrl { .. } | postgres::OpenError::BadSetting { .. } => Code::Usage,
                _ => Code::Unusable,
            };
        }
        if cause.is::<OpenError>() || cause.is::<LogError>() || cause.is::<Unusable>() {
            return Code::Unusable;
        }
        if cause.is::<Broken>() {
            return Code::Broken;
        }
        if let Some(error) = cause.downcast_ref::<AppendError>() {
            return append(error);
        }
        if let Some(error) = cause.downcast_ref::<ReadError>() {
            return read(error);
        }
        match cause.downcast_ref::<DeadLetterError>() {
            Some(DeadLetterError::Unknown(_)) => return Code::Usage,
            Some(DeadLetterError::Read(error)) => return read(error),
            Some(DeadLetterError::Write(TransactError::Store(error))) => return append(error),
            _ => {}
        }
        // A service that could not be started has said by its own exit code what is wrong.
        if let Some(failed) = cause.downcast_ref::<supervisor::Failed>() {
            let said = |code: &Code| failed.code == Some(*code as i32);
            return [Code::Usage, Code::Unusable, Code::Broken]
                .into_iter()
                .find(said)
                .unwrap_or(Code::Failed);
        }
        if let Some(error) = cause.downcast_ref::<TimelineError>() {
            return read(&error.why);
        }
    }
    Code::Failed
}

fn append(error: &AppendError) -> Code {
    match error {
        AppendError::Refused(refusal) => refused(refusal),
        AppendError::Unknown { .. } => Code::Unknown,
    }
}

fn read(error: &ReadError) -> Code {
    match error {
        ReadError::Damaged { .. } => Code::Broken,
        ReadError::Unavailable { .. } => Code::Unusable,
        _ => Code::Usage,
    }
}

fn refused(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Invalid { .. } => Code::Usage,
        Refusal::Unavailable { .. } => Code::Unusable,
        _ => Code::Refused,
    }
}
