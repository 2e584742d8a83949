//! HTTP as all three services speak it: the edge, bodies, limits, problems, and the loop that serves connections.

pub mod body;
pub mod limits;
pub mod problem;
pub mod server;
