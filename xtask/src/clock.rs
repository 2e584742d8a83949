//! Jumps of the wall clock: what the rules decide, and when, is the same while it jumps to and fro by an hour.
//!
//! The clock of one child process is stepped, by Debian's libfaketime, never the machine's. The child is the example
//! `timeline` of the rules, built from this tree: a circuit breaker's open time, a token bucket, deadlines, a cache's
//! TTL and the waits of retries, written down in tenths of a second. It runs once as it is and once while the clock
//! jumps, and writes the same. It counts the jumps itself: a run that saw none proves nothing and fails.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{engines, examples, process, tree};

/// What the wall clock says, one after the other: seconds beside the truth.
const OFFSETS_S: [i32; 4] = [3_600, 0, -3_600, 0];

/// How long each holds. No divisor of the tenths in which the timeline is written.
const HOLD: Duration = Duration::from_millis(37);

/// A run of two seconds that goes on for so long hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Fewer jumps than this in two seconds: the library does not do what it is here for.
const JUMPS_MIN: u32 = 20;

/// A process that is woken later than this writes another tenth, whatever its clock.
const LATE_MS_MAX: u64 = 40;

/// How often a run is repeated on a machine that is too busy.
const TRIES: u32 = 5;

/// Takes no argument.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the timeline with and without jumps. True when both say the same.
pub(crate) fn run(_: &Arguments) -> Result<bool> {
    let library = library()?;
    let program = examples::build_one("mainstay-resilience", "timeline")?;
    let folder = tree::root()?.join("target/clock");
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let plain = in_time(|| once(&program, None))?;
    ensure!(
        plain.jumps == 0,
        "the machine's own wall clock jumped {} times meanwhile; run it again",
        plain.jumps
    );
    let stepped = in_time(|| once(&program, Some((&library, &folder.join("offset")))))?;
    ensure!(
        stepped.jumps >= JUMPS_MIN,
        "the wall clock of the child jumped {} times, not {JUMPS_MIN} at least: {} does not work here, so nothing is \
         shown",
        stepped.jumps,
        library.display()
    );
    let differences = differences(&plain.lines, &stepped.lines);
    for (as_it_is, jumping) in &differences {
        eprintln!("clock: without jumps: {as_it_is}\n       with jumps:    {jumping}");
    }
    let same = differences.is_empty();
    let verdict = if same { "the same timeline" } else { "ANOTHER timeline" };
    eprintln!("clock: {} jumps of an hour, {verdict} of {} lines", stepped.jumps, plain.lines.len());
    Ok(same)
}

/// The library, installed if it is missing.
fn library() -> Result<PathBuf> {
    const NAME: &str = "libfaketimeMT.so.1";
    // Debian puts it into a folder of the machine's architecture.
    if let Some(found) = find(Path::new("/usr/lib"), NAME) {
        return Ok(found);
    }
    engines::install(&[(NAME, "libfaketime")])?;
    find(Path::new("/usr/lib"), NAME).with_context(|| {
        format!("the package libfaketime is installed, and /usr/lib/*/faketime/{NAME} is not there")
    })
}

fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        folders.map(|folder| folder.join("faketime").join(name)).filter(|file| file.is_file()).collect();
    found.sort();
    found.into_iter().next()
}

/// What one run wrote.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    lines: Vec<String>,
    jumps: u32,
    late_ms: u64,
}

/// A run that was not held up by whatever else this machine does.
fn in_time(mut once: impl FnMut() -> Result<Run>) -> Result<Run> {
    let mut late_ms = 0;
    for _ in 0..TRIES {
        let run = once()?;
        if run.late_ms <= LATE_MS_MAX {
            return Ok(run);
        }
        late_ms = run.late_ms;
    }
    bail!(
        "this machine is too busy: {TRIES} times a thread was woken late, by {late_ms} ms in the end; nothing is shown"
    )
}

