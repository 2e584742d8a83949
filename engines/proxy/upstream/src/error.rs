//! How a call over HTTP fails, other than by a refusal of ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay_resilience::{Classified, Outcome};

/// A try that brought no usable answer, or a request that could not be made. Each says what happened, whose fault it
/// is, what was not done, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request can't be sent as it is: the caller's fault.
    #[error("the request can't be sent: {problem}. Nothing was sent; correct the request")]
    Request {
        /// What is wrong with it.
        problem: String,
    },
    /// No connection: nobody listens, the name is unknown, the network is down.
    #[error(
        "no connection to {to}: {source}. Nothing was sent; look whether it runs and its address is right"
    )]
    Connect {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// A connection took too long to be made.
    #[error("no connection to {to} within {limit:?}. Nothing was sent; look at the callee and the way to it")]
    ConnectTimedOut {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// As configured.
        limit: Duration,
    },
    /// As many connections are in use as there may be: our own limit, which says nothing about the callee.
    #[error(
        "all {limit} connections to {to} are in use. Nothing was sent; give the policy a bulkhead of no more \
         permits than `connections`, or raise `connections`"
    )]
    ConnectionsInUse {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// As configured.
        limit: u32,
    },
    /// The connection ended before anything of the request was written to it.
    #[error("{to} closed the connection before anything was sent ({source}). Nothing was sent; ask again")]
    Unsent {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The connection ended before the answer was there.
    #[error(
        "the connection to {to} was lost before the whole answer came ({source}). Whether the call took effect is \
         not known; only a safe or keyed request may be sent again"
    )]
    Lost {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// What hyper said.
        source: hyper::Error,
    },
    /// What came is not HTTP.
    #[error(
        "what {to} answered is not HTTP ({source}). Whether the call took effect is not known; look what listens there"
    )]
    NotHttp {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The answer is larger than it may be.
    #[error(
        "{to} answered more than {limit} bytes of {part}. The rest was not read and the connection was closed; \
         ask for less, or raise the limit"
    )]
    TooLarge {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// `head` or `body`.
        part: &'static str,
        /// As configured, in bytes.
        limit: usize,
    },
    /// The whole answer was not there in time.
    #[error(
        "{to} took longer than {limit:?} for one answer. Whether the call took effect is not known; give the policy \
         a shorter `attempt`, and look at the callee"
    )]
    TooSlow {
        /// The callee, `host:port`.
        to: Arc<str>,
        /// As configured.
        limit: Duration,
    },
    /// The callee answered, and not with success. Only [`Answer::json`](crate::Answer::json) and
    /// [`Answer::success`](crate::Answer::success) say so: to the rules an answer is an answer.
    #[error("the callee answered {status}{}", .detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Status {
        /// The status.
        status: http::StatusCode,
        /// The `detail`, or else the `title`, of its problem details (RFC 9457), cut to 400 bytes.
        detail: Option<String>,
    },
    /// The answer is a success with a body of another shape than expected.
    #[error("the answer is not what was expected: {problem}. The call was made; compare both sides' types")]
    Undecodable {
        /// What the decoder said.
        problem: String,
    },
}

impl HttpError {
    pub(crate) fn request(problem: impl Into<String>) -> Self {
        Self::Request { problem: problem.into() }
    }

    /// Whether nothing of the request was written to any connection.
    pub const fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Request { .. }
                | Self::Connect { .. }
                | Self::ConnectTimedOut { .. }
                | Self::ConnectionsInUse { .. }
                | Self::Unsent { .. }
        )
    }

    /// What hyper's error means, once something may have been sent to `to`.
    pub(crate) fn after_sending(to: Arc<str>, head_bytes_max: usize, source: hyper::Error) -> Self {
        if source.is_parse_too_large() {
            Self::TooLarge { to, part: "head", limit: head_bytes_max }
        } else if source.is_parse() {
            Self::NotHttp { to, source }
        } else if source.is_user() {
            Self::request(source.to_string())
        } else {
            Self::Lost { to, source }
        }
    }
}

impl Classified for HttpError {
    /// The callee's fault, or the way's, is transient. An answer that is too large stays so. Our own limit on
    /// connections says nothing about the callee.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimedOut { .. }
            | Self::Unsent { .. }
            | Self::Lost { .. }
            | Self::NotHttp { .. }
            | Self::TooSlow { .. } => Outcome::TRANSIENT,
            Self::ConnectionsInUse { .. } => Outcome::Cancelled,
            Self::Request { .. } | Self::TooLarge { .. } | Self::Status { .. } | Self::Undecodable { .. } => {
                Outcome::Permanent
            }
        }
    }

    fn had_no_effect(&self) -> bool {
        self.is_unsent()
    }
}
