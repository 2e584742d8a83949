//! One output for several processes: whole lines, each with the name of who said it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait for a slow output. Past it they are dropped and counted: a terminal that somebody has
/// stopped must not stop the services that write to it.
const QUEUE: usize = 4_096;

/// How long [`Console::close`] waits for a slow output.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The six colours of a terminal that read on light and dark, for names in their order.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// Whether names are coloured. For a terminal only: a file of escape codes is read by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// Where lines go. A clone is a handle on the same output. Never blocks who writes.
#[derive(Debug, Clone)]
pub struct Console {
    lines: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
    names: Arc<[String]>,
    width: usize,
    colours: Colours,
    json: bool,
}

/// Ends a console. Kept by whoever made it.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<()>);

impl Console {
    /// A console that writes to `output` on a thread of its own. `names` are those of the processes, for the
    /// width of the column and the colours; `json` makes of every line an object.
    pub fn new(
        mut output: impl Write + Send + 'static,
        names: impl IntoIterator<Item = String>,
        colours: Colours,
        json: bool,
    ) -> (Self, Written) {
        let (lines, mut queue) = mpsc::channel::<String>(QUEUE);
        let (done, written) = oneshot::channel();
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::spawn(move || {
            let mut gone = false;
            while let Some(mut line) = queue.blocking_recv() {
                // An output that has gone away is no reason to stop what runs.
                if gone {
                    continue;
                }
                line.push('\n');
                let missing = counted.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    let told = if json {
                        format!("{{\"event\":\"lost\",\"lines\":{missing}}}\n")
                    } else {
                        format!("({missing} lines were not shown: this output was too slow)\n")
                    };
                    line.push_str(&told);
                }
                gone = output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err();
            }
            let _ = done.send(());
        });
        let names: Arc<[String]> = names.into_iter().collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        (Self { lines, lost, names, width, colours, json }, Written(written))
    }

    /// A line that a process said, or that is about it; with `json` the object and not the line.
    pub fn said(&self, name: &str, line: &str, object: &impl Serialize) {
        if self.json { self.object(object) } else { self.send(format!("{} {line}", self.prefix(name))) }
    }

    /// A line of our own, as it is; with `json` the object and not the line.
    pub fn tell(&self, line: &str, object: &impl Serialize) {
        if self.json { self.object(object) } else { self.send(line.to_owned()) }
    }

    fn object(&self, object: &impl Serialize) {
        match serde_json::to_string(object) {
            Ok(line) => self.send(line),
            Err(_) => self.lose(),
        }
    }

    /// The name in its column, and in its colour.
    fn prefix(&self, name: &str) -> String {
        let column = format!("{name:width$} │", width = self.width);
        match (self.colours, self.names.iter().position(|known| known == name)) {
            (Colours::On, Some(place)) => format!("\x1b[{}m{column}\x1b[0m", COLOURS[place % COLOURS.len()]),
            _ => column,
        }
    }

    fn send(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives this handle back and waits until everything is written, if all other handles are gone too; at most
    /// two seconds.
    pub async fn close(self, written: Written) {
        drop(self);
        let _ = tokio::time::timeout(CLOSE_WITHIN, written.0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    async fn written(colours: Colours, json: bool) -> String {
        let output = Shared::default();
        let names = ["order".to_owned(), "inventory".to_owned()];
        let (console, written) = Console::new(output.clone(), names, colours, json);
        console.said("order", "taken", &serde_json::json!({ "line": "taken" }));
        console.said("inventory", "reserved", &1);
        console.tell("all green", &serde_json::json!({ "event": "green" }));
        console.close(written).await;
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[tokio::test]
    async fn names_stand_in_a_column() {
        let text = written(Colours::Off, false).await;
        assert_eq!(text, "order     │ taken\ninventory │ reserved\nall green\n");
        let text = written(Colours::On, false).await;
        assert!(text.starts_with("\x1b[36morder     │\x1b[0m taken\n\x1b[33minventory"), "{text:?}");
    }

    #[tokio::test]
    async fn in_json_every_line_is_an_object() {
        let text = written(Colours::On, true).await;
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], serde_json::json!({ "line": "taken" }));
        assert_eq!((lines.len(), lines[2]["event"].as_str()), (3, Some("green")));
    }

    /// Takes nothing until its gate opens.
    struct Slow(std::sync::mpsc::Receiver<()>, Shared);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_stopped_output_stops_nobody_and_what_is_lost_is_counted() {
        let (gate, closed) = std::sync::mpsc::channel();
        let output = Shared::default();
        let (console, written) = Console::new(Slow(closed, output.clone()), [], Colours::Off, false);
        for _ in 0..QUEUE + 500 {
            console.said("order", "line", &());
        }
        drop(gate);
        console.close(written).await;
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let shown = text.lines().filter(|line| line.ends_with("line")).count();
        let lost =
            text.lines().filter_map(|line| line.strip_prefix('(')?.split(' ').next()?.parse::<usize>().ok());
        assert_eq!(shown + lost.sum::<usize>(), QUEUE + 500);
        assert!(shown <= QUEUE + 1, "{shown}");
    }

    #[tokio::test]
    async fn an_output_that_has_gone_away_ends_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (console, written) = Console::new(Gone, [], Colours::Off, false);
        console.said("order", "a", &());
        console.said("order", "b", &());
        console.close(written).await;
    }
}
