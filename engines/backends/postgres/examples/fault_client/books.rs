//! What a process that works on the store writes down, and what is read from it by one that comes later.
//!
//! ```text
//! try NUMBER AT BASIS                    ack NUMBER AT new|again stream=version …     at NUMBER POSITION
//! unknown | passing NUMBER AT why        conflict NUMBER AT version                   failed | stuck NUMBER AT why
//! seen POSITION AT hash                  rewound POSITION AT                          role AT word epoch
//! double | unplaced NUMBER AT             broken AT why
//! ```
//! AT is in milliseconds, of the machine's one clock. Each line is one write.

use std::collections::BTreeMap;
use std::io::Write;

use mainstay_envelope::Context;
use mainstay_event_store::Hash;

/// Writes a line that nothing can cut in two.
pub(crate) fn say(line: &str) {
    // What explains a refusal may be long; a pipe takes 4,096 bytes whole.
    let mut line: String = line.replace('\n', " ").chars().take(1_000).collect();
    line.push('\n');
    // Nobody reads it any more: then nobody wants to know.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Now, as the books write it.
pub(crate) fn now(cx: &Context) -> i64 {
    cx.wall().as_millis()
}

/// One act.
#[derive(Debug, Default, Clone)]
pub(crate) struct Entry {
    pub(crate) tried_at: i64,
    pub(crate) basis: u64,
    /// When it was acknowledged, and at which versions; a handled message says none the second time.
    pub(crate) acknowledged: Option<(i64, Vec<(String, u64)>)>,
    /// It was acknowledged for the second time: an earlier try, whose answer was lost, had written it.
    pub(crate) repeated: bool,
    /// Answered as unknown, at least once.
    pub(crate) unknown: bool,
    /// Where its receipt was located.
    pub(crate) located: Option<u64>,
    /// It was given up: the writer's own stream stands elsewhere.
    pub(crate) conflict: Option<i64>,
    /// Why it can't be as it was acknowledged: its effect came a second time, or its receipt has no place.
    pub(crate) doubt: Option<String>,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) acts: BTreeMap<u64, Entry>,
    /// Position, time and hash.
    pub(crate) seen: Vec<(u64, i64, Hash)>,
    /// When a reader found the feed to be another one.
    pub(crate) rewound: Vec<i64>,
    /// What the processes themselves saw go wrong.
    pub(crate) wrong: Vec<String>,
    pub(crate) passing: u64,
}

impl Books {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut books = Self::default();
        for line in text.lines() {
            books.take(line).ok_or_else(|| format!("not a line of the books: {line:?}"))?;
        }
        Ok(books)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let first = words.next();
        let number = || first?.parse::<u64>().ok();
        match word {
            "try" => {
                let (tried_at, basis) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                self.acts.entry(number()?).or_insert(Entry { tried_at, basis, ..Entry::default() });
            }
            "ack" => {
                let at = words.next()?.parse().ok()?;
                let repeated = match words.next()? {
                    "again" => true,
                    "new" => false,
                    _ => return None,
                };
                let versions = words.map(|word| {
                    let (stream, version) = word.split_once('=')?;
                    Some((stream.to_owned(), version.parse().ok()?))
                });
                let versions = versions.collect::<Option<_>>()?;
                let entry = self.acts.get_mut(&number()?)?;
                (entry.acknowledged, entry.repeated) = (Some((at, versions)), repeated);
            }
            "at" => self.acts.get_mut(&number()?)?.located = Some(words.next()?.parse().ok()?),
            "unknown" => self.acts.get_mut(&number()?)?.unknown = true,
            "passing" => self.passing += 1,
            "conflict" => self.acts.get_mut(&number()?)?.conflict = Some(words.next()?.parse().ok()?),
            "seen" => {
                let (at, hash) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                self.seen.push((number()?, at, hash));
            }
            "rewound" => self.rewound.push(words.next()?.parse().ok()?),
            "double" | "unplaced" => self.acts.get_mut(&number()?)?.doubt = Some(line.to_owned()),
            "failed" | "stuck" | "broken" => self.wrong.push(line.to_owned()),
            "role" | "ready" | "done" => {}
            _ => return None,
        }
        Some(())
    }
}
