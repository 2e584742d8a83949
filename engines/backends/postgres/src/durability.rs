//! What an acknowledgement survives, decided from the server's settings.
//!
//! ```text
//!                     the server's process is killed   the power fails        the machine is lost, a replica takes over
//! fsync off                                            everything may be lost
//! full_page_writes off                                 everything may be lost
//! synchronous_commit off    ≤ 3 × wal_writer_delay      ≤ 3 × wal_writer_delay  that, and how far the replicas are behind
//!                    local                                                     how far the replicas are behind
//!           remote_write, on, remote_apply                                     the same; nothing where
//!                                                                              synchronous_standby_names names somebody
//! ```
//! (PostgreSQL's manual, chapters 20.5, 20.6 and 30.4.) [`decide`] is pure; [`Settings::ask`] asks a server. What a disk
//! says it has written and has not, nobody can see from here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an acknowledgement has to survive; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Require {
    /// The server's processes are killed; the machine goes on.
    Crash,
    /// The machine loses power.
    Power,
    /// The machine is lost, and a replica takes over.
    Failover,
}

impl Require {
    /// All of them, from the least.
    pub const ALL: [Self; 3] = [Self::Crash, Self::Power, Self::Failover];
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "a kill of the server",
            Self::Power => "a power cut",
            Self::Failover => "a failover",
        })
    }
}

/// What to do with a server whose acknowledgements do not survive what is required.
#[derive(Clone, Default)]
pub enum Otherwise {
    /// The store is not opened.
    #[default]
    Refuse,
    /// This hears of it, in one line, and the store is opened.
    Warn(Arc<dyn Fn(&str) + Send + Sync>),
}

impl fmt::Debug for Otherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "Refuse",
            Self::Warn(_) => "Warn",
        })
    }
}

/// For what a commit waits (`synchronous_commit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynchronousCommit {
    /// For nothing.
    Off,
    /// For this server's disk.
    Local,
    /// Also for the memory of synchronous replicas.
    RemoteWrite,
    /// Also for their disks.
    On,
    /// Also until they show it.
    RemoteApply,
}

impl SynchronousCommit {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "off" => Self::Off,
            "local" => Self::Local,
            "remote_write" => Self::RemoteWrite,
            "on" => Self::On,
            "remote_apply" => Self::RemoteApply,
            _ => return None,
        })
    }

    /// As the server writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Local => "local",
            Self::RemoteWrite => "remote_write",
            Self::On => "on",
            Self::RemoteApply => "remote_apply",
        }
    }
}

/// The settings that count, as the server has them for this user in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `fsync`: does it ask the disk at all?
    pub fsync: bool,
    /// `full_page_writes`: can it mend a page that was half written?
    pub full_page_writes: bool,
    /// `synchronous_commit`.
    pub synchronous_commit: SynchronousCommit,
    /// `wal_sync_method`.
    pub wal_sync_method: String,
    /// `synchronous_standby_names`; empty: no commit waits for a replica.
    pub synchronous_standby_names: String,
    /// `data_checksums`: is damage on the disk noticed when it is read?
    pub data_checksums: bool,
    /// `wal_writer_delay`.
    pub wal_writer_delay: Duration,
    /// `commit_delay`.
    pub commit_delay: Duration,
    /// The replicas that are connected now.
    pub replicas: Vec<Replica>,
}

/// A connected replica (`pg_stat_replication`). Only members of `pg_monitor` are shown more than its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its `application_name`.
    pub name: String,
    /// `sync`, `quorum`, `potential` or `async`; none where this user may not see it.
    pub sync_state: Option<String>,
    /// How far its disk is behind this server's, measured now; none where this user may not see it.
    pub behind: Option<Duration>,
}

/// What is lost of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// At most the last so much.
    AtMost(Duration),
    /// As much as the replicas are behind: so much now, and without a bound.
    Behind(Duration),
    /// No bound is known; it may be everything.
    Unbounded,
}

impl Loss {
    /// In seconds: of [`Loss::Behind`] as it is now; none without a bound.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Nothing => Some(0.0),
            Self::AtMost(window) | Self::Behind(window) => Some(window.as_secs_f64()),
            Self::Unbounded => None,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("0 s"),
            Self::AtMost(window) => write!(f, "at most {:.3} s", window.as_secs_f64()),
            Self::Behind(window) => write!(f, "{:.3} s now, without a bound", window.as_secs_f64()),
            Self::Unbounded => f.write_str("without a bound"),
        }
    }
}

/// What one kind of failure costs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What is lost.
    pub loss: Loss,
    /// Which setting makes it so.
    pub why: String,
}

/// What an acknowledgement of a server means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// When its processes are killed.
    pub crash: Window,
    /// When the power fails.
    pub power: Window,
    /// When the machine is lost and a replica takes over.
    pub failover: Window,
    /// What else an operator should know.
    pub notes: Vec<String>,
}

impl Verdict {
    /// The window of one kind of failure.
    pub fn window(&self, of: Require) -> &Window {
        match of {
            Require::Crash => &self.crash,
            Require::Power => &self.power,
            Require::Failover => &self.failover,
        }
    }

