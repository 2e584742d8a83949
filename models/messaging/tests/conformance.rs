//! The memory log keeps every promise of the contract, but that of durability.

use mainstay_envelope::Timestamp;
use mainstay_messaging::conformance::Harness;
use mainstay_messaging::memory::{Memory, MemoryOffsets};

struct InMemory;

impl Harness for InMemory {
    type Log = Memory;
    type Offsets = MemoryOffsets;

    async fn open(&self, partitions: u32) -> Memory {
        Memory::new(partitions)
    }

    async fn again(&self, log: &Memory) -> Memory {
        log.clone()
    }

    async fn offsets(&self) -> MemoryOffsets {
        MemoryOffsets::default()
    }

    async fn prune(&self, log: &Memory, before: Timestamp) {
        log.prune(before);
    }

    async fn stall(&self, log: &Memory, stalled: bool) {
        log.stall(stalled);
    }
}

mainstay_messaging::conformance_suite!(InMemory);
