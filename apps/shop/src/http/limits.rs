//! What a client may send, and how long it may take. One place, so that a limit can be found and changed.

use std::time::Duration;

/// The largest body, in bytes. An order of 50 lines is some 6 KiB.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// The deepest nesting of arrays and objects in a body; the deepest that any request needs is 3.
pub const JSON_DEPTH_MAX: usize = 8;
/// The largest head of a request, in bytes. (Its fields are at most 100, hyper's own bound.)
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most rows of one page.
pub const PAGE_ROWS_MAX: usize = 200;
/// How many rows a page has unless the client says otherwise.
pub const PAGE_ROWS: usize = 50;

/// The longest time that the card processor may be told to wait, in milliseconds: past it every caller has left.
pub const DELAY_MS_MAX: u64 = 60_000;
/// The most calls after which the card processor may be told to change between well and failing.
pub const PERIOD_MAX: u32 = 1_000_000;

/// How long things may take, and how many there may be. [`Limits::default`] is for services; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a connection's opening, or the answer before, to the end of a request's head. Also how long an idle
    /// connection is kept.
    pub head_time: Duration,
    /// From the head to the end of the body.
    pub body_time: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_time: Duration,
    /// The longest time that work for one request may take, whatever its sender claims.
    pub request_time: Duration,
    /// The longest wait for a presented receipt.
    pub receipt_wait: Duration,
    /// The longest wait that `Prefer: wait` may ask for.
    pub prefer_wait: Duration,
    /// How long open requests may go on once the service is told to stop.
    pub drain_time: Duration,
    /// The most open connections; the next one waits to be accepted.
    pub connections_max: usize,
    /// The most requests that are worked on at once; more wait for their turn, the important ones first. Far more than
    /// one commit takes along: it bounds what an overload does, not what a full service does.
    pub under_way_max: u32,
    /// The most requests that wait for their turn; when there are more, the least important is refused.
    pub queue_max: u32,
    /// How long the card processor is asked for a charge before the order is refused.
    pub card_time: Duration,
    /// The most requests that wait for an order's end at once; the next one is answered at once. Fewer than
    /// connections, each of which a wait occupies: others are to be served meanwhile.
    pub waiting_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            write_time: Duration::from_secs(10),
            request_time: Duration::from_secs(40),
            receipt_wait: Duration::from_secs(5),
            prefer_wait: Duration::from_secs(30),
            drain_time: Duration::from_secs(5),
            connections_max: 1_024,
            under_way_max: 256,
            queue_max: 512,
            card_time: Duration::from_secs(30),
            waiting_max: 512,
        }
    }
}
