//! A Redis server of our own, and its own load generator.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::cpu;

const MISSING: &str = "it is part of the comparison; to install it: apt-get install redis-server";

/// The stream that everything is added to. One, because that is what Redis is fastest at.
const STREAM: &str = "events";

/// An empty server is up within milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The version of the server that is installed.
pub(crate) async fn version() -> Result<String> {
    let text = run(Command::new("redis-server").arg("--version")).await?;
    // "Redis server v=7.0.15 sha=…"
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    version.map(str::to_owned).with_context(|| format!("redis-server --version said: {text}"))
}

/// One load: what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    /// Records added in a second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the server for each record, without its client's; none where the kernel does not say.
    pub(crate) cpu_us: Option<f64>,
}

/// A process that is killed, and gone, when this is dropped: on an error and on Ctrl-C too.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for already. The wait is short: nobody refuses a kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server on a port and in a folder of its own, both of which it has until it is dropped.
pub(crate) struct Server {
    process: Process,
    port: u16,
    folder: PathBuf,
    added: u64,
}

impl Server {
    /// Starts one in a folder that it makes, with every acknowledged write on disk.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        let mut said = String::new();
        // Between our look for a free port and its bind somebody else may take it.
        for _ in 0..3 {
            match Self::try_start(folder).await? {
                Ok(server) => return Ok(server),
                Err(last) => said = last,
            }
        }
        bail!("redis-server does not come up; nothing was measured with it; it said:\n{said}")
    }

    /// The inner error is what the server said before it gave up.
    async fn try_start(folder: &Path) -> Result<Result<Self, String>> {
        let port = free_port()?;
        let mut child = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--loglevel", "notice", "--logfile", ""])
            // The log is never written anew in the middle of a run: that would be work the store is spared.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for us; we end the server.
            .process_group(0)
            .spawn()
            .with_context(|| format!("redis-server can't be started: {MISSING}"))?;
        let output = child.stdout.take();
        let server = Self { process: Process(child), port, folder: folder.to_owned(), added: 0 };
        let ready = ready(output.context("redis-server has no output")?);
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(said))) => return Ok(Err(said)),
            Ok(Err(_)) => bail!("the thread that reads redis-server's output has gone"),
            Err(_) => bail!("redis-server is not ready after {} s; it was ended", START_LIMIT.as_secs()),
        }
        let setting = server.ask(&["CONFIG", "GET", "appendfsync"]).await?;
        ensure!(setting.ends_with("always"), "redis-server does not sync each write: {setting}");
        Ok(Ok(server))
    }

    /// Adds `records` of an id and `payload` bytes from so many clients, each of which waits for its answer.
    pub(crate) async fn add(&mut self, clients: u32, records: u64, payload: usize) -> Result<Measured> {
        let pid = self.process.0.id();
        let before = cpu::used_us(pid);
        let text = run(Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--csv"])
            .args(["-c", &clients.to_string(), "-n", &records.to_string()])
            .args(["XADD", STREAM, "*", "id", "01935f3e-8a4b-7c21-9d65-0242ac120002", "data"])
            .arg("x".repeat(payload)))
        .await?;
        let used = cpu::used_us(pid).zip(before).map(|(after, before)| (after - before) as f64);
        let mut measured = parse(&text).with_context(|| format!("redis-benchmark printed:\n{text}"))?;
        measured.cpu_us = used.map(|us| us / records as f64);
        self.added += records;
        // What was not stored, or not written, was not measured.
        let stored: u64 = self.ask(&["XLEN", STREAM]).await?.parse().context("XLEN is no number")?;
        ensure!(stored == self.added, "{} records were added to Redis, it has {stored}", self.added);
        let written = bytes_in(&self.folder)?;
        let least = self.added * payload as u64;
        ensure!(written >= least, "Redis has written {written} bytes of at least {least} to its log");
        Ok(measured)
    }

    async fn ask(&self, words: &[&str]) -> Result<String> {
        let mut tool = Command::new("redis-cli");
        tool.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(words);
        Ok(run(&mut tool).await?.trim().to_owned())
    }

    /// Ends the server and removes its folder.
    pub(crate) fn stop(self) -> Result<()> {
        drop(self.process);
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("{} can't be removed", self.folder.display()))
    }
}

