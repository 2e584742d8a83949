//! The OpenAPI 3.1 document of each service, written as data.
//!
//! Limits and problems are taken from the code's own constants and table, so that they can't drift; the shapes
//! are written here once more on purpose: the document is a promise, and tests hold every answer against it.

mod parts;
mod services;

pub use services::{inventory, order, payment, processor};
