//! Which processes run, as Linux tells it: a server is found by its command line, so that one whose files were removed
//! under it, or whose id went to a stranger, is still told apart.

use std::fs;

use rustix::process::Pid;

/// A process that has not ended.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    parent: i32,
    /// Its program and arguments; empty for a thread of the kernel, and one text for a program that rewrote it.
    pub(super) words: Vec<String>,
}

/// Every process that is neither gone nor a corpse nobody has collected yet.
pub(super) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::from_raw).filter_map(look).collect()
}

/// Whether this process is neither gone nor a corpse nobody has collected yet.
pub(super) fn lives(pid: Pid) -> bool {
    look(pid).is_some()
}

/// Whether this id belongs to a process that has ended and that nobody has collected.
pub(super) fn is_corpse(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.dead) && !has_threads(pid)
}

/// The processes whose words are as wanted, without the children that have not yet become what they will be: between
/// fork and exec a child has its parent's words.
pub(super) fn find(wanted: impl Fn(&[String]) -> bool) -> Vec<Process> {
    let mut found = processes();
    found.retain(|process| wanted(&process.words));
    let ids: Vec<i32> = found.iter().map(|process| process.pid.as_raw_nonzero().get()).collect();
    found.retain(|process| !ids.contains(&process.parent));
    found
}

/// Every process whose parent is `parent`.
pub(super) fn children(parent: Pid) -> Vec<Pid> {
    let mine = |process: &Process| process.parent == parent.as_raw_nonzero().get();
    processes().into_iter().filter(mine).map(|process| process.pid).collect()
}

/// Whether threads go on after a process's first one: until they have ended too, its ports are taken.
fn has_threads(pid: Pid) -> bool {
    let tasks =
        fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok().into_iter().flatten().flatten();
    let mut stats = tasks.filter_map(|task| to_stat(&fs::read_to_string(task.path().join("stat")).ok()?));
    stats.any(|stat| !stat.dead)
}

struct Stat {
    dead: bool,
    parent: i32,
}

fn look(pid: Pid) -> Option<Process> {
    let found = stat(pid).filter(|stat| !stat.dead || has_threads(pid))?;
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    Some(Process { pid, parent: found.parent, words: words(&line) })
}

fn stat(pid: Pid) -> Option<Stat> {
    to_stat(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// State and parent follow the process's name, which stands in brackets and may hold anything.
fn to_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?;
    Some(Stat { dead: matches!(state, "Z" | "X"), parent: words.next()?.parse().ok()? })
}

fn words(line: &[u8]) -> Vec<String> {
    let texts = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = texts.collect();
    // Every word ends with a zero byte, the last one too.
    if words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::tool::wait_until;
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_what_follows_it() {
        let stat = to_stat("42 (a) Z 1 (b) S 7 42 42 0").unwrap();
        assert!(!stat.dead && stat.parent == 7);
        assert!(to_stat("42 (sh) Z 1 42").unwrap().dead);
        assert!(to_stat("").is_none());
    }

    #[test]
    fn words_end_with_a_zero_byte() {
        assert_eq!(words(b"sleep\0\x31\0"), ["sleep", "1"]);
        assert_eq!(words(b"a\0\0"), ["a", ""]);
        assert!(words(b"").is_empty());
    }

    #[test]
    fn a_process_is_found_by_its_words_until_it_ends() {
        let own = |words: &[String]| words.get(1).is_some_and(|word| word == "100000.25");
        let mut child = Command::new("sleep").arg("100000.25").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let limit = Duration::from_secs(60);
        assert!(wait_until(limit, || Ok(find(own).iter().any(|process| process.pid == pid))).unwrap());
        assert!(lives(pid) && !is_corpse(pid));
        assert!(children(rustix::process::getpid()).contains(&pid));
        child.kill().unwrap();
        // Killed and not waited for: a corpse, and nobody may take it for a server that runs.
        assert!(wait_until(limit, || Ok(is_corpse(pid))).unwrap());
        assert!(!lives(pid) && find(own).is_empty());
        child.wait().unwrap();
        assert!(!is_corpse(pid));
    }
}
