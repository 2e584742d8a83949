//! The glue: processes, signals to them and time, around the pure decision.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::{Context, Monotonic};
use tokio::sync::{mpsc, watch};

use super::fleet::{Event, Fleet};
use super::notice::{Notice, What};
use super::process::{self, Heard, Program, Running};
use super::spec::Checked;
use super::state::{Act, Input, Phase};

/// What children have said and the loop has not heard yet. Full, they wait with their next line.
const UNHEARD: usize = 1_024;

/// What is asked of a supervisor from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    /// Nothing: go on.
    #[default]
    No,
    /// Let every child finish and end, the last first.
    Drain,
    /// End every child at once.
    Now,
}

/// A child was given up, and the others were drained.
#[derive(Debug, thiserror::Error)]
#[error(
    "{service} was given up after {starts} starts: {ended}. The others were drained; nothing runs any more. \
         It said last:\n{last_words}"
)]
pub struct Failed {
    /// Which child.
    pub service: String,
    /// How often it was started.
    pub starts: u32,
    /// How its last process ended.
    pub ended: String,
    /// The exit code of its last process, if it ended by itself.
    pub code: Option<i32>,
    /// The last lines of its log, at most five.
    pub last_words: String,
}

/// What is known of one child beside its phase.
#[derive(Default)]
struct Slot {
    running: Option<Running>,
    /// Where its process stands as it was told last, by itself or for it. Children repeat themselves.
    said: Option<What>,
    starts: u32,
    ended: String,
    code: Option<i32>,
    last_words: VecDeque<String>,
}

struct Supervisor<'a, T> {
    cx: &'a Context,
    settings: Checked,
    programs: &'a [Program],
    fleet: Fleet,
    slots: Vec<Slot>,
    hear: mpsc::Sender<(usize, Heard)>,
    tell: T,
}

/// Runs `programs`, in their order, until `stop` says otherwise or one of them is given up; returns when the last
/// process has ended. `tell` hears of everything that happens, in its order; it must not block.
///
/// To be run to its end. When it is dropped before, the children's [`Lifeline`](crate::Lifeline)s close.
///
/// # Errors
/// [`Failed`] when a child was given up.
pub async fn run(
    cx: &Context,
    settings: Checked,
    programs: &[Program],
    mut stop: watch::Receiver<Stop>,
    tell: impl FnMut(Notice),
) -> Result<(), Failed> {
    let (hear, mut heard) = mpsc::channel(UNHEARD);
    let fleet = Fleet::new(settings, programs.len(), cx.now());
    let slots = programs.iter().map(|_| Slot::default()).collect();
    let mut supervisor = Supervisor { cx, settings, programs, fleet, slots, hear, tell };
    supervisor.step(Event::Tick);
    let mut obeyed = Stop::No;
    while !supervisor.fleet.is_over() {
        let asked = *stop.borrow_and_update();
        if asked > obeyed {
            obeyed = asked;
            supervisor.step(if asked == Stop::Now { Event::Kill } else { Event::Stop });
            continue;
        }
        tokio::select! {
            Some((place, heard)) = heard.recv() => supervisor.hear(place, heard),
            // A sender that is gone asks for nothing more.
            Ok(()) = stop.changed() => {}
            () = until(cx, supervisor.fleet.due()) => supervisor.step(Event::Tick),
        }
    }
    supervisor.verdict()
}

async fn until(cx: &Context, due: Option<Monotonic>) {
    match due {
        // One millisecond more: timers of the runtime are that coarse, and one early costs another round.
        Some(due) => {
            tokio::time::sleep(due.saturating_since(cx.now()) + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

impl<T: FnMut(Notice)> Supervisor<'_, T> {
    fn hear(&mut self, place: usize, heard: Heard) {
        match heard {
            Heard::Told(what) => self.told(place, what),
            Heard::Input(input, what) => {
                if self.slots[place].said.as_ref() != Some(&what) {
                    self.slots[place].said = Some(what.clone());
                    self.told(place, what);
                }
                self.step(Event::Child(place, input));
            }
            Heard::Ended(input, what, code, last_words) => {
                let slot = &mut self.slots[place];
                slot.running = None;
                slot.said = None;
                slot.ended = what.to_string();
                slot.code = code;
                slot.last_words = last_words;
                self.told(place, what);
                self.step(Event::Child(place, input));
            }
        }
    }

    /// Decides, does what was decided, and tells what changed by it.
    fn step(&mut self, event: Event) {
        let before: Vec<Phase> = self.fleet.phases().collect();
        let was_green = self.fleet.all_ready();
        let chance = self.cx.chance();
        let acts = self.fleet.on(self.cx.now(), event, || chance.next_u64());
        let after: Vec<Phase> = self.fleet.phases().collect();
        for (place, act) in acts {
            self.act(place, act);
        }
        for (place, (before, after)) in before.into_iter().zip(after).enumerate() {
            if before != after {
                self.told_of_phase(place, after, event);
            }
        }
        if !was_green && self.fleet.all_ready() {
            self.told(self.programs.len().saturating_sub(1), What::AllReady);
        }
    }

    fn told_of_phase(&mut self, place: usize, phase: Phase, event: Event) {
        let what = match phase {
            Phase::Backoff { until } => {
                let wait = until.saturating_since(self.cx.now()).as_millis();
                What::Restarting { in_ms: u64::try_from(wait).unwrap_or(u64::MAX) }
            }
            Phase::Stopped => What::Stopped,
            Phase::GaveUp => What::GaveUp,
            // Found out by its silence, so it was not told with its own word.
            Phase::Unready if event == Event::Tick => {
                let within = self.settings.spec().heard_within;
                let reason = format!("it has said nothing for {within:?}: it is stopped, or too busy");
                self.slots[place].said = Some(What::Unready { reason: reason.clone() });
                What::Unready { reason }
            }
            // The others are told with what made them so.
            _ => return,
        };
        self.told(place, what);
    }

    fn act(&mut self, place: usize, act: Act) {
        if act == Act::Spawn {
            return self.spawn(place);
        }
        if let Some(running) = &self.slots[place].running {
            running.act(act);
        }
        self.told(place, if act == Act::Kill { What::Killed } else { What::Draining });
    }

    fn spawn(&mut self, place: usize) {
        self.slots[place].starts += 1;
        match process::start(&self.programs[place], place, &self.hear) {
            Ok((running, pid)) => {
                self.slots[place].running = Some(running);
                self.told(place, What::Started { pid });
            }
            Err(cause) => {
                // Told like an end, and by the same way: it comes back as an event, after this step.
                let what = What::NotStarted { cause: cause.to_string() };
                let ended = Heard::Ended(Input::Exited { for_good: false }, what, None, VecDeque::new());
                let hear = self.hear.clone();
                tokio::spawn(async move { hear.send((place, ended)).await });
            }
        }
    }

    fn told(&mut self, place: usize, what: What) {
        let service = self.programs.get(place).map(|program| program.name.clone()).unwrap_or_default();
        (self.tell)(Notice { service, what });
    }

    fn verdict(self) -> Result<(), Failed> {
        let Some(place) = self.fleet.gave_up() else { return Ok(()) };
        let slot = &self.slots[place];
        let lines: Vec<String> = slot.last_words.iter().map(|line| format!("  {line}")).collect();
        Err(Failed {
            service: self.programs[place].name.clone(),
            starts: slot.starts,
            ended: slot.ended.clone(),
            code: slot.code,
            last_words: if lines.is_empty() { "  (nothing)".to_owned() } else { lines.join("\n") },
        })
    }
}
