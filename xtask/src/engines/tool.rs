//! Running a server's own programs: as whom, how long at most, and with what words when one fails.
//!
//! Unlike `process::run` nothing here ends a child because the user pressed Ctrl-C: the terminal has told the child
//! too, and what takes a server down has to work after that.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

/// How often a condition of another process is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// A command that has the lock is done within so long.
const LOCK_MAX: Duration = Duration::from_secs(240);

/// How much of what a failed program wrote is repeated.
const SAID_MAX: usize = 2_000;

/// A user of this machine, as far as a process needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// User and group to become; `None` is who runs us.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// Who runs us.
    pub(super) fn own() -> Account {
        Account { ids: None }
    }

    /// Who may run a server that refuses to run as root: who runs us, or `name` when that is root.
    ///
    /// # Errors
    /// When root runs us and the machine has no user `name`.
    pub(super) fn of_server(name: &str) -> Result<Account> {
        if !geteuid().is_root() {
            return Ok(Account::own());
        }
        let users = fs::read_to_string("/etc/passwd").context("the users of this machine can't be read")?;
        let ids = ids_of(&users, name).with_context(|| {
            format!(
                "the server does not run as root, and there is no user {name} to run it as; installing the \
                 server's Debian package makes one, or run this as another user than root"
            )
        })?;
        Ok(Account { ids: Some(ids) })
    }

    /// A command of this user in `folder`, with none of our environment but where programs are.
    ///
    /// A `PGHOST` or `PGOPTIONS` of the user's must not lead it to another server.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(folder).env("HOME", folder).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a folder that this user owns; no error when it is there.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        self.own_it(folder)
    }

    /// Replaces a file as a whole; afterwards this user owns it.
    pub(super) fn write(&self, file: &Path, text: &str, mode: u32) -> Result<()> {
        let scratch = file.with_extension("new");
        let write = || -> std::io::Result<()> {
            let _ = fs::remove_file(&scratch);
            // Never open to others for a moment: some of these texts hold the password.
            let mut new = File::options().write(true).create_new(true).mode(mode).open(&scratch)?;
            new.write_all(text.as_bytes())?;
            new.set_permissions(Permissions::from_mode(mode))
        };
        write().with_context(|| format!("{} can't be written", scratch.display()))?;
        self.own_it(&scratch)?;
        fs::rename(&scratch, file).with_context(|| format!("{} can't be put in place", file.display()))
    }

    fn own_it(&self, path: &Path) -> Result<()> {
        match self.ids {
            Some((user, group)) => chown(path, Some(user), Some(group))
                .with_context(|| format!("{} can't be given to the server's user", path.display())),
            None => Ok(()),
        }
    }

    /// Whether this user can make a file in `folder`: tried, since no list of permissions tells it of every system.
    pub(super) fn reaches(&self, folder: &Path) -> Result<bool> {
        let probe = "touch \"$1/.reached\" && rm \"$1/.reached\"";
        // Not with `folder` as its current one: that alone would make an unreachable folder an error.
        let mut shell = self.command(Path::new("sh"), Path::new("/"));
        shell.args(["-c", probe, "sh"]).arg(folder);
        Ok(finish(&mut shell, "", Duration::from_secs(30))?.success)
    }
}

/// User and group of `name` in the text of a password file.
fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut words = line.split(':').skip(2);
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// How a program ended.
pub(super) struct Finished {
    pub(super) success: bool,
    pub(super) stdout: String,
    /// What it wrote to either output, shortened from its beginning.
    pub(super) said: String,
}

/// Runs a program to its end with `input` on its standard input, no longer than `limit`.
///
/// # Errors
/// When it can't be started, or did not end in time and was killed.
pub(super) fn finish(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let program = command.get_program().display().to_string();
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} can't be started"))?;
    let mut stdin = child.stdin.take().context("a child without an input")?;
    let mut stdout = child.stdout.take().context("a child without an output")?;
    let mut stderr = child.stderr.take().context("a child without an error output")?;
    let input = input.to_owned();
    // A child that ends without reading its input has not failed by that.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let reader = thread::spawn(move || read_all(&mut stdout));
    let errors = thread::spawn(move || read_all(&mut stderr));
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("{program} can't be waited for"))? {
            break status;
        }
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{program} did not end within {} s and was killed", limit.as_secs());
        }
        thread::sleep(LOOK);
    };
    let _ = writer.join();
    let stdout = reader.join().unwrap_or_default();
    let stderr = errors.join().unwrap_or_default();
    let said = tail(&[stdout.trim(), stderr.trim()].join("\n"));
    Ok(Finished { success: status.success(), stdout, said })
}

