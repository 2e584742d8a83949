//! HTTP as all services speak it: the edge, bodies, limits, problems, and the loop that serves connections.

pub mod body;
pub mod host;
pub mod limits;
mod objects;
pub mod problem;
mod progress;
pub mod server;
