//! A file system of memory that can be made full and wide again, for a server's whole data.
//!
//! Full is what it holds at that moment, and a little: no ballast has to be written. Memory forgets in a power cut, which
//! is none of these faults.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{self, Ended};

/// Wide enough for a run, and no more than that is ever taken from the machine.
const WIDE: &str = "size=4g";

/// No mount takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A mounted one; unmounted when dropped.
pub(super) struct SmallDisk {
    pub(super) folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it. Needs the rights to do so.
    pub(super) fn mount() -> Result<SmallDisk> {
        let folder = std::env::temp_dir().join(format!("mainstay-small-disk-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        let made = SmallDisk { folder };
        let why = "the rounds with a full disk mount a tmpfs, which needs root; leave them out with --fault";
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("{WIDE},mode=755"), "tmpfs"])
            .arg(&made.folder))
        .context(why)?;
        Ok(made)
    }

    /// Leaves so many bytes.
    pub(super) fn fill(&self, left: u64) -> Result<()> {
        let used = used(&self.folder)?;
        self.resize(&format!("size={}", used + left))
    }

    pub(super) fn widen(&self) -> Result<()> {
        self.resize(WIDE)
    }

    fn resize(&self, size: &str) -> Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(&self.folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still holds a file there loses it when it lets go.
        let unmounted = run(Command::new("umount").arg("--lazy").arg(&self.folder));
        if unmounted.and_then(|()| std::fs::remove_dir(&self.folder).map_err(Into::into)).is_err() {
            eprintln!("{} may still be mounted; umount it and remove the folder", self.folder.display());
        }
    }
}

/// Bytes in use.
fn used(folder: &Path) -> Result<u64> {
    let output = Command::new("df").args(["--output=used", "-B1"]).arg(folder).output().context("df")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().and_then(|line| line.trim().parse().ok()).context("df says nothing of a number")
}

fn run(command: &mut Command) -> Result<()> {
    match process::run(command, LIMIT)? {
        Ended::Exited(status) if status.success() => Ok(()),
        ended => bail!("{command:?}: {ended:?}"),
    }
}
