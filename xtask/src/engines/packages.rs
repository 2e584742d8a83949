//! Debian packages, installed when a program of theirs is missing, and without starting what they bring.
//!
//! A server package starts its service, and PostgreSQL's makes a first cluster as well. Both would stand in the way of
//! what a developer runs on purpose; two files that Debian's own scripts look for prevent it, and are gone afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use super::tool;

const INSTALL_MAX: Duration = Duration::from_secs(600);

/// What stands in the file, so that one that a killed run has left is known as ours.
const NO_STARTS: &str =
    "#!/bin/sh\n# cargo xtask engines: no service starts while its package is installed.\nexit 101\n";

const NO_CLUSTER: &str =
    "# cargo xtask engines: no first cluster while the package is installed.\ncreate_main_cluster = false\n";

/// Installs the packages that bring `missing`; each is a program and its package.
///
/// # Errors
/// When they can't be installed: what is missing, what failed, and what to do.
pub(crate) fn install(missing: &[(&str, &str)]) -> Result<()> {
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let wanted = packages.join(" ");
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let lack = format!("{} can't be found on this machine", programs.join(", "));
    let Some(apt) = tool::on_path("apt-get") else {
        bail!("{lack}, and there is no apt-get to install it with; Debian has it in {wanted}");
    };
    if !geteuid().is_root() {
        bail!(
            "{lack}, and only root may install packages; to do it: sudo apt-get install --no-install-recommends {wanted}"
        );
    }
    eprintln!("engines: {lack}; installing {wanted}");
    let shield = Shield::raise(Path::new("/"))?;
    let attempt = |words: &[&str]| {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120"]).args(words);
        tool::finish(&mut command, "", INSTALL_MAX)
    };
    let mut words = vec!["install", "--no-install-recommends"];
    words.extend(&packages);
    let mut finished = attempt(&words)?;
    if !finished.success {
        // The machine's list of packages may be older than what its mirror still has, or empty.
        let update = attempt(&["update"])?;
        finished = if update.success { attempt(&words)? } else { update };
    }
    drop(shield);
    if !finished.success {
        bail!(
            "{lack}, and apt-get could not install {wanted}; nothing was started. Is there a network, and is a mirror \
             named in /etc/apt? To see more: apt-get update && apt-get install --no-install-recommends {wanted}\n{}",
            finished.said
        );
    }
    Ok(())
}

/// While it lives, packages start no service and make no cluster.
struct Shield {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Shield {
    /// `root` is `/`, or a test's folder in its place.
    fn raise(root: &Path) -> Result<Shield> {
        let mut shield = Shield { files: Vec::new(), folders: Vec::new() };
        // invoke-rc.d and deb-systemd-invoke ask this program before they start anything; 101 forbids it.
        shield.put(root.join("usr/sbin/policy-rc.d"), NO_STARTS, 0o755)?;
        // pg_createcluster's defaults include every file in there.
        shield.put(root.join("etc/postgresql-common/createcluster.d/mainstay.conf"), NO_CLUSTER, 0o644)?;
        Ok(shield)
    }

    /// Puts a file where none is. The administrator's own stays: it says what this machine may do.
    fn put(&mut self, file: PathBuf, text: &str, mode: u32) -> Result<()> {
        let failed = || format!("{} can't be written, so nothing was installed", file.display());
        match fs::read_to_string(&file) {
            Ok(found) if found == text => {}
            Ok(_) => return Ok(()),
            Err(_) => {
                let folder = file.parent().with_context(failed)?;
                let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
                self.folders.extend(missing.into_iter().map(Path::to_path_buf));
                fs::create_dir_all(folder).with_context(failed)?;
                fs::write(&file, text).with_context(failed)?;
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).with_context(failed)?;
            }
        }
        self.files.push(file);
        Ok(())
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(error) = fs::remove_file(file) {
                eprintln!("engines: {} has to be removed by hand: {error}", file.display());
            }
        }
        for folder in &self.folders {
            // Not empty any more when the package has put something there, and then it is the package's.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "usr/sbin/policy-rc.d";
    const CLUSTER: &str = "etc/postgresql-common/createcluster.d/mainstay.conf";

    #[test]
    fn a_shield_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let shield = Shield::raise(root.path()).unwrap();
        let mode = fs::metadata(root.path().join(POLICY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "a policy that can't be run forbids nothing");
        assert!(
            fs::read_to_string(root.path().join(CLUSTER)).unwrap().contains("create_main_cluster = false")
        );
        drop(shield);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_package_put_beside_the_shield_stays() {
        let root = tempfile::tempdir().unwrap();
        let shield = Shield::raise(root.path()).unwrap();
        let beside = root.path().join("etc/postgresql-common/createcluster.conf");
        fs::write(&beside, "ssl = on\n").unwrap();
        drop(shield);
        assert!(beside.exists());
        assert!(!root.path().join("etc/postgresql-common/createcluster.d").exists());
    }

    #[test]
    fn the_administrators_policy_stays_and_a_killed_runs_goes() {
        let root = tempfile::tempdir().unwrap();
        let policy = root.path().join(POLICY);
        fs::create_dir_all(policy.parent().unwrap()).unwrap();
        for (text, stays) in [("#!/bin/sh\nexit 104\n", true), (NO_STARTS, false)] {
            fs::write(&policy, text).unwrap();
            drop(Shield::raise(root.path()).unwrap());
            assert_eq!(policy.exists(), stays, "{text}");
        }
    }
}