    /// The first failure up to the required one that loses something; none when it is met.
    pub fn short_of(&self, require: Require) -> Option<(Require, &Window)> {
        let kinds = Require::ALL.into_iter().filter(|kind| *kind <= require);
        kinds.map(|kind| (kind, self.window(kind))).find(|(_, window)| window.loss != Loss::Nothing)
    }
}

/// Decides what an acknowledgement survives.
pub fn decide(settings: &Settings) -> Verdict {
    let window = |loss, why: &str| Window { loss, why: why.to_owned() };
    let unwritten = settings.wal_writer_delay * 3;
    let is_off = settings.synchronous_commit == SynchronousCommit::Off;
    let early = || {
        let why = "synchronous_commit is off: a commit is acknowledged up to three times wal_writer_delay before it is \
                   written";
        window(Loss::AtMost(unwritten), why)
    };
    let crash = match is_off {
        true => early(),
        false => window(Loss::Nothing, "a commit is handed to the system before it is acknowledged"),
    };
    let power = if !settings.fsync {
        window(Loss::Unbounded, "fsync is off: nothing waits for the disk, and the database may be damaged")
    } else if !settings.full_page_writes {
        let why = "full_page_writes is off: a page that is half written when the power fails can't be mended";
        window(Loss::Unbounded, why)
    } else if is_off {
        early()
    } else {
        window(Loss::Nothing, "a commit is on this server's disk before it is acknowledged")
    };
    let mut notes = Vec::new();
    let failover = failover(settings, &mut notes);
    if !settings.data_checksums {
        notes.push("data_checksums is off: damage on the disk is not noticed when it is read".to_owned());
    }
    if !settings.commit_delay.is_zero() {
        let delay = settings.commit_delay.as_micros();
        notes.push(format!(
            "commit_delay makes commits wait up to {delay} µs for each other; it loses nothing"
        ));
    }
    Verdict { crash, power, failover, notes }
}

/// What is lost with the machine.
fn failover(settings: &Settings, notes: &mut Vec<String>) -> Window {
    let Settings { synchronous_commit: commit, synchronous_standby_names: names, replicas, .. } = settings;
    let waits = !matches!(commit, SynchronousCommit::Off | SynchronousCommit::Local);
    if waits && !names.is_empty() {
        let counted = |replica: &Replica| {
            replica.sync_state.as_deref().is_none_or(|state| matches!(state, "sync" | "quorum"))
        };
        if !replicas.iter().any(counted) {
            notes.push(format!("none of {names} is connected: commits wait, and nothing is acknowledged"));
        }
        let reached = match commit {
            SynchronousCommit::RemoteWrite => {
                "in the memory of the replicas' machines (lost if these lose their power at the same moment)"
            }
            _ => "on the replicas' disks",
        };
        let why =
            format!("a commit waits until it is {reached}: {names}; promote the one that has received most");
        return Window { loss: Loss::Nothing, why };
    }
    let nobody = match (names.is_empty(), waits) {
        (true, _) => "synchronous_standby_names is empty: no commit waits for a replica".to_owned(),
        (false, _) => format!("synchronous_commit is {}: no commit waits for a replica", commit.as_str()),
    };
    let own = match commit {
        SynchronousCommit::Off => settings.wal_writer_delay * 3,
        _ => Duration::ZERO,
    };
    let worst =
        replicas.iter().map(|replica| replica.behind).max_by_key(|behind| behind.unwrap_or(Duration::MAX));
    match worst {
        None => Window {
            loss: Loss::Unbounded,
            why: format!(
                "{nobody}, and none is connected: everything since the last copy is lost with the machine"
            ),
        },
        Some(None) => Window {
            loss: Loss::Unbounded,
            why: format!(
                "{nobody}, and how far they are behind is not shown to this user; grant it pg_monitor"
            ),
        },
        Some(Some(behind)) => Window {
            loss: Loss::Behind(behind + own),
            why: format!("{nobody}; as far as the slowest of {} is behind, when it happens", replicas.len()),
        },
    }
}

