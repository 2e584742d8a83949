//! PostgreSQL's own programs, wherever this machine has them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::{packages, tool};

/// The oldest server that is supported: the one of Debian 12.
const VERSION_MIN: u32 = 15;

/// Where Debian puts them, one folder for each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

const NEEDED: [&str; 5] = ["initdb", "pg_basebackup", "pg_ctl", "postgres", "psql"];

/// What a cluster needs of this machine.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// The folder of the server's programs.
    bin: PathBuf,
    pub(super) version: u32,
    pub(super) pgbouncer: PathBuf,
    pub(super) openssl: PathBuf,
}

impl Programs {
    /// Finds them; what is missing is installed from Debian's packages.
    pub(super) fn find_or_install() -> Result<Programs> {
        let missing = missing(
            server(Path::new(DEBIAN)).is_some(),
            tool::on_path("pgbouncer").is_some(),
            tool::on_path("openssl").is_some(),
        );
        if !missing.is_empty() {
            packages::install(&missing)?;
        }
        Programs::find()
    }

    /// Finds them, installs nothing.
    pub(super) fn find() -> Result<Programs> {
        let Some((version, bin)) = server(Path::new(DEBIAN)) else {
            bail!(
                "PostgreSQL {VERSION_MIN} or newer can't be found in {DEBIAN} nor in PATH; `cargo xtask engines up \
                 postgres` as root installs it"
            );
        };
        let found = |name: &str| {
            tool::on_path(name).with_context(|| {
                format!("{name} can't be found; `cargo xtask engines up postgres` as root installs it")
            })
        };
        Ok(Programs { bin, version, pgbouncer: found("pgbouncer")?, openssl: found("openssl")? })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// What has to be installed: program and package.
fn missing(server: bool, pgbouncer: bool, openssl: bool) -> Vec<(&'static str, &'static str)> {
    let all = [
        (server, ("a PostgreSQL server", "postgresql")),
        (pgbouncer, ("pgbouncer", "pgbouncer")),
        (openssl, ("openssl", "openssl")),
    ];
    all.into_iter().filter_map(|(found, names)| (!found).then_some(names)).collect()
}

/// Version and folder of the newest server: Debian's, otherwise the one in `PATH`.
fn server(debian: &Path) -> Option<(u32, PathBuf)> {
    newest(debian).or_else(|| {
        let bin = tool::on_path("pg_ctl")?.parent()?.to_path_buf();
        let told =
            tool::succeed(Command::new(bin.join("postgres")).arg("--version"), "", Duration::from_secs(30));
        let version = major(&told.ok()?)?;
        (version >= VERSION_MIN && is_whole(&bin)).then_some((version, bin))
    })
}

fn newest(debian: &Path) -> Option<(u32, PathBuf)> {
    let folders = std::fs::read_dir(debian).ok()?.flatten();
    let versions = folders.filter_map(|folder| {
        let version: u32 = folder.file_name().to_str()?.parse().ok()?;
        let bin = folder.path().join("bin");
        (version >= VERSION_MIN && is_whole(&bin)).then_some((version, bin))
    });
    versions.max()
}

/// A package of clients alone has `psql` and no `initdb`.
fn is_whole(bin: &Path) -> bool {
    NEEDED.iter().all(|name| bin.join(name).is_file())
}

/// The major version in `postgres (PostgreSQL) 15.3 (Debian …)`.
fn major(told: &str) -> Option<u32> {
    let version =
        told.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_server_is_taken() {
        let debian = tempfile::tempdir().unwrap();
        let add = |version: &str, programs: &[&str]| {
            let bin = debian.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in programs {
                std::fs::write(bin.join(program), "").unwrap();
            }
        };
        add("9", &NEEDED);
        add("14", &NEEDED);
        assert_eq!(newest(debian.path()), None);
        add("15", &NEEDED);
        add("100", &["psql"]);
        add("note", &NEEDED);
        assert_eq!(newest(debian.path()), Some((15, debian.path().join("15/bin"))));
        add("16", &NEEDED);
        assert_eq!(newest(debian.path()).map(|(version, _)| version), Some(16));
        assert_eq!(newest(&debian.path().join("nowhere")), None);
    }

    #[test]
    fn a_server_tells_its_major_version() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres"), None);
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(true, true, true), []);
        assert_eq!(missing(true, false, true), [("pgbouncer", "pgbouncer")]);
        assert_eq!(
            missing(false, true, false).iter().map(|(_, package)| *package).collect::<Vec<_>>(),
            ["postgresql", "openssl"]
        );
    }
}
