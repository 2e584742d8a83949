//! What an acknowledgement of a store file survives.

use std::path::Path;

use anyhow::Result;
use mainstay::postgres::durability::{Loss, Verdict, Window};
use mainstay::sqlite::{Options, Sqlite};
use serde_json::{Map, Value};

use super::found::Found;

/// A mounted file system, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    at: String,
    kind: String,
    /// Its own options, and those of this place, comma by comma.
    options: Vec<String>,
}

/// File systems in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// File systems on another machine.
const REMOTE: [&str; 11] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs"];

/// Options under which a disk is not asked to write what it holds.
const CARELESS: [&str; 3] = ["nobarrier", "barrier=0", "volatile"];

pub(super) fn look(path: &Path) -> Result<Found> {
    // It is a store, or it is told why not.
    Sqlite::open(Options::new(path).read_only())?.close();
    let whole = std::fs::canonicalize(path)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mount_of(&mounts, &whole.to_string_lossy());
    let mut settings = Map::new();
    let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), Value::from(value));
    // A store is opened with these and no others (mainstay-sqlite).
    set("journal_mode", "wal");
    set("synchronous", "full");
    if let Some(mount) = &mount {
        set("mount", &mount.at);
        set("file_system", &mount.kind);
        set("mount_options", &mount.options.join(","));
    }
    Ok(Found { settings, verdict: decide(mount.as_ref()) })
}

/// Decides from where the file is: the store itself syncs its write-ahead log before it acknowledges.
fn decide(mount: Option<&Mount>) -> Verdict {
    let mut notes = Vec::new();
    let careless =
        mount.and_then(|mount| mount.options.iter().find(|option| CARELESS.contains(&option.as_str())));
    let power = match (mount, careless) {
        (Some(mount), _) if IN_MEMORY.contains(&mount.kind.as_str()) => {
            Err(format!("{} at {} is in memory", mount.kind, mount.at))
        }
        (Some(mount), _) if REMOTE.contains(&mount.kind.as_str()) || mount.kind.starts_with("fuse") => {
            Err(format!(
                "{} at {} is not a disk of this machine: whether it syncs, and keeps locks, is not known",
                mount.kind, mount.at
            ))
        }
        (Some(mount), Some(option)) => Err(format!(
            "{} at {} is mounted with {option}: syncing does not reach the disk",
            mount.kind, mount.at
        )),
        (Some(_), None) => Ok(()),
        (None, _) => {
            notes.push("on which file system the file is could not be found out".to_owned());
            Ok(())
        }
    };
    let power = match power {
        Ok(()) => Window {
            loss: Loss::Nothing,
            why: "the write-ahead log is synced before an act is acknowledged".to_owned(),
        },
        Err(why) => Window { loss: Loss::Unbounded, why },
    };
    let crash = Window {
        loss: Loss::Nothing,
        why: "an act is handed to the system before it is acknowledged".to_owned(),
    };
    let why = "one file on one machine: everything since the last copy is lost with it".to_owned();
    Verdict { crash, power, failover: Window { loss: Loss::Unbounded, why }, notes }
}

/// The mount that a path is on (proc_pid_mountinfo(5)): the last one of the longest that it lies under.
fn mount_of(mounts: &str, path: &str) -> Option<Mount> {
    let mut found: Option<Mount> = None;
    for mount in mounts.lines().filter_map(mount) {
        let under = mount.at == "/"
            || path == mount.at
            || path.strip_prefix(&mount.at).is_some_and(|rest| rest.starts_with('/'));
        if under && found.as_ref().is_none_or(|found| mount.at.len() >= found.at.len()) {
            found = Some(mount);
        }
    }
    found
}

/// `36 35 98:0 /root /at rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (place, of) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(4);
    let (at, here) = (place.next()?, place.next()?);
    let mut of = of.split(' ');
    let (kind, own) = (of.next()?, of.nth(1).unwrap_or_default());
    let options = here.split(',').chain(own.split(',')).filter(|option| !option.is_empty());
    Some(Mount {
        // Blanks are written in octal.
        at: at.replace("\\040", " "),
        kind: kind.to_owned(),
        options: options.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use mainstay::postgres::durability::Require;

    use super::*;

    const MOUNTS: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
22 21 0:20 / /tmp rw - tmpfs tmpfs rw,size=1k
23 21 8:2 / /data\\040here rw - xfs /dev/sdb rw,nobarrier
24 21 0:30 / /net rw - nfs4 host:/x rw,vers=4.2
25 21 0:31 / /mine rw - fuse.sshfs me:/ rw
26 21 0:32 / /box rw - overlay overlay rw,lowerdir=/l,upperdir=/u,volatile
27 22 8:3 / /tmp/disk rw - ext4 /dev/sdc rw
";

    #[test]
    fn where_a_file_is_decides_what_a_power_cut_takes() {
        for (path, kind, survives) in [
            ("/s.db", "ext4", true),
            ("/tmpx/s.db", "ext4", true),
            ("/tmp/s.db", "tmpfs", false),
            ("/tmp/disk/s.db", "ext4", true),
            ("/data here/s.db", "xfs", false),
            ("/net/s.db", "nfs4", false),
            ("/mine/s.db", "fuse.sshfs", false),
            ("/box/s.db", "overlay", false),
        ] {
            let mount = mount_of(MOUNTS, path).unwrap();
            assert_eq!(mount.kind, kind, "{path}");
            let verdict = decide(Some(&mount));
            assert_eq!(verdict.short_of(Require::Power).is_none(), survives, "{path}: {verdict:?}");
            assert_eq!(verdict.short_of(Require::Crash), None);
            assert!(verdict.short_of(Require::Failover).is_some());
        }
        assert_eq!(mount_of("", "/s.db"), None);
        assert_eq!(decide(None).notes.len(), 1);
    }
}
