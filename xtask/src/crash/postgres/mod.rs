//! Faults under the store on PostgreSQL: servers, network, disk and processes break while two processes work, and every
//! answer they got must hold.
//!
//! ```text
//!   this driver ──starts──► fault_client ×2 ──► fault proxy ──► leader ──► two replicas
//!        │                       │                  ▲             ▲
//!        └── books ◄──── pipe ───┘                  └─── faults ──┘        each is mended again
//!   afterwards: `fault_client check`, the books against the store
//! ```
//! What must hold in every round: nothing acknowledged is lost (but by a failover without synchronous replication, which
//! may lose what was announced), no effect is doubled, the feed is dense and its chain proven, streams are in order, an act
//! answered as unknown is resolved by the same ids, and everybody goes on without being told.
//!
//! A seed is one round of one fault on a schema of its own, so that a long run goes on where it stopped (`--from`). A seed
//! fixes acts, kinds and durations; what a moment meets is up to the machine.

mod clients;
mod proxy;
mod round;
mod servers;
mod small_disk;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::out;
use crate::examples;
use round::{Desk, Round};
use servers::Servers;
use small_disk::SmallDisk;

/// The instance of most rounds, and the one whose data is on a disk that becomes full.
const INSTANCE: &str = "crash";
const FULL_INSTANCE: &str = "crash-full";

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Fault {
    /// The server is killed and started again.
    Kill,
    /// The leader is killed and the furthest replica promoted; a commit waits for one replica.
    Failover,
    /// The same, and no commit waits for a replica.
    FailoverAsync,
    /// The network between the processes and the server: silence, lost answers, resets.
    Cut,
    /// The server's disk is full.
    Full,
    /// The process of the active sequencer is stopped for longer than its lease.
    Stop,
}

impl Fault {
    const ALL: [Fault; 6] =
        [Fault::Kill, Fault::Failover, Fault::FailoverAsync, Fault::Cut, Fault::Full, Fault::Stop];

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Failover => "failover",
            Fault::FailoverAsync => "failover-async",
            Fault::Cut => "cut",
            Fault::Full => "full",
            Fault::Stop => "stop",
        }
    }
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The seed of each fault's first round; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many rounds of each fault.
    #[arg(long, default_value_t = 2)]
    rounds: u64,
    /// Begin with the rounds of this seed, as if those before it had passed.
    #[arg(long)]
    from: Option<u64>,
    /// Only these faults [default: all].
    #[arg(long, value_enum, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// The ports of the servers: eight from there on.
    #[arg(long, default_value_t = 27_532)]
    port_base: u16,
    /// One JSON object on standard output at the end.
    #[arg(long)]
    json: bool,
    /// A `fault_client` that is built already.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// What the whole run found.
#[derive(Default, Serialize)]
struct Summary {
    passed: bool,
    seed: u64,
    from: u64,
    seconds: f64,
    /// From the mending to the first acknowledgement that each process had again: the median and the longest, by fault.
    recovered_ms: BTreeMap<&'static str, (i64, i64)>,
    rounds: Vec<Round>,
}

/// Runs the rounds. True when every promise was kept.
pub(super) fn run(arguments: &Arguments) -> Result<bool> {
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => examples::build_one("mainstay-postgres", "fault_client")?,
    };
    let folder = out()?;
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let from = arguments.from.unwrap_or(arguments.seed);
    let mut summary = Summary { seed: arguments.seed, from, ..Summary::default() };
    let wanted = |fault: &Fault| arguments.fault.is_empty() || arguments.fault.contains(fault);
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(wanted).collect();
    let began = Instant::now();
    let mut sound = true;
    for is_full in [false, true] {
        let faults: Vec<Fault> =
            faults.iter().copied().filter(|fault| (*fault == Fault::Full) == is_full).collect();
        if faults.is_empty() || !sound {
            continue;
        }
        // Mounted before its servers are made, unmounted after they are gone.
        let disk = if is_full { Some(SmallDisk::mount()?) } else { None };
        let data = disk.as_ref().map(|disk| disk.folder.as_path());
        let (name, port) =
            if is_full { (FULL_INSTANCE, arguments.port_base + 4) } else { (INSTANCE, arguments.port_base) };
        let mut servers = Servers::up(name, port, data)?;
        for fault in faults {
            for seed in from.max(arguments.seed)..arguments.seed + arguments.rounds {
                let (folder, disk) = (&folder, disk.as_ref());
                let mut desk = Desk { program: &program, servers: &mut servers, disk, folder, fault, seed };
                let round = desk.run()?;
                tell(&round);
                sound &= round.violations.is_empty();
                summary.rounds.push(round);
            }
            if !sound {
                let name = fault.name();
                eprintln!(
                    "    to repeat it: cargo xtask crash postgres --fault {name} --seed SEED --rounds 1"
                );
                eprintln!("    the books are in {}", folder.display());
                break;
            }
        }
        // What lies in memory would be kept there until somebody thinks of it.
        servers.keep = !sound && !is_full;
    }
    (summary.passed, summary.seconds) = (sound, began.elapsed().as_secs_f64());
    for fault in &faults {
        let mut times: Vec<i64> = summary
            .rounds
            .iter()
            .filter(|round| round.fault == fault.name())
            .map(|round| round.recovered_ms)
            .collect();
        times.sort_unstable();
        if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
            summary.recovered_ms.insert(fault.name(), (*median, *longest));
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        let times: Vec<String> = summary
            .recovered_ms
            .iter()
            .map(|(fault, (median, longest))| format!("{fault} {median} ms (at most {longest} ms)"))
            .collect();
        println!(
            "{} rounds in {:.1} s, {}; recovered after the mending: {}",
            summary.rounds.len(),
            summary.seconds,
            if sound { "every promise kept" } else { "NOT every promise kept" },
            times.join(", ")
        );
    }
    Ok(sound)
}

/// One line for a round, and one for each thing that is wrong.
fn tell(round: &Round) {
    eprintln!("{}", serde_json::to_string(round).unwrap_or_default());
    for violation in &round.violations {
        eprintln!("    {} {}: {violation}", round.fault, round.seed);
    }
}
