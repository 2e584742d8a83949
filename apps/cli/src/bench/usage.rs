//! What processes, cores and disk are doing, as the kernel counts it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    /// CPU time, its own and the kernel's for it.
    pub(crate) cpu: Duration,
    /// Memory in RAM.
    pub(crate) memory_bytes: u64,
}

impl Process {
    /// None when there is no such process, or the kernel does not say.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which stands in brackets and may hold anything: fields 14 and 15 of the line.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let memory_bytes = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
        Some(Self { cpu, memory_bytes })
    }
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// How busy cores and disk are, from a moment on.
pub(crate) struct Busy {
    began: Instant,
    cores: Option<(u64, u64)>,
    disk: Option<(String, u64)>,
}

/// Shares of the time that was looked at, 0 to 1.
pub(crate) struct Shares {
    pub(crate) cores: f64,
    /// None where the folder is on no device that the kernel counts.
    pub(crate) disk: Option<f64>,
}

impl Busy {
    /// From now on, with the disk that holds this folder.
    pub(crate) fn of(folder: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(folder).ok().map(|metadata| {
            let device = metadata.dev();
            format!("{} {}", rustix::fs::major(device), rustix::fs::minor(device))
        });
        let disk = device.and_then(|device| Some((device.clone(), disk_ms(&device)?)));
        Self { began: Instant::now(), cores: core_ticks(), disk }
    }

    pub(crate) fn until_now(self) -> Shares {
        let cores = core_ticks().zip(self.cores).map_or(f64::NAN, |((busy, all), (was_busy, was_all))| {
            (busy - was_busy) as f64 / (all - was_all).max(1) as f64
        });
        let elapsed = self.began.elapsed().as_millis().max(1) as f64;
        let disk = self.disk.and_then(|(device, before)| Some((disk_ms(&device)? - before) as f64 / elapsed));
        Shares { cores, disk: disk.map(|share| share.min(1.0)) }
    }
}

/// Ticks of all cores so far: in use, and all.
fn core_ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
    let all: u64 = ticks.iter().take(8).sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

/// Milliseconds in which a device had requests under way, so far.
fn disk_ms(device: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/diskstats").ok()?;
    let line = text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(..2)?.join(" ") == device).then_some(words)
    })?;
    line.get(12)?.parse().ok()
}