/// Says when the server takes connections; when it ends before, what it said.
///
/// A thread goes on emptying the pipe: a full one would make the server wait.
fn ready(output: impl std::io::Read + Send + 'static) -> oneshot::Receiver<Result<(), String>> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let is_up = lines.by_ref().any(|line| {
            let is_up = line.contains("Ready to accept connections");
            said.push(line);
            is_up
        });
        // Nobody listens any more when it took too long.
        let _ = tell.send(if is_up { Ok(()) } else { Err(said.join("\n")) });
        lines.for_each(drop);
    });
    told
}

/// A port of the loopback interface that nobody uses at this moment.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

/// The sizes of all files below a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { bytes_in(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}

/// What a tool printed, when it exited 0. Dropped, the tool is killed.
async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().display().to_string();
    let ended = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).output().await;
    let Output { status, stdout, stderr } =
        ended.with_context(|| format!("{name} can't be started: {MISSING}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.success(), "{name} ended with {status}: {stdout}{}", String::from_utf8_lossy(&stderr));
    Ok(stdout)
}

/// Reads the last line of `redis-benchmark --csv`: the command, then rate, and latencies in milliseconds
/// (mean, least, p50, p95, p99, most).
fn parse(text: &str) -> Option<Measured> {
    let line = text.trim_end().lines().last()?;
    let mut columns = line.rsplit("\",\"").map(|column| column.trim_matches('"').parse::<f64>());
    let mut next = || columns.next()?.ok();
    let (_most, p99, _p95, p50, _least, _mean, rate) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    Some(Measured { rate, p50_us: p50 * 1_000.0, p99_us: p99 * 1_000.0, cpu_us: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_table_is_read_from_its_end() {
        let text = concat!(
            r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#,
            "\n",
            r#""XADD events * data ","",""x","45662.10","0.345","0.120","0.335","0.447","0.543","1.215""#,
            "\n"
        );
        let measured = Measured { rate: 45_662.10, p50_us: 335.0, p99_us: 543.0, cpu_us: None };
        assert_eq!(parse(text), Some(measured));
        assert_eq!(parse(text.lines().next().unwrap()), None);
        assert_eq!(parse("Could not connect"), None);
    }

    #[tokio::test]
    async fn a_tool_that_is_missing_or_fails_says_so() {
        let missing = run(&mut Command::new("no-such-program-anywhere")).await.unwrap_err();
        assert!(missing.to_string().contains("apt-get install redis-server"), "{missing:#}");
        let failed = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).await.unwrap_err();
        assert!(failed.to_string().contains("exit status: 3: why"), "{failed:#}");
    }

    #[tokio::test]
    async fn what_a_server_said_before_it_gave_up_is_kept() {
        let up = &b"one\n# Ready to accept connections\nmore\n"[..];
        assert_eq!(ready(up).await, Ok(Ok(())));
        let down = &b"one\nAddress already in use\n"[..];
        assert_eq!(ready(down).await, Ok(Err("one\nAddress already in use".into())));
    }

    /// Needs Redis, as the whole program does.
    #[tokio::test]
    async fn a_server_stores_what_is_added_and_ends_when_it_is_dropped() {
        let folder = std::env::temp_dir().join(format!("mainstay-bench-peers-test-{}", std::process::id()));
        let mut server = Server::start(&folder).await.unwrap();
        let measured = server.add(4, 400, 250).await.unwrap();
        assert!(measured.rate > 0.0 && measured.p99_us >= measured.p50_us, "{measured:?}");
        server.added += 1;
        let short = server.add(1, 10, 250).await.unwrap_err();
        assert!(short.to_string().contains("411 records were added to Redis, it has 410"), "{short:#}");

        let pid = server.process.0.id();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the server, or its zombie, is still there");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
