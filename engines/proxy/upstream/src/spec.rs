//! The settings of one callee's connections: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use mainstay_resilience::Invalid;

/// The most connections to one callee. One process has some 28,000 ports towards one address.
pub const MOST_CONNECTIONS: u32 = 20_000;
/// The longest of all times here; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);
/// The largest body either way, in bytes: it is held in memory as a whole.
pub const LARGEST_BODY: usize = 1 << 30;
/// The smallest and the largest head of an answer, in bytes. hyper's smallest buffer is the lower bound.
pub const HEAD_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=1 << 20;

/// How one callee is connected to, and how much it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Connections at a time, idle ones included: the sockets that a callee which hangs can take. Range: 1 to
    /// [`MOST_CONNECTIONS`]. Default 256. Whoever finds all in use is refused at once and never queued here: the queue
    /// is the bulkhead's, whose permits should be no more than these.
    pub connections: u32,
    /// Connections that are kept open while nobody uses them. Range: 0 to `connections`. Default 32.
    pub idle: u32,
    /// How long one is kept so. Range: above 0, up to [`LONGEST`]. Default 15 s: most servers keep an idle
    /// connection longer, so that ours ends first and no request meets a closing one.
    pub idle_time: Duration,
    /// How long a connection may take to be made, all addresses of a name together. Range as above. Default 1 s: the
    /// first repetition of a lost SYN comes after one.
    pub connect_time: Duration,
    /// After how long a silence TCP asks whether the other end is still there; it gives up after three questions,
    /// `keepalive / 3` apart. Range: 1 s to [`LONGEST`]. Default 15 s.
    pub keepalive: Duration,
    /// How long one exchange may take, from the first byte written to the last byte read, whatever a policy says.
    /// Range: above 0, up to [`LONGEST`]. Default 30 s. It is there for calls that nothing else bounds; a policy's
    /// `attempt` is to be shorter.
    pub exchange_time: Duration,
    /// The largest body of a request, in bytes, which is kept in memory for all tries. Range: 0 to [`LARGEST_BODY`].
    /// Default 1 MiB.
    pub request_bytes_max: usize,
    /// The largest body of an answer, in bytes. Range: 0 to [`LARGEST_BODY`]. Default 4 MiB.
    pub answer_bytes_max: usize,
    /// The largest head of an answer, in bytes. Range: [`HEAD_BYTES`]. Default 64 KiB; the number of fields is at
    /// most 100 (hyper's own bound).
    pub head_bytes_max: usize,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            connections: 256,
            idle: 32,
            idle_time: Duration::from_secs(15),
            connect_time: Duration::from_secs(1),
            keepalive: Duration::from_secs(15),
            exchange_time: Duration::from_secs(30),
            request_bytes_max: 1 << 20,
            answer_bytes_max: 4 << 20,
            head_bytes_max: 64 << 10,
        }
    }
}

impl Spec {
    /// Sets [`Spec::connections`], and lowers [`Spec::idle`] to it.
    #[must_use]
    pub const fn connections(mut self, most: u32) -> Self {
        self.connections = most;
        if self.idle > most {
            self.idle = most;
        }
        self
    }

    /// Sets [`Spec::idle`] and [`Spec::idle_time`].
    #[must_use]
    pub const fn idle(mut self, most: u32, at_most: Duration) -> Self {
        (self.idle, self.idle_time) = (most, at_most);
        self
    }

    /// Sets [`Spec::connect_time`].
    #[must_use]
    pub const fn connect_time(mut self, at_most: Duration) -> Self {
        self.connect_time = at_most;
        self
    }

    /// Sets [`Spec::exchange_time`].
    #[must_use]
    pub const fn exchange_time(mut self, at_most: Duration) -> Self {
        self.exchange_time = at_most;
        self
    }

    /// Sets [`Spec::request_bytes_max`].
    #[must_use]
    pub const fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = bytes;
        self
    }

    /// Sets [`Spec::answer_bytes_max`].
    #[must_use]
    pub const fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let invalid =
            |field, given: String, problem, remedy| Err(Invalid::new("http", field, given, problem, remedy));
        if self.connections == 0 || self.connections > MOST_CONNECTIONS {
            let remedy = "give at least as many as the bulkhead has permits";
            return invalid(
                "connections",
                self.connections.to_string(),
                "it lies outside 1 to 20,000",
                remedy,
            );
        }
        if self.idle > self.connections {
            let problem = "it is more than `connections`";
            return invalid("idle", self.idle.to_string(), problem, "lower it, or raise `connections`");
        }
        let second = Duration::from_secs(1);
        for (field, time, least) in [
            ("idle_time", self.idle_time, Duration::from_nanos(1)),
            ("connect_time", self.connect_time, Duration::from_nanos(1)),
            ("keepalive", self.keepalive, second),
            ("exchange_time", self.exchange_time, Duration::from_nanos(1)),
        ] {
            if time < least {
                return invalid(field, format!("{time:?}"), "it is shorter than can be kept", "give more");
            }
            if time > LONGEST {
                return invalid(field, format!("{time:?}"), "it is longer than an hour", "check the unit");
            }
        }
        for (field, bytes) in
            [("request_bytes_max", self.request_bytes_max), ("answer_bytes_max", self.answer_bytes_max)]
        {
            if bytes > LARGEST_BODY {
                let problem = "it is more than a gibibyte, and bodies are held in memory";
                return invalid(field, bytes.to_string(), problem, "check the unit");
            }
        }
        if !HEAD_BYTES.contains(&self.head_bytes_max) {
            let problem = "it lies outside 8 KiB to 1 MiB";
            return invalid("head_bytes_max", self.head_bytes_max.to_string(), problem, "check the unit");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_cant_mean_what_it_says_is_refused_and_named() {
        assert_eq!(Spec::default().check(), Ok(()));
        let ok = Spec::default;
        for (spec, field) in [
            (ok().connections(0), "connections"),
            (ok().connections(MOST_CONNECTIONS + 1), "connections"),
            (Spec { idle: 257, ..ok() }, "idle"),
            (Spec { idle_time: Duration::ZERO, ..ok() }, "idle_time"),
            (ok().connect_time(Duration::ZERO), "connect_time"),
            (ok().connect_time(LONGEST + Duration::from_nanos(1)), "connect_time"),
            (Spec { keepalive: Duration::from_millis(999), ..ok() }, "keepalive"),
            (ok().exchange_time(Duration::MAX), "exchange_time"),
            (ok().request_bytes_max(LARGEST_BODY + 1), "request_bytes_max"),
            (ok().answer_bytes_max(usize::MAX), "answer_bytes_max"),
            (Spec { head_bytes_max: 1, ..ok() }, "head_bytes_max"),
        ] {
            assert_eq!(spec.check().unwrap_err().field(), field);
        }
    }
}
