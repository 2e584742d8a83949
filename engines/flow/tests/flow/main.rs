//! Commands and projections over the memory store, with faults where they matter.

mod bank;
mod command;
mod derive;
mod faulty;
mod kit;
mod projection;
mod reader;
mod rebuild;
mod snapshot;
