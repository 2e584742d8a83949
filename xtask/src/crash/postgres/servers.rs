//! The servers of the rounds: an instance of their own, handled by the commands that a person would type.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use serde::Deserialize;

/// What `cargo xtask engines … --json` says.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    pub(super) leader: String,
    urls: Urls,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Deserialize)]
struct Urls {
    leader: String,
    admin: String,
}

#[derive(Debug, Deserialize)]
struct Node {
    port: u16,
    pid: Option<i32>,
}

/// One instance, gone with its data when this is dropped.
pub(super) struct Servers {
    own: PathBuf,
    instance: String,
    port_base: u16,
    /// A folder that its data goes to.
    data: Option<PathBuf>,
    pub(super) state: State,
    /// It stays when this is dropped: somebody will want to look at it.
    pub(super) keep: bool,
}

impl Servers {
    /// Brings a new one up.
    pub(super) fn up(instance: &str, port_base: u16, data: Option<&Path>) -> Result<Servers> {
        let own = std::env::current_exe().context("where is this program?")?;
        let port = port_base.to_string();
        // What an earlier run left is not what this one begins with.
        engines(&own, &["down", "postgres", "--purge", "--instance", instance])?;
        let data_text = data.map(|data| data.display().to_string());
        let mut words = vec!["up", "postgres", "--instance", instance, "--port-base", &port];
        words.extend(data_text.iter().flat_map(|data| ["--data", data.as_str()]));
        let state = serde_json::from_str(&engines(&own, &words)?)?;
        let (instance, data) = (instance.to_owned(), data.map(Path::to_path_buf));
        Ok(Servers { own, instance, port_base, data, state, keep: false })
    }

    /// Makes everything run that should, and replicas follow.
    pub(super) fn raise(&mut self) -> Result<()> {
        let (port, data) =
            (self.port_base.to_string(), self.data.as_ref().map(|data| data.display().to_string()));
        let mut words = vec!["up", "postgres", "--instance", &self.instance, "--port-base", &port];
        words.extend(data.iter().flat_map(|data| ["--data", data.as_str()]));
        self.state = serde_json::from_str(&engines(&self.own, &words)?)?;
        Ok(())
    }

    /// Does a fault, or mends one: the words after `engines fault postgres`.
    pub(super) fn fault(&mut self, words: &[&str]) -> Result<()> {
        let mut all = vec!["fault", "postgres"];
        all.extend(words);
        all.extend(["--instance", &self.instance]);
        self.state = serde_json::from_str(&engines(&self.own, &all)?)?;
        Ok(())
    }

    /// The leader, as clients know it.
    pub(super) fn url(&self) -> &str {
        &self.state.urls.leader
    }

    /// The leader, as its superuser.
    pub(super) fn admin(&self) -> &str {
        &self.state.urls.admin
    }

    /// The leader at another port of this machine.
    pub(super) fn url_at(&self, port: u16) -> Result<String> {
        let own = format!(":{}/", self.leader()?.port);
        Ok(self.url().replacen(&own, &format!(":{port}/"), 1))
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], self.leader()?.port)))
    }

    /// The replicas' processes that receive the leader's log.
    pub(super) fn receivers(&self) -> Vec<Pid> {
        let replicas = self.state.nodes.iter().filter(|(name, _)| **name != self.state.leader);
        let servers: Vec<i32> = replicas.filter_map(|(_, node)| node.pid).collect();
        let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        ids.filter(|id| is_receiver(*id, &servers)).filter_map(Pid::from_raw).collect()
    }

    fn leader(&self) -> Result<&Node> {
        self.state.nodes.get(&self.state.leader).context("the state file names no leader")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let again = format!("cargo xtask engines down postgres --purge --instance {}", self.instance);
        if self.keep {
            eprintln!("the servers run on, for a look at what was found; to end them: {again}");
        } else if let Err(error) =
            engines(&self.own, &["down", "postgres", "--purge", "--instance", &self.instance])
        {
            eprintln!("the servers may still run: {error:#}; to end them: {again}");
        }
    }
}

fn is_receiver(id: i32, servers: &[i32]) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse().ok());
    let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    parent.is_some_and(|parent: i32| servers.contains(&parent))
        && String::from_utf8_lossy(&words).contains("walreceiver")
}

/// One of our own commands; its JSON.
fn engines(own: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(own)
        .arg("engines")
        .args(words)
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .context("this program can't be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("engines {} failed: {}", words.join(" "), said.trim());
    }
    let text = String::from_utf8(output.stdout).context("an answer that is not UTF-8")?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}
