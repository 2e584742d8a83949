//! The machine at the moment of a measurement: absolute figures mean nothing without it.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// What the disk and the cores could do when the figures were taken.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// One 4 KiB overwrite and fdatasync, median, in microseconds.
    pub(crate) fdatasync_p50_us: u64,
    /// The same, 99th percentile.
    pub(crate) fdatasync_p99_us: u64,
    /// The share of time, in percent of the last ten seconds, in which some task waited for a core
    /// (Linux pressure stall information); none where the kernel does not say.
    pub(crate) cpu_pressure_some_avg10: Option<f64>,
    /// Cores.
    pub(crate) cores: usize,
}

impl Machine {
    /// Takes about half a second.
    pub(crate) fn probe(folder: &Path) -> Result<Self> {
        let path = folder.join("fdatasync.probe");
        let mut latencies = (|| -> std::io::Result<Vec<u64>> {
            let mut file = File::create(&path)?;
            file.write_all(&vec![0; 8 << 20])?;
            file.sync_all()?;
            let block = [1u8; 4096];
            let (began, mut latencies) = (Instant::now(), Vec::new());
            for n in 0u64.. {
                let start = Instant::now();
                file.seek(SeekFrom::Start(n % 2048 * 4096))?;
                file.write_all(&block)?;
                file.sync_data()?;
                latencies.push(start.elapsed().as_micros() as u64);
                if began.elapsed() > Duration::from_millis(400) {
                    break;
                }
            }
            Ok(latencies)
        })()
        .with_context(|| format!("{}: the disk could not be probed", folder.display()))?;
        std::fs::remove_file(&path)?;
        latencies.sort_unstable();
        Ok(Self {
            fdatasync_p50_us: latencies[latencies.len() / 2],
            fdatasync_p99_us: latencies[latencies.len() * 99 / 100],
            cpu_pressure_some_avg10: pressure(),
            cores: std::thread::available_parallelism()?.get(),
        })
    }
}

fn pressure() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    text.lines()
        .find(|line| line.starts_with("some"))?
        .split("avg10=")
        .nth(1)?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

/// The most memory this process has had in RAM, in bytes, where the kernel says so.
pub(crate) fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

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
