//! The decider: what a command does, as two pure functions.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::Event;

/// The rules of one kind of thing (an account, an order). Its value is the state of one of them, folded from
/// its stream; `Default` is the state before the first event.
///
/// Both functions MUST be pure: no clock, no chance, no I/O. What they need of these comes in with the
/// command. (J. Chassaing, "Functional Event Sourcing Decider", 2021.)
///
/// ```
/// use mainstay_flow::{Decider, Event, command::given};
///
/// #[derive(Clone, Debug, PartialEq, Event)]
/// #[event(crate = "mainstay_flow")]
/// enum Lamp { SwitchedOn, SwitchedOff }
///
/// #[derive(Default)]
/// struct Switch { on: bool }
/// struct Press;
///
/// impl Decider for Switch {
///     type Command = Press;
///     type Event = Lamp;
///     type Refusal = std::convert::Infallible;
///
///     fn decide(&self, _: &Press) -> Result<Vec<Lamp>, Self::Refusal> {
///         Ok(vec![if self.on { Lamp::SwitchedOff } else { Lamp::SwitchedOn }])
///     }
///
///     fn evolve(&mut self, event: &Lamp) {
///         self.on = *event == Lamp::SwitchedOn;
///     }
/// }
///
/// given::<Switch>([Lamp::SwitchedOn]).when(Press).then([Lamp::SwitchedOff]);
/// ```
pub trait Decider: Default + Send + Sync + 'static {
    /// What is asked for. Several commands are an enum.
    type Command: Send + Sync;
    /// What happened: the facts of its stream.
    type Event: Event;
    /// Why the rules say no.
    type Refusal: Debug + Send + 'static;

    /// What the command makes happen in this state: no event (nothing to do), one or several, all or nothing.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// What the state is after an event. It can't refuse: the event has happened.
    fn evolve(&mut self, event: &Self::Event);
}

/// A decider whose state is kept now and then, so that a long stream needs no replay from its beginning.
///
/// A snapshot is a copy, never the truth: one that is of another [`Snapshot::SCHEMA`], or can't be read, is
/// ignored and the stream replayed. Raise `SCHEMA` whenever the fields of the state, or what `evolve` makes of
/// an event, change; a snapshot under an unchanged number is believed.
///
/// Worth it from some hundreds of events in a stream; below that a replay costs less than it.
pub trait Snapshot: Decider + Serialize + DeserializeOwned {
    /// Tells the snapshots of deciders apart that share a store, for ever.
    const NAME: &'static str;
    /// The shape and meaning of the state.
    const SCHEMA: u32 = 1;
    /// A snapshot is taken when a stream has grown by so many events since the last; at least 1.
    const EVERY: u64 = 100;
}
