//! Which processes are a cluster's, and their end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::running::{self, Process};
use super::super::tool::wait_until;
use super::node::Node;

/// What was killed is gone within so long.
const END_MAX: Duration = Duration::from_secs(60);

/// Ends whatever runs on the data in `home`, known to a state file or not.
pub(super) fn end_all_in(home: &Path) -> Result<()> {
    let is_ours = |process: &Process| {
        let words = &process.words;
        Node::ALL.iter().any(|node| is_server(words, &home.join(node.name())))
            || is_pooler(words, &home.join("pgbouncer.ini"))
    };
    for process in running::processes().iter().filter(|process| is_ours(process)) {
        let mut ends = vec![process.pid];
        ends.extend(running::children(process.pid));
        end(&ends).with_context(|| format!("what runs in {} can't be killed", home.display()))?;
    }
    Ok(())
}

pub(super) fn is_server(words: &[String], data: &Path) -> bool {
    is_program(words, "postgres")
        && words.windows(2).any(|pair| pair[0] == "-D" && Path::new(&pair[1]) == data)
}

pub(super) fn is_pooler(words: &[String], config: &Path) -> bool {
    is_program(words, "pgbouncer") && words.iter().any(|word| Path::new(word) == config)
}

fn is_program(words: &[String], name: &str) -> bool {
    words.first().is_some_and(|first| Path::new(first).file_name().is_some_and(|file| file == name))
}

/// Kills processes in this order and waits until none of them is left.
pub(super) fn end(ends: &[Pid]) -> Result<()> {
    for pid in ends {
        // Fails when it has ended meanwhile, which is what we want; and what may not be killed is still there below.
        let _ = kill_process(*pid, Signal::KILL);
    }
    if !wait_until(END_MAX, || Ok(!ends.iter().any(|pid| running::lives(*pid))))? {
        bail!("they are still there after {} s", END_MAX.as_secs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_server_is_known_by_its_program_and_its_data() {
        let data = Path::new("/d/engines/r1");
        assert!(is_server(&words("/usr/lib/postgresql/15/bin/postgres -D /d/engines/r1 -c x"), data));
        // Another server, a program about the server, the shell that becomes it, and a child of it.
        for other in [
            "/usr/lib/postgresql/15/bin/postgres -D /d/engines/r10",
            "/usr/lib/postgresql/15/bin/pg_ctl -D /d/engines/r1 stop",
            "postgres:_r1:_checkpointer_",
            "/bin/postgres -C /d/engines/r1",
            "",
        ] {
            assert!(!is_server(&words(other), data), "{other}");
        }
        let config = Path::new("/d/engines/pgbouncer.ini");
        assert!(is_pooler(&words("/usr/sbin/pgbouncer -q -d /d/engines/pgbouncer.ini"), config));
        assert!(!is_pooler(&words("vi /d/engines/pgbouncer.ini"), config));
    }

    #[test]
    fn ending_waits_until_they_are_gone() {
        let mut child = Command::new("sleep").arg("100000").spawn().unwrap();
        end(&[Pid::from_child(&child)]).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
