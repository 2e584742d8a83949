//! The shop as a child of the benchmark: the same binary, run as a user runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::usage::{self, Process};
use crate::folder::Service;

/// The shop is up within so long, and down again.
const WITHIN: Duration = Duration::from_secs(60);

/// What a service says when it ends, before its numbers: see [`commits_line`].
const COMMITS: &str = "commits: ";

/// What a service says when it ends.
pub(crate) fn commits_line(store: u64, log: u64) -> String {
    format!("{COMMITS}{store} to the store, {log} to the log")
}

/// What each service has used.
pub(super) type Processes = Vec<(Service, Process)>;

/// A running shop.
pub(super) struct Shop {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    urls: BTreeMap<Service, String>,
    pids: BTreeMap<Service, u32>,
}

impl Shop {
    /// Starts it on free ports and waits until it takes orders.
    pub(super) async fn start(data: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file can't be found")?;
        let mut child = Command::new(program)
            .args(["up", "--json", "--port-base", "0", "--seed-demo", "false", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("`mainstay up` can't be started")?;
        let stdout = child.stdout.take().context("the shop has no output")?;
        let lines = BufReader::new(stdout).lines();
        let mut shop = Self { child, lines, urls: BTreeMap::new(), pids: BTreeMap::new() };
        match tokio::time::timeout(WITHIN, shop.until_up()).await {
            Ok(up) => up.map(|()| shop),
            Err(_) => bail!("the shop was not up within {WITHIN:?}; nothing was measured"),
        }
    }

    async fn until_up(&mut self) -> Result<()> {
        while let Some(line) = self.lines.next_line().await? {
            let line: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
            let named =
                |name: &Value| Service::ALL.into_iter().find(|service| Some(service.name()) == name.as_str());
            if let (Some(service), Some(pid)) = (named(&line["service"]), line["pid"].as_u64()) {
                self.pids.insert(service, u32::try_from(pid)?);
            }
            if line["event"] == "up" {
                for service in Service::ALL {
                    let url = line["urls"][service.name()].as_str().context("a service without a URL")?;
                    self.urls.insert(service, url.to_owned());
                }
                return Ok(());
            }
        }
        bail!("the shop ended before it was up; nothing was measured")
    }

    pub(super) fn url(&self, service: Service) -> &str {
        self.urls.get(&service).map_or("", String::as_str)
    }

    /// What each service has used so far.
    pub(super) fn processes(&self) -> Result<Processes> {
        self.pids
            .iter()
            .map(|(service, pid)| {
                let process = Process::of(*pid).with_context(|| {
                    format!("{service} is not running any more: it was restarted meanwhile")
                })?;
                Ok((*service, process))
            })
            .collect()
    }

    /// Ends it as Ctrl-C does; how often each service has committed, where it says so.
    pub(super) async fn end(mut self) -> Result<BTreeMap<Service, u64>> {
        let pid = self.child.id().context("the shop has ended by itself")?;
        usage::terminate(pid)?;
        let mut commits = BTreeMap::new();
        let ended = async {
            while let Some(line) = self.lines.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                let service = Service::ALL.into_iter().find(|s| Some(s.name()) == line["service"].as_str());
                let said = line["line"].as_str().and_then(|line| line.strip_prefix(COMMITS));
                if let (Some(service), Some(said)) = (service, said) {
                    let numbers =
                        said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
                    commits.insert(service, numbers.sum());
                }
            }
            anyhow::Ok(self.child.wait().await?)
        };
        match tokio::time::timeout(WITHIN, ended).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(commits),
            Ok(status) => bail!("the shop ended with {}", status?),
            Err(_) => bail!("the shop did not end within {WITHIN:?}"),
        }
    }
}
