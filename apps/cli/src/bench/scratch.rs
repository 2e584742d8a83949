//! Where a benchmark writes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::output::BadInput;

/// A folder for one run, removed at its end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it in a folder that is there.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let why = format!("--dir {}: there is no such folder; nothing was measured", dir.display());
            return Err(BadInput(why).into());
        }
        let folder = dir.join(format!("mainstay-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| {
            format!("{}: no folder could be made there; nothing was measured", folder.display())
        })?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is named by the next run's error, should it matter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
