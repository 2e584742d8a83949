//! Lines of several processes on one output.

mod console;
mod lines;

pub use console::{Colours, Console};
pub use lines::{LINE_MAX, Lines, clean};
