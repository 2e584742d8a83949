//! What a read may miss, and what it does in a partition: the decision that `Replicated` makes for each read, by itself.
//!
//! Against a real leader and its replicas: `engines/backends/postgres/tests/replicas.rs`.

use std::time::Duration;

use mainstay::Context;
use mainstay::store::consistency::{Choice, Seen, choose};
use mainstay::store::{Consistency, IfCutOff, Receipt, StoreId};

const NAMES: [&str; 3] = ["leader", "r1", "r2"];

fn main() {
    // Somebody has just written, and was given a receipt. r1 has the write and is 40 ms behind, r2 is 9 s behind.
    let receipt = Receipt::new(StoreId(Context::system().new_id()), 42);
    let whole = [
        Seen { leads: true, reachable: true, staleness: None, has_receipt: true },
        Seen { leads: false, reachable: true, staleness: Some(Duration::from_millis(40)), has_receipt: true },
        Seen { leads: false, reachable: true, staleness: Some(Duration::from_secs(9)), has_receipt: false },
    ];
    // The same, but who asks is cut off from the leader and from r1.
    let mut cut = whole;
    (cut[0].reachable, cut[1].reachable) = (false, false);

    let reads = [
        ("the balance before a payment", Consistency::Strong, IfCutOff::Refuse),
        ("the order I have just placed", Consistency::ReadYourWrites(receipt), IfCutOff::Refuse),
        (
            "stock, for a page of articles",
            Consistency::BoundedStaleness(Duration::from_secs(2)),
            IfCutOff::ServeStale,
        ),
        ("what others also bought", Consistency::Eventual, IfCutOff::ServeStale),
    ];
    println!("{:<30} {:<24} cut off from leader and r1", "read", "all reachable");
    let mut answers = Vec::new();
    for (what, asked, if_cut_off) in reads {
        let [usually, in_a_partition] =
            [&whole, &cut].map(|nodes| shown(choose(&asked, if_cut_off, nodes, false, 0)));
        println!("{what:<30} {usually:<24} {in_a_partition}");
        answers.push((usually, in_a_partition));
    }
    // PACELC in one table: in a partition availability or consistency, else latency or consistency.
    let expected = [("leader", "refused"), ("r1", "refused"), ("r1", "r2, may be stale"), ("r1", "r2")];
    assert!(answers.iter().zip(expected).all(|((a, b), (x, y))| a == x && b == y), "{answers:?}");
}

fn shown(choice: Choice) -> String {
    match choice {
        Choice::Node { index, met: true } => NAMES[index].to_owned(),
        Choice::Node { index, met: false } => format!("{}, may be stale", NAMES[index]),
        Choice::Later | Choice::Nobody => "refused".to_owned(),
    }
}
