//! Given / when / then: the rules of a decider as a test, without a store.

use std::fmt::Debug;

use super::decider::Decider;

/// The state that these events lead to.
///
/// ```
/// # use mainstay_flow::{Decider, Event, command::{given, given_nothing}};
/// # #[derive(Clone, Debug, PartialEq, Event)]
/// # #[event(crate = "mainstay_flow")]
/// # enum AccountEvent { DepositMade { amount: u64 } }
/// # use AccountEvent::DepositMade;
/// # #[derive(Default)] struct Account { balance: u64 }
/// # struct Deposit { amount: u64 }
/// # #[derive(Debug, PartialEq)] struct TooMuch;
/// # impl Decider for Account {
/// #     type Command = Deposit; type Event = AccountEvent; type Refusal = TooMuch;
/// #     fn decide(&self, c: &Deposit) -> Result<Vec<AccountEvent>, TooMuch> {
/// #         if self.balance + c.amount > 1_000 { return Err(TooMuch) }
/// #         Ok(vec![DepositMade { amount: c.amount }])
/// #     }
/// #     fn evolve(&mut self, DepositMade { amount }: &AccountEvent) { self.balance += amount; }
/// # }
/// given_nothing::<Account>().when(Deposit { amount: 5 }).then([DepositMade { amount: 5 }]);
/// given::<Account>([DepositMade { amount: 990 }]).when(Deposit { amount: 20 }).refused(TooMuch);
/// given::<Account>([DepositMade { amount: 990 }])
///     .when(Deposit { amount: 10 })
///     .then_state(|account| assert_eq!(account.balance, 1_000));
/// ```
pub fn given<D: Decider>(events: impl IntoIterator<Item = impl Into<D::Event>>) -> Given<D> {
    let mut state = D::default();
    for event in events {
        state.evolve(&event.into());
    }
    Given { state }
}

/// The state before the first event.
pub fn given_nothing<D: Decider>() -> Given<D> {
    Given { state: D::default() }
}

/// See [`given`].
#[derive(Debug)]
#[must_use = "say what happens: .when(command)"]
pub struct Given<D> {
    state: D,
}

/// What the decider decided; to be compared.
#[derive(Debug)]
#[must_use = "say what is expected: .then([events]), .refused(why) or .then_state(check)"]
pub struct Decided<D: Decider> {
    state: D,
    decided: Result<Vec<D::Event>, D::Refusal>,
}

impl<D: Decider> Given<D> {
    /// Decides a command in this state.
    pub fn when(self, command: D::Command) -> Decided<D> {
        let decided = self.state.decide(&command);
        Decided { state: self.state, decided }
    }
}

impl<D> Decided<D>
where
    D: Decider<Event: Debug + PartialEq, Refusal: Debug>,
{
    /// Exactly these events, in this order; an empty list for a command that changes nothing.
    ///
    /// # Panics
    /// When it decided otherwise: with both lists, and a mark at each line that differs.
    #[track_caller]
    pub fn then<E: Into<D::Event>>(self, expected: impl IntoIterator<Item = E>) {
        let expected: Vec<D::Event> = expected.into_iter().map(Into::into).collect();
        match self.decided {
            Ok(decided) if decided == expected => {}
            Ok(decided) => {
                fail(&format!("the decider decided otherwise:\n{}", difference(&expected, &decided)))
            }
            Err(refusal) => {
                fail(&format!(
                    "the decider refused: {refusal:?}\nexpected were the events:\n{}",
                    list(&expected)
                ));
            }
        }
    }

    /// Accepted; and the state after its events passes this check.
    ///
    /// # Panics
    /// When it was refused, or when the check does.
    #[track_caller]
    pub fn then_state(mut self, check: impl FnOnce(&D)) {
        match self.decided {
            Ok(decided) => {
                decided.iter().for_each(|event| self.state.evolve(event));
                check(&self.state);
            }
            Err(refusal) => fail(&format!("the decider refused: {refusal:?}\nexpected was that it accepts")),
        }
    }

    /// Refused, for exactly this reason.
    ///
    /// # Panics
    /// When it decided events, or refused for another reason.
    #[track_caller]
    pub fn refused(self, expected: D::Refusal)
    where
        D::Refusal: PartialEq,
    {
        match self.decided {
            Err(refusal) if refusal == expected => {}
            Err(refusal) => {
                fail(&format!(
                    "the decider refused for another reason:\n- expected {expected:?}\n+ refused  {refusal:?}"
                ));
            }
            Ok(decided) => {
                fail(&format!("the decider did not refuse ({expected:?}); it decided:\n{}", list(&decided)));
            }
        }
    }
}

/// A test's failure is a panic; this is the one place of the kit that has one.
#[track_caller]
#[allow(clippy::panic)]
fn fail(message: &str) -> ! {
    panic!("{message}");
}

fn list(events: &[impl Debug]) -> String {
    match events {
        [] => "  (no event)".into(),
        events => events.iter().map(|event| format!("  {event:?}")).collect::<Vec<_>>().join("\n"),
    }
}

/// Line by line: common lines plain, what is missing with `-`, what is too much with `+`.
fn difference(expected: &[impl Debug], decided: &[impl Debug]) -> String {
    let lines = (0..expected.len().max(decided.len())).flat_map(|i| {
        let missing = expected.get(i).map(|event| format!("{event:?}"));
        let found = decided.get(i).map(|event| format!("{event:?}"));
        if missing == found {
            vec![format!("  {}", found.unwrap_or_default())]
        } else {
            let missing = missing.map(|line| format!("- expected {line}"));
            missing.into_iter().chain(found.map(|line| format!("+ decided  {line}"))).collect()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
