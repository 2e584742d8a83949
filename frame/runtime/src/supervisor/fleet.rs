//! The decision about all children: who starts when, who ends when. As pure as [`State`].

use mainstay_envelope::Monotonic;

use super::spec::Checked;
use super::state::{Act, Input, Phase, State};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// To one child, by its place in the order.
    Child(usize, Input),
    /// All are to finish and end, the last first.
    Stop,
    /// All are to end at once.
    Kill,
    /// Time has passed.
    Tick,
}

/// The children in their order. Each starts when those before it have been ready once, and ends when those
/// after it are gone.
#[derive(Debug)]
pub struct Fleet {
    children: Vec<State>,
    stopping: bool,
    begun: bool,
}

impl Fleet {
    /// So many children, none of them started. The first [`Fleet::on`], whatever its event, starts the first.
    pub fn new(settings: Checked, children: usize, now: Monotonic) -> Self {
        let children = (0..children).map(|_| State::new(settings, now)).collect();
        Self { children, stopping: false, begun: false }
    }

    /// Takes in what happened; what is to be done, to which child, in this order. `draw` gives 64 uniform
    /// random bits at a time.
    pub fn on(&mut self, now: Monotonic, event: Event, mut draw: impl FnMut() -> u64) -> Vec<(usize, Act)> {
        let mut acts = Vec::new();
        self.begun = true;
        match event {
            Event::Child(child, input) => self.one(now, child, input, draw(), &mut acts),
            Event::Tick => self.all(now, Input::Tick, &mut draw, &mut acts),
            Event::Stop => self.stopping = true,
            Event::Kill => {
                self.stopping = true;
                self.all(now, Input::Kill, &mut draw, &mut acts);
            }
        }
        // A child that was given up takes the others along: what they do together they can't do without it.
        self.stopping |= self.gave_up().is_some();
        if self.stopping {
            self.go_down(now, &mut draw, &mut acts);
        } else {
            self.go_up(now, &mut draw, &mut acts);
        }
        acts
    }

    fn one(&mut self, now: Monotonic, child: usize, input: Input, draw: u64, acts: &mut Vec<(usize, Act)>) {
        if let Some(state) = self.children.get_mut(child) {
            acts.extend(state.on(now, input, draw).map(|act| (child, act)));
        }
    }

    fn all(
        &mut self,
        now: Monotonic,
        input: Input,
        draw: &mut impl FnMut() -> u64,
        acts: &mut Vec<(usize, Act)>,
    ) {
        for child in 0..self.children.len() {
            self.one(now, child, input, draw(), acts);
        }
    }

    fn go_up(&mut self, now: Monotonic, draw: &mut impl FnMut() -> u64, acts: &mut Vec<(usize, Act)>) {
        let next = self.children.iter().position(|child| !child.was_ready());
        if let Some(next) = next.filter(|next| self.children[*next].phase() == Phase::Waiting) {
            self.one(now, next, Input::Start, draw(), acts);
        }
    }