/// Runs a program that has to succeed; what it wrote to its standard output, without blanks around it.
pub(super) fn succeed(command: &mut Command, input: &str, limit: Duration) -> Result<String> {
    let finished = finish(command, input, limit)?;
    if !finished.success {
        bail!("{} failed: {}", command.get_program().display(), finished.said);
    }
    Ok(finished.stdout.trim().to_owned())
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // A broken pipe ends the text; what was read until then is what there is to say.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a text: the reason of a failure stands there.
pub(super) fn tail(text: &str) -> String {
    let text = text.trim();
    let Some(cut) = text.len().checked_sub(SAID_MAX) else { return text.to_owned() };
    let cut = (cut..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("… {}", &text[cut..])
}

/// Waits until `holds`, but no longer than `limit`; whether it does.
pub(super) fn wait_until(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let began = Instant::now();
    loop {
        if holds()? {
            return Ok(true);
        }
        if began.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}

/// One command works on an instance at a time: the lock, held until it is dropped.
pub(super) fn lock(file: &Path) -> Result<File> {
    let lock = File::options().create(true).append(true).open(file);
    let lock = lock.with_context(|| format!("{} can't be made", file.display()))?;
    let began = Instant::now();
    let free = wait_until(LOCK_MAX, || match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} can't be locked", file.display()))
        }
    })?;
    if !free {
        bail!(
            "another `cargo xtask engines` has been at work on this instance for {} s; nothing was done",
            began.elapsed().as_secs()
        );
    }
    Ok(lock)
}

/// Prints a line of the answer. Who has stopped reading does not want the rest: no failure.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The program of this name in `PATH`, or where Debian puts the programs of root.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Account::own().command(Path::new("sh"), Path::new("/"));
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0::/:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104:a,b:/var/lib:/bin/bash\n";
        assert_eq!(ids_of(users, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(users, "nobody"), None);
        assert_eq!(ids_of("postgres:x:not-a-number:1::\n", "postgres"), None);
    }

    #[test]
    fn a_program_gets_its_input_and_tells_both_outputs() {
        let finished =
            finish(&mut sh("cat; echo wrong >&2; exit 3"), "text", Duration::from_secs(60)).unwrap();
        assert!(!finished.success);
        assert_eq!(finished.stdout, "text");
        assert_eq!(finished.said, "text\nwrong");
        let error = succeed(&mut sh("echo why >&2; exit 1"), "", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_said_so() {
        let Err(error) = finish(&mut sh("exec sleep 100000"), "", Duration::from_millis(50)) else {
            panic!("it ended")
        };
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn none_of_our_environment_reaches_a_servers_program() {
        let mut command = sh("env");
        command.env("KEPT", "1");
        let said = succeed(&mut command, "", Duration::from_secs(60)).unwrap();
        assert!(said.contains("KEPT=1") && said.contains("LC_ALL=C"), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
    }

    #[test]
    fn a_long_text_is_cut_at_its_beginning_and_between_letters() {
        let long = "ä".repeat(SAID_MAX);
        let cut = tail(&format!("a{long}"));
        assert!(cut.starts_with("… ä") && cut.len() <= SAID_MAX + "… ".len(), "{}", cut.len());
        assert_eq!(tail(" short \n"), "short");
    }

    #[test]
    fn a_written_file_has_its_mode_from_the_start_and_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        for text in ["first", "second"] {
            Account::own().write(&file, text, 0o600).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Account::own().reaches(folder.path()).unwrap());
        assert!(!Account::own().reaches(&folder.path().join("missing")).unwrap());
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postgres.lock");
        let held = lock(&file).unwrap();
        let other = File::options().append(true).open(&file).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        other.try_lock().unwrap();
    }
}
