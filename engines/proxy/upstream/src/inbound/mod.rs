//! Being called: the envelope of a request that arrives, the inbound rules around its handler, and what a refusal looks
//! like to whoever called.
//!
//! ```text
//! request ─► Receive ............ fields → Context; at the edge priority, tokens and names are set anew    400
//!            inbound policy ..... deadline passed? too much? then the handler is not begun                 429 503 504
//!            ─► handler ......... reads its `Context` from the request's extensions
//! answer ◄── Receive ............ the tokens that are left, the correlation id
//! ```
//!
//! ```
//! use mainstay_envelope::Context;
//! use mainstay_resilience::Policy;
//! use mainstay_upstream::inbound::{Arrivals, Receive};
//! use std::time::Duration;
//! use tower_layer::Layer;
//!
//! # #[derive(Clone)] struct Handler;
//! # impl tower_service::Service<http::Request<()>> for Handler {
//! #     type Response = http::Response<String>;
//! #     type Error = std::convert::Infallible;
//! #     type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
//! #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
//! #         std::task::Poll::Ready(Ok(()))
//! #     }
//! #     fn call(&mut self, _: http::Request<()>) -> Self::Future { std::future::ready(Ok(http::Response::default())) }
//! # }
//! # let handler = Handler;
//! let policy = Policy::inbound("orders").deadline(Duration::from_secs(2)).bulkhead(100, 0).build()?;
//! let receive = Receive::from_anybody(Context::system(), Duration::from_secs(10));
//! let service = receive.layer(policy.layer(Arrivals).layer(handler));     // a service of http::Request, for hyper or axum
//! # let _ = service; Ok::<(), mainstay_resilience::Invalid>(())
//! ```

mod problem;
mod receive;

pub use problem::{PROBLEM_JSON, failed, refused};
pub use receive::{Arrivals, Receive, Received, ReceivedFuture};