    fn go_down(&mut self, now: Monotonic, draw: &mut impl FnMut() -> u64, acts: &mut Vec<(usize, Act)>) {
        // What does not run needs no turn, and must not start again while it waits for one.
        for child in 0..self.children.len() {
            if matches!(self.children[child].phase(), Phase::Waiting | Phase::Backoff { .. }) {
                self.one(now, child, Input::Drain, draw(), acts);
            }
        }
        for child in (0..self.children.len()).rev() {
            if !matches!(self.children[child].phase(), Phase::Draining { .. }) {
                self.one(now, child, Input::Drain, draw(), acts);
            }
            if !self.children[child].is_over() {
                return;
            }
        }
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn due(&self) -> Option<Monotonic> {
        self.children.iter().filter_map(State::due).min()
    }

    /// Where each child stands, in order.
    pub fn phases(&self) -> impl Iterator<Item = Phase> {
        self.children.iter().map(State::phase)
    }

    /// Whether every child is ready now: the fleet is green.
    pub fn all_ready(&self) -> bool {
        self.phases().all(|phase| phase == Phase::Ready)
    }

    /// Whether all are on their way down.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing runs or will run.
    pub fn is_over(&self) -> bool {
        self.begun && self.children.iter().all(State::is_over)
    }

    /// The first child that was given up.
    pub fn gave_up(&self) -> Option<usize> {
        self.phases().position(|phase| phase == Phase::GaveUp)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::spec::Spec;
    use super::*;

    const fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    const EXIT: Input = Input::Exited { for_good: false };

    fn fleet() -> Fleet {
        let settings = Spec { give_up_after: 1, ..Spec::default() }.check().unwrap();
        Fleet::new(settings, 3, at(0))
    }

    fn given(events: &[Event]) -> (Fleet, Vec<(usize, Act)>) {
        let mut fleet = fleet();
        let mut acts = Vec::new();
        for (n, event) in (0..).zip(events) {
            acts.extend(fleet.on(at(n), *event, || 0));
        }
        (fleet, acts)
    }

    const UP: [Event; 4] = [
        Event::Tick,
        Event::Child(0, Input::Ready),
        Event::Child(1, Input::Ready),
        Event::Child(2, Input::Ready),
    ];

    #[test]
    fn each_starts_when_those_before_it_are_ready() {
        assert_eq!(given(&[Event::Tick, Event::Tick]).1, [(0, Act::Spawn)]);
        let (fleet, acts) = given(&UP[..2]);
        assert_eq!((acts, fleet.all_ready()), (vec![(0, Act::Spawn), (1, Act::Spawn)], false));
        let (fleet, acts) = given(&UP);
        assert_eq!(acts, [(0, Act::Spawn), (1, Act::Spawn), (2, Act::Spawn)]);
        assert!(fleet.all_ready() && !fleet.is_over() && !fleet.is_stopping());
    }

    #[test]
    fn one_that_restarts_holds_up_nobody_and_makes_the_fleet_red() {
        let events = [UP[0], UP[1], Event::Child(0, EXIT), UP[2], UP[3]];
        let (fleet, acts) = given(&events);
        assert!(acts.contains(&(2, Act::Spawn)) && !fleet.all_ready());
    }

    #[test]
    fn one_that_is_not_heard_makes_the_fleet_red_and_holds_up_nobody() {
        let (mut fleet, _) = given(&UP);
        let later = at(3) + Spec::default().heard_within;
        fleet.on(later, Event::Child(0, Input::Ready), || 0);
        fleet.on(later, Event::Child(1, Input::Ready), || 0);
        assert_eq!((fleet.on(later, Event::Tick, || 0), fleet.all_ready()), (vec![], false));
        fleet.on(later, Event::Child(2, Input::Ready), || 0);
        assert!(fleet.all_ready());
    }

    #[test]
    fn they_end_in_reverse_order_one_after_the_other() {
        let down = [Event::Stop, Event::Child(2, EXIT), Event::Child(1, EXIT), Event::Child(0, EXIT)];
        for ended in 0..4 {
            let (fleet, acts) = given(&[&UP[..], &down[..=ended]].concat());
            let asked: Vec<usize> = acts[3..].iter().map(|(child, _)| *child).collect();
            assert_eq!(asked, [2, 1, 0][..3.min(ended + 1)]);
            assert_eq!(fleet.is_over(), ended == 3);
        }
    }

    #[test]
    fn stopping_in_the_middle_of_the_start_starts_nobody() {
        let (fleet, acts) =
            given(&[UP[0], Event::Stop, Event::Child(0, Input::Ready), Event::Child(0, EXIT)]);
        assert_eq!(acts, [(0, Act::Spawn), (0, Act::Terminate)]);
        assert!(fleet.is_over());
    }

    #[test]
    fn one_that_ends_before_its_turn_is_not_started_again() {
        let (mut fleet, _) =
            given(&[&UP[..], &[Event::Child(1, EXIT), Event::Stop, Event::Child(0, EXIT)]].concat());
        assert_eq!((fleet.on(at(99_999), Event::Tick, || 0), fleet.is_over()), (vec![(2, Act::Kill)], false));
        fleet.on(at(99_999), Event::Child(2, EXIT), || 0);
        assert!(fleet.is_over());
    }

    #[test]
    fn a_kill_reaches_all_at_once() {
        let (fleet, acts) = given(&[&UP[..], &[Event::Stop, Event::Kill, Event::Kill]].concat());
        assert_eq!(acts[3..], [(2, Act::Terminate), (0, Act::Kill), (1, Act::Kill), (2, Act::Kill)]);
        assert!(!fleet.is_over());
    }

    #[test]
    fn one_that_is_given_up_takes_the_others_along() {
        let (fleet, acts) = given(&[UP[0], UP[1], Event::Child(1, EXIT), Event::Child(0, EXIT)]);
        assert_eq!(acts, [(0, Act::Spawn), (1, Act::Spawn), (0, Act::Terminate)]);
        assert_eq!((fleet.gave_up(), fleet.is_over()), (Some(1), true));
    }

    #[test]
    fn it_is_due_with_the_first_of_its_children() {
        let ready_within = Spec::default().ready_within;
        assert_eq!(given(&UP[..1]).0.due(), Some(at(0) + ready_within));
        // All are ready: what is due next is a word of the first, which was heard at 1 ms.
        assert_eq!(given(&UP).0.due(), Some(at(1) + Spec::default().heard_within));
    }
}
