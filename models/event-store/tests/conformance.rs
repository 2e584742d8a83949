//! The memory store keeps every promise of the contract.

use mainstay_event_store::conformance::Harness;
use mainstay_event_store::memory::Memory;

struct InMemory;

impl Harness for InMemory {
    type Store = Memory;

    async fn open(&self) -> Memory {
        Memory::new()
    }

    async fn again(&self, store: &Memory) -> Memory {
        store.clone()
    }
}

mainstay_event_store::conformance_suite!(InMemory);
