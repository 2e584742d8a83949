//! STAND-IN (lead): minimal types so that others can compile. The owner of this crate overwrites this file.
#![allow(missing_docs)]
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);
impl Timestamp {
    pub const fn from_millis(ms: i64) -> Self { Self(ms) }
    pub const fn as_millis(self) -> i64 { self.0 }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);
pub trait Clock: Send + Sync + Debug { fn now(&self) -> Monotonic; fn wall(&self) -> Timestamp; }
#[derive(Debug)]
pub struct SystemClock(Instant);
impl Clock for SystemClock {
    fn now(&self) -> Monotonic { Monotonic(self.0.elapsed()) }
    fn wall(&self) -> Timestamp { Timestamp(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)) }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct CorrelationId(pub Uuid);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CausationId(pub Uuid);
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Fact { pub correlation: CorrelationId }
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Producer(String);
impl Producer { pub fn new(t: impl AsRef<str>) -> Result<Self, std::convert::Infallible> { Ok(Self(t.as_ref().into())) } pub fn as_str(&self) -> &str { &self.0 } }
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageIdentity { pub producer: Producer, pub epoch: u32, pub partition: u32, pub seq: u64, pub content: ContentHash }
#[derive(Debug, Clone)]
pub struct Context { clock: Arc<dyn Clock> }
impl Context {
    pub fn system() -> Self { Self { clock: Arc::new(SystemClock(Instant::now())) } }
    pub fn now(&self) -> Monotonic { self.clock.now() }
    pub fn wall(&self) -> Timestamp { self.clock.wall() }
    pub fn new_id(&self) -> Uuid { Uuid::now_v7() }
    pub fn next_u64(&self) -> u64 { Uuid::new_v4().as_u64_pair().0 }
    pub fn remaining(&self) -> Option<Duration> { None }
    pub fn fact(&self) -> Fact { Fact::default() }
}
