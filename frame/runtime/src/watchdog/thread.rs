//! What a thread is doing, as far as the system tells without a debugger. Linux only; elsewhere its name.

use std::fmt;
use std::fs;

/// So many lines of a kernel stack are kept: the innermost say what is waited for.
const FRAMES: usize = 8;

/// A thread of this process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    /// As it was named when it was started.
    pub name: String,
    /// Its number in the system, as `top -H` and debuggers show it. None where the system doesn't say.
    pub id: Option<u32>,
}

/// What a thread is doing at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// It is on a core, or waits for one: it computes.
    Computes,
    /// It waits in a call of the system.
    Waits {
        /// The call, by its name where this machine's are known, else by its number. None where it may not be seen.
        call: Option<String>,
        /// Whether the wait can't be interrupted, which is a disk or a network file system.
        for_a_device: bool,
        /// The kernel's stack of that call, innermost first; mostly for root only, else empty.
        stack: Vec<String>,
    },
    /// The system doesn't say.
    Unknown,
}

impl Thread {
    /// The thread that calls this.
    pub(super) fn current() -> Self {
        let name = std::thread::current().name().unwrap_or("(unnamed)").to_owned();
        // A link to "PID/task/TID".
        let link = fs::read_link("/proc/thread-self").ok();
        let id = link.and_then(|link| link.file_name()?.to_str()?.parse().ok());
        Self { name, id }
    }

    /// What it does now. Cost: three small files that the kernel makes up; for reports, not for every poll.
    pub fn doing(&self) -> Doing {
        let Some(id) = self.id else { return Doing::Unknown };
        let read =
            |what: &str| fs::read_to_string(format!("/proc/self/task/{id}/{what}")).unwrap_or_default();
        doing(&read("stat"), &read("syscall"), &read("stack"))
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "thread {:?} (number {id})", self.name),
            None => write!(f, "thread {:?}", self.name),
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computes => f.write_str("it computes"),
            Self::Unknown => f.write_str("what it does is not known"),
            Self::Waits { call, for_a_device, stack } => {
                f.write_str("it waits")?;
                if let Some(call) = call {
                    write!(f, " in the system call {call}")?;
                }
                if *for_a_device {
                    f.write_str(", for a disk or another device")?;
                }
                match &stack[..] {
                    [] => Ok(()),
                    stack => write!(f, " (in the kernel: {})", stack.join(" < ")),
                }
            }
        }
    }
}

/// Reads `stat`, `syscall` and `stack` as proc_pid_stat(5) and its neighbours describe them.
fn doing(stat: &str, syscall: &str, stack: &str) -> Doing {
    // The name stands in brackets and may hold brackets itself.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    match state {
        Some('R') => Doing::Computes,
        Some(state @ ('S' | 'D')) => Doing::Waits {
            call: syscall.split_whitespace().next().and_then(|word| word.parse().ok()).map(call),
            for_a_device: state == 'D',
            stack: stack.lines().take(FRAMES).filter_map(frame).collect(),
        },
        _ => Doing::Unknown,
    }
}

/// `[<0>] futex_wait_queue+0x60/0x90` without the numbers.
fn frame(line: &str) -> Option<String> {
    let name = line.split_whitespace().nth(1)?;
    Some(name.split('+').next().unwrap_or(name).to_owned())
}

/// The calls that block a task in practice; numbers differ from one architecture to the next.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, &str)] = &[
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (17, "pread64"),
    (18, "pwrite64"),
    (35, "nanosleep"),
    (42, "connect"),
    (43, "accept"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (61, "wait4"),
    (72, "fcntl"),
    (73, "flock"),
    (74, "fsync"),
    (75, "fdatasync"),
    (202, "futex"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (247, "waitid"),
    (257, "openat"),
    (271, "ppoll"),
    (288, "accept4"),
];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, &str)] = &[
    (25, "fcntl"),
    (32, "flock"),
    (56, "openat"),
    (63, "read"),
    (64, "write"),
    (67, "pread64"),
    (68, "pwrite64"),
    (73, "ppoll"),
    (82, "fsync"),
    (83, "fdatasync"),
    (95, "waitid"),
    (98, "futex"),
    (101, "nanosleep"),
    (115, "clock_nanosleep"),
    (202, "accept"),
    (203, "connect"),
    (206, "sendto"),
    (207, "recvfrom"),
    (211, "sendmsg"),
    (212, "recvmsg"),
    (242, "accept4"),
    (260, "wait4"),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: &[(u32, &str)] = &[];

fn call(number: u32) -> String {
    let known = CALLS.iter().find(|(of, _)| *of == number);
    known.map_or_else(|| format!("number {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let (number, name) = *CALLS.iter().find(|(_, name)| *name == "fsync").unwrap();
        let syscall = format!("{number} 0x0 0x0 0x7ffd3eb6b3e0 0x0 0x0 0x0 0x7ffd3eb6b3c8 0x7ff3abf97503\n");
        let stack = "[<0>] jbd2_log_wait_commit+0x74/0xf0\n[<0>] ext4_sync_file+0x30/0x60\n";
        let waiting = doing("17 (a ) R b) D 1 2 3", &syscall, stack);
        let shown = "it waits in the system call fsync, for a disk or another device \
                     (in the kernel: jbd2_log_wait_commit < ext4_sync_file)";
        assert_eq!((waiting.to_string(), name), (shown.to_owned(), "fsync"));
        assert_eq!(doing("17 (worker) R 1 2 3", "running\n", ""), Doing::Computes);
        assert_eq!(doing("17 (worker) S 1", "", "").to_string(), "it waits", "where no more may be seen");
        assert_eq!(
            doing("17 (w) S 1", "9999 0x0", "").to_string(),
            "it waits in the system call number 9999"
        );
        assert_eq!(doing("", "", ""), Doing::Unknown);
    }

    #[test]
    fn a_stack_is_cut() {
        let stack = "[<0>] f+0x1/0x2\n".repeat(100);
        let Doing::Waits { stack, .. } = doing("1 (w) S 1", "0", &stack) else { panic!("it waits") };
        assert_eq!(stack.len(), FRAMES);
    }
}