/// Runs the program once; with a library and a file, while its wall clock jumps.
fn once(program: &Path, stepped: Option<(&Path, &Path)>) -> Result<Run> {
    let mut command = Command::new(program);
    process::without_package(&mut command);
    if let Some((library, offsets)) = stepped {
        step(offsets, 0)?;
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", offsets)
            .env("FAKETIME_NO_CACHE", "1")
            // Only the wall clock: nothing ever steps a monotonic one. By its present name and its former one.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} can't be started", program.display()))?;
    let lines = reader(child.stdout.take());
    let figures = reader(child.stderr.take());
    let ended = to_its_end(&mut child, stepped.map(|(_, offsets)| offsets));
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    let (lines, figures) = (text(lines), text(figures));
    ended.with_context(|| format!("{}\n{lines}{figures}", program.display()))?;
    let lines = lines.lines().map(str::to_owned).collect::<Vec<_>>();
    ensure!(!lines.is_empty(), "{} wrote nothing", program.display());
    Ok(Run { lines, jumps: figure(&figures, "jumps")?, late_ms: figure(&figures, "late_ms")? })
}

fn reader(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            // What can't be read is missed by whoever looks for it in the text.
            let _ = stream.read_to_string(&mut text);
        }
        text
    })
}

/// Waits for the child and makes its clock jump meanwhile.
fn to_its_end(child: &mut Child, offsets: Option<&Path>) -> Result<()> {
    let began = Instant::now();
    for offset in OFFSETS_S.iter().cycle() {
        if let Some(status) = child.try_wait().context("the child can't be waited for")? {
            ensure!(status.success(), "it ended with {status}");
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "it was still running after {} s and was killed", LIMIT.as_secs());
        ensure!(!process::interrupted(), "interrupted; it was killed");
        if let Some(offsets) = offsets {
            step(offsets, *offset)?;
        }
        thread::sleep(HOLD);
    }
    Ok(())
}

/// Tells the library the next offset, as a whole: it reads the file at every look at the clock.
fn step(file: &Path, offset_s: i32) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{offset_s:+}\n"))
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("{} can't be written", file.display()))
}

fn figure<T: std::str::FromStr>(text: &str, name: &str) -> Result<T> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.with_context(|| format!("the timeline does not say {name}: {text}"))
}

/// The lines that are not the same, side by side.
fn differences(one: &[String], other: &[String]) -> Vec<(String, String)> {
    let line = |lines: &[String], n: usize| lines.get(n).cloned().unwrap_or_else(|| "(nothing)".to_owned());
    (0..one.len().max(other.len()))
        .map(|n| (line(one, n), line(other, n)))
        .filter(|(one, other)| one != other)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_that_is_other_or_missing_is_a_difference() {
        let one = lines("a\nb\nc");
        assert_eq!(differences(&one, &one), []);
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(differences(&one, &lines("a\nx")), [pair("b", "x"), pair("c", "(nothing)")]);
        assert_eq!(differences(&[], &lines("a")), [pair("(nothing)", "a")]);
    }

    #[test]
    fn what_the_run_says_of_itself_is_read_and_missed() {
        let text = "warning: whatever\njumps 44\nlate_ms 3\n";
        assert_eq!((figure::<u32>(text, "jumps").unwrap(), figure::<u64>(text, "late_ms").unwrap()), (44, 3));
        assert!(figure::<u32>("", "jumps").is_err());
        assert!(figure::<u32>("jumps many", "jumps").is_err());
    }

    #[test]
    fn a_run_that_was_held_up_is_repeated_and_a_busy_machine_shows_nothing() {
        let run = |late_ms| Run { lines: Vec::new(), jumps: 0, late_ms };
        let mut left = vec![run(3), run(LATE_MS_MAX + 1)];
        assert_eq!(in_time(|| Ok(left.pop().unwrap())).unwrap(), run(3));
        assert!(in_time(|| Ok(run(LATE_MS_MAX + 1))).is_err());
    }

    #[test]
    fn the_library_is_found_in_whatever_architectures_folder() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path(), "lib.so"), None);
        let folder = root.path().join("some-linux/faketime");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("lib.so"), "").unwrap();
        assert_eq!(find(root.path(), "lib.so"), Some(folder.join("lib.so")));
    }

    #[test]
    fn an_offset_has_its_sign() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offset");
        for (offset, text) in [(3_600, "+3600\n"), (-3_600, "-3600\n"), (0, "+0\n")] {
            step(&file, offset).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }
}
