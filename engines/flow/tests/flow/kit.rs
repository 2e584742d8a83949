//! The given / when / then kit, and that it fails when it should.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mainstay_flow::command::{given, given_nothing};

use crate::bank::{
    Account, AccountCreated, Ask, Create, Deposit, DepositMade, Many, No, Withdraw, WithdrawalMade,
};

fn panic_of(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("the kit accepted what is wrong");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn it_accepts_what_is_so() {
    given_nothing::<Account>()
        .when(Create { owner: "alice".into() })
        .then([AccountCreated { owner: "alice".into() }]);
    given::<Account>([DepositMade { amount: 100 }])
        .when(Withdraw { amount: 120 })
        .refused(No::Overdrawn { by: 20 });
    given::<Account>([DepositMade { amount: 100 }])
        .when(Withdraw { amount: 20 })
        .then_state(|account| assert_eq!(account.balance, 80));
    given_nothing::<Account>().when(Deposit { amount: 0 }).then::<crate::bank::AccountEvent>([]);
}

#[test]
fn another_decision_is_shown_line_by_line() {
    let shown = panic_of(|| {
        given_nothing::<Account>().when(Many { deposits: 2 }).then([
            DepositMade { amount: 1 },
            WithdrawalMade { amount: 1 },
            DepositMade { amount: 3 },
        ]);
    });
    let expected = "the decider decided otherwise:\n  DepositMade { amount: 1 }\n\
                    - expected WithdrawalMade { amount: 1 }\n+ decided  DepositMade { amount: 1 }\n\
                    - expected DepositMade { amount: 3 }";
    assert_eq!(shown, expected);
}

#[test]
fn a_refusal_where_events_were_expected_and_the_reverse_are_shown() {
    let overdraw = || given_nothing::<Account>().when(Withdraw { amount: 1 });
    let shown = panic_of(|| overdraw().then([WithdrawalMade { amount: 1 }]));
    assert!(shown.contains("refused: Overdrawn { by: 1 }") && shown.contains("WithdrawalMade"), "{shown}");
    let shown = panic_of(|| overdraw().then_state(|_| {}));
    assert!(shown.contains("refused: Overdrawn { by: 1 }"), "{shown}");
    let shown = panic_of(|| overdraw().refused(No::Exists));
    assert!(shown.contains("- expected Exists\n+ refused  Overdrawn { by: 1 }"), "{shown}");
    let shown = panic_of(|| given_nothing::<Account>().when(Deposit { amount: 5 }).refused(No::Exists));
    assert!(
        shown.contains("did not refuse (Exists)") && shown.contains("DepositMade { amount: 5 }"),
        "{shown}"
    );
    let shown = panic_of(|| given_nothing::<Account>().when(Deposit { amount: 0 }).refused(No::Exists));
    assert!(shown.contains("(no event)"), "{shown}");
}

#[test]
fn the_failure_is_reported_where_the_test_stands() {
    let line = std::sync::Arc::new(std::sync::Mutex::new(0));
    let seen = std::sync::Arc::clone(&line);
    let ask: Ask = Deposit { amount: 5 };
    let before = std::panic::take_hook();
    let mine = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        // The other tests panic too, and the hook is the process's.
        if std::thread::current().id() == mine {
            *seen.lock().unwrap() = info.location().unwrap().line();
        }
    }));
    let here = line!() + 1;
    let _ = catch_unwind(AssertUnwindSafe(|| given_nothing::<Account>().when(ask).refused(No::Exists)));
    std::panic::set_hook(before);
    assert_eq!(*line.lock().unwrap(), here);
}
