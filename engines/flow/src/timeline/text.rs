//! A timeline for people.

use std::fmt::{self, Display};

use super::{Cause, Entry, Parked, Timeline, time};
use crate::plain::{columns, plain};

/// A timeline as lines of text; made by [`Timeline::text`].
#[derive(Debug)]
pub struct Text<'a>(&'a Timeline);

impl Timeline {
    /// One line an event: when, how long after its cause, whose, in which stream, what, and because of what. Then
    /// what waits, and what is missing.
    pub fn text(&self) -> Text<'_> {
        Text(self)
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timeline { correlation, events, parked, incomplete } = self.0;
        if self.0.is_empty() {
            return write!(f, "correlation {}: nothing is recorded of it in these stores", correlation.0);
        }
        let (first, last) = (events.iter().map(|e| e.at).min(), events.iter().map(|e| e.at).max());
        let took =
            last.zip(first).map_or(0, |(last, first)| last.as_millis().saturating_sub(first.as_millis()));
        write!(f, "correlation {}: {} events in {took} ms", correlation.0, events.len())?;
        let rows: Vec<[String; 5]> = events.iter().map(row).collect();
        let mut widths = [0; 5];
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = columns(cell).max(*width));
        }
        for (entry, [at, wait, participant, stream, event_type]) in events.iter().zip(&rows) {
            let pad = |cell: &str, column: usize| " ".repeat(widths[column] - columns(cell));
            write!(f, "\n{at}{}  {}{wait}  ", pad(at, 0), pad(wait, 1))?;
            write!(f, "{participant}{}  {stream}{}  {event_type}", pad(participant, 2), pad(stream, 3))?;
            if let Some(cause) = &entry.cause {
                write!(f, "{}  ◄ {}", pad(event_type, 4), because(cause))?;
            }
            if let Some(published) = entry.published {
                let after = published.as_millis().saturating_sub(entry.at.as_millis());
                write!(f, "  ► published {after:+} ms")?;
            }
        }
        for parked in parked {
            write!(f, "\n{}", waiting(parked))?;
        }
        for participant in incomplete {
            write!(f, "\n… {} holds more of it than is shown", plain(participant))?;
        }
        Ok(())
    }
}

fn row(entry: &Entry) -> [String; 5] {
    let wait = entry.wait_ms.map_or_else(String::new, |wait| format!("{wait:+} ms"));
    [time(entry.at), wait, plain(&entry.participant), plain(&entry.stream), plain(&entry.event_type)]
}

fn because(cause: &Cause) -> String {
    match &cause.event {
        Some(event) => format!("{} of {}", plain(&event.event_type), plain(&event.participant)),
        None => format!("{}, which is not here", cause.id),
    }
}

fn waiting(parked: &Parked) -> String {
    let Parked { participant, from, event_type, since, tries, is_dead, why, .. } = parked;
    let (participant, from, event_type) = (plain(participant), plain(from), plain(event_type));
    let fate = if *is_dead { "waits for an operator" } else { "is tried again" };
    let tries = if *tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") };
    let why: String = plain(why).chars().take(200).collect();
    format!(
        "⚠ {participant} could not handle {event_type} of {from}: since {}, {tries}, {fate}: {why}",
        time(*since)
    )
}
