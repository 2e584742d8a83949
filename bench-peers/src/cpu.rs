//! How much CPU time a process has used: a figure that a busy machine disturbs far less than it does a rate.

/// Microseconds in user and kernel mode since its start, of all threads; none where the kernel does not say.
/// In steps of 10 ms.
pub(crate) fn used_us(pid: u32) -> Option<u64> {
    of_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// From `/proc/PID/stat`, proc(5): fields 14 and 15, in ticks.
fn of_stat(stat: &str) -> Option<u64> {
    // The kernel shows programs 100 ticks a second, whatever it counts in itself.
    const TICK_US: u64 = 10_000;
    // The second field is the program's name in brackets, which may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some((user + system) * TICK_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 1000 2000 3 4 250 31 500 600 20 0 1 0 100 200 300";
        assert_eq!(of_stat(stat), Some(2_810_000));
        assert_eq!(of_stat("17 (a"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let mut sum = 0_u64;
        while used_us(std::process::id()).unwrap() == 0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