impl Settings {
    /// What they mean; [`decide`].
    pub fn decide(&self) -> Verdict {
        decide(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use super::*;

    fn settings() -> Settings {
        Settings {
            fsync: true,
            full_page_writes: true,
            synchronous_commit: SynchronousCommit::On,
            wal_sync_method: "fdatasync".into(),
            synchronous_standby_names: String::new(),
            data_checksums: true,
            wal_writer_delay: Duration::from_millis(200),
            commit_delay: Duration::ZERO,
            replicas: vec![replica("async", Some(30)), replica("async", Some(70))],
        }
    }

    fn replica(state: &str, behind_ms: Option<u64>) -> Replica {
        let known = behind_ms.is_some();
        Replica {
            name: "r".into(),
            sync_state: known.then(|| state.to_owned()),
            behind: behind_ms.map(Duration::from_millis),
        }
    }

    const WRITER: Loss = Loss::AtMost(Duration::from_millis(600));

    fn behind(millis: u64) -> Loss {
        Loss::Behind(Duration::from_millis(millis))
    }

    #[test]
    fn each_setting_has_its_window() {
        use Loss::{Nothing, Unbounded};
        type Change = fn(&mut Settings);
        let named: Change = |s| s.synchronous_standby_names = "ANY 1 (r1, r2)".into();
        let table: [(&str, Change, [Loss; 3]); 13] = [
            ("as it comes", |_| {}, [Nothing, Nothing, behind(70)]),
            ("fsync", |s| s.fsync = false, [Nothing, Unbounded, behind(70)]),
            ("full_page_writes", |s| s.full_page_writes = false, [Nothing, Unbounded, behind(70)]),
            ("off", |s| s.synchronous_commit = SynchronousCommit::Off, [WRITER, WRITER, behind(670)]),
            (
                "off, writer",
                |s| {
                    s.synchronous_commit = SynchronousCommit::Off;
                    s.wal_writer_delay = Duration::from_millis(10);
                    s.fsync = false;
                },
                [Loss::AtMost(Duration::from_millis(30)), Unbounded, behind(100)],
            ),
            ("local", |s| s.synchronous_commit = SynchronousCommit::Local, [Nothing, Nothing, behind(70)]),
            ("no replica", |s| s.replicas.clear(), [Nothing, Nothing, Unbounded]),
            ("not shown", |s| s.replicas[0] = replica("", None), [Nothing, Nothing, Unbounded]),
            ("named", named, [Nothing, Nothing, Nothing]),
            (
                "named, written",
                |s| {
                    s.synchronous_standby_names = "r1".into();
                    s.synchronous_commit = SynchronousCommit::RemoteWrite;
                },
                [Nothing, Nothing, Nothing],
            ),
            (
                "named, applied",
                |s| {
                    s.synchronous_standby_names = "r1".into();
                    s.synchronous_commit = SynchronousCommit::RemoteApply;
                },
                [Nothing, Nothing, Nothing],
            ),
            (
                "named, and not waited for",
                |s| {
                    s.synchronous_standby_names = "r1".into();
                    s.synchronous_commit = SynchronousCommit::Local;
                },
                [Nothing, Nothing, behind(70)],
            ),
            (
                "named, off",
                |s| {
                    s.synchronous_standby_names = "r1".into();
                    s.synchronous_commit = SynchronousCommit::Off;
                },
                [WRITER, WRITER, behind(670)],
            ),
        ];
        for (what, change, losses) in table {
            let mut settings = settings();
            change(&mut settings);
            let verdict = decide(&settings);
            let found = Require::ALL.map(|kind| verdict.window(kind).loss);
            assert_eq!(found, losses, "{what}: {verdict:?}");
        }
    }

    #[test]
    fn what_is_required_includes_what_is_less() {
        let short = |change: fn(&mut Settings), require| {
            let mut settings = settings();
            change(&mut settings);
            decide(&settings).short_of(require).map(|(kind, _)| kind)
        };
        assert_eq!(short(|_| {}, Require::Power), None);
        assert_eq!(short(|_| {}, Require::Failover), Some(Require::Failover));
        let off: fn(&mut Settings) = |s| s.synchronous_commit = SynchronousCommit::Off;
        assert_eq!(short(off, Require::Crash), Some(Require::Crash));
        assert_eq!(short(off, Require::Failover), Some(Require::Crash));
        assert_eq!(short(|s| s.fsync = false, Require::Crash), None);
        assert_eq!(short(|s| s.fsync = false, Require::Power), Some(Require::Power));
        // Replicas that wait make no disk of this server's own.
        let named: fn(&mut Settings) = |s| {
            s.synchronous_standby_names = "r".into();
            s.full_page_writes = false;
        };
        assert_eq!(short(named, Require::Failover), Some(Require::Power));
    }

    #[test]
    fn what_an_operator_should_know_is_noted() {
        let notes = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            decide(&settings).notes.join("\n")
        };
        assert_eq!(notes(|_| {}), "");
        assert!(notes(|s| s.data_checksums = false).contains("data_checksums"));
        assert!(notes(|s| s.commit_delay = Duration::from_micros(50)).contains("50 µs"));
        let named = notes(|s| s.synchronous_standby_names = "r9".into());
        assert!(named.contains("none of r9 is connected"), "{named}");
        let there = notes(|s| {
            s.synchronous_standby_names = "r".into();
            s.replicas[1].sync_state = Some("quorum".into());
        });
        assert_eq!(there, "");
        // What is not shown may be there.
        let hidden = notes(|s| {
            s.synchronous_standby_names = "r".into();
            s.replicas = vec![replica("", None)];
        });
        assert_eq!(hidden, "");
    }

    #[test]
    fn the_servers_words_are_known() {
        for commit in ["off", "local", "remote_write", "on", "remote_apply"] {
            assert_eq!(SynchronousCommit::parse(commit).unwrap().as_str(), commit);
        }
        assert_eq!(SynchronousCommit::parse("maybe"), None);
    }
}
