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
            cores: cores()?,
        })
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// See [`Machine::cpu_pressure_some_avg10`].
pub(crate) fn pressure() -> Option<f64> {
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
