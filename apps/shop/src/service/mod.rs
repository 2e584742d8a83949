//! What the services have in common: the state behind their routes, the edge, answers, and the wiring.

mod admission;
mod answer;
mod app;
mod edge;
pub mod metrics;
pub mod once;
mod routes;
pub mod rows;
mod run;
mod stats;
mod wiring;

pub use answer::{changed, json, page, read_problem, store_problem};
pub use app::App;
pub use edge::{Call, body, receive};
pub use routes::{all, path, query};
pub use run::serve;
pub use stats::Stats;
pub use wiring::{Follow, Health, ServeError, Wiring};
