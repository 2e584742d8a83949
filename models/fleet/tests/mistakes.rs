//! What is said of documents that are wrong: where, what, and what would be right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use mainstay_fleet::{Document, POLICIES_MAX, TEXT_MAX};

/// What is told of a document, a line for each mistake: line, column, key, and what is wrong with it.
fn told(text: &str) -> Vec<String> {
    let Err(mistakes) = Document::read("mainstay.toml", text) else { panic!("{text:?} is taken for right") };
    assert_eq!(mistakes.untold(), 0);
    mistakes.told().iter().map(|m| format!("{}:{} {m}", m.line, m.column)).collect()
}

/// Each row: a document, and all that is told of it.
#[test]
fn each_mistake_is_told_with_its_place_and_what_would_be_right() {
    let repeats = "methods = [\"GET\"]";
    let rows: &[(&str, &[&str])] = &[
        // keys that are none
        ("[polcy.a]", &["1:2 `polcy` is no setting; the nearest is `policy`"]),
        (
            "[policy.a]\natempt = \"1s\"",
            &[
                "2:1 `policy.a.atempt` is no setting; there are `direction`, `timeout`, `rate_limit`, `pacing`, `retry`, \
               `hedge`, `breaker`, `bulkhead`, `adaptive`",
            ],
        ),
        (
            "[policy.a.timeout]\natempt = \"1s\"",
            &["2:1 `policy.a.timeout.atempt` is no setting; the nearest is `attempt`"],
        ),
        (
            "[policy.a.circuit_breaker]",
            &["1:11 `policy.a.circuit_breaker` is no setting; the nearest is `breaker`"],
        ),
        (
            "[policy.a.breaker]\n\"failure rate\" = 1",
            &["2:1 `policy.a.breaker.\"failure rate\"` is no setting; the nearest is `failure_rate`"],
        ),
        // values of another type
        (
            "[policy.a.timeout]\ntotal = 300",
            &[
                "2:9 `policy.a.timeout.total` is 300: a time is text with its unit, such as \"300ms\" or \"2s\"",
            ],
        ),
        (
            "[policy.a.timeout]\ntotal = \"300\"",
            &[
                "2:9 `policy.a.timeout.total` is \"300\": its unit is missing; a time is a number with ns, us, ms, s, min, h \
               or d",
            ],
        ),
        (
            "[policy.a.timeout]\ntotal = \"5m\"",
            &["2:9 `policy.a.timeout.total` is \"5m\": m could be minutes or milliseconds; write min or ms"],
        ),
        (
            "[policy.a.timeout]\ntotal = \"-1s\"",
            &["2:9 `policy.a.timeout.total` is \"-1s\": no time is below zero"],
        ),
        ("[policy.a]\nretry = 5", &["2:9 `policy.a.retry` is 5: it is a section, such as [policy.a.retry]"]),
        (
            "[policy.a.bulkhead]\npermits = \"8\"\nqueue = -1\nwait = 2026-01-01",
            &[
                "2:11 `policy.a.bulkhead.permits` is \"8\": it is a whole number from 0 to 4294967295, without quotes",
                "3:9 `policy.a.bulkhead.queue` is -1: it is a whole number from 0 to 4294967295, without quotes",
                "4:8 `policy.a.bulkhead.wait` is a date or a time of day: a time is text with its unit, such as \"300ms\" \
                 or \"2s\"",
            ],
        ),
        (
            "[policy.a.breaker]\nfailure_rate = \"half\"\nwindow = 0.5\nmode = \"enforced\"",
            &[
                "2:16 `policy.a.breaker.failure_rate` is \"half\": it is a number such as 0.5, without quotes",
                "3:10 `policy.a.breaker.window` is 0.5: it is a number of calls such as 100, or a time such as \"10s\"",
                "4:8 `policy.a.breaker.mode` is \"enforced\": it is one of \"enforce\", \"observe_only\", \"disabled\", \
                 \"forced_open\"; the nearest is \"enforce\"",
            ],
        ),
        (
            "[policy.a.rate_limit]\nrate = \"fast\"",
            &[
                "2:8 `policy.a.rate_limit.rate` is \"fast\": a rate is text such as \"200/s\", \"1000/min\" or \"3/10s\"",
            ],
        ),
        (
            "[policy.a]\ndirection = \"in\"\nnot_looked_at = true",
            &["2:13 `policy.a.direction` is \"in\": it is one of \"outbound\", \"inbound\""],
        ),
        ("policy = 3", &["1:10 `policy` is 3: policies are sections, such as [policy.payment]"]),
        ("[policy]\na = 3", &["2:5 `policy.a` is 3: a policy is a section, such as [policy.a]"]),
        ("[policy.\"\"]", &["1:9 `policy.\"\"` has a name of 0 bytes: it is 1 to 128 bytes long"]),
        // what has no default
        (
            "[policy.a]\nbulkhead = {}\nbreaker = { slow = { rate = 0.5 } }",
            &[
                "2:1 `policy.a.bulkhead.permits` is missing, and has no default",
                "3:13 `policy.a.breaker.slow.longer_than` is missing, and has no default",
            ],
        ),
        (
            "[policy.a.pacing]",
            &[
                "1:11 `policy.a.pacing.rate` is missing, and has no default",
                "1:11 `policy.a.pacing.queue` is missing, and has no default",
            ],
        ),
        // values that can't mean what they say
        (
            "[policy.a.breaker]\nfailure_rate = nan",
            &[
                "2:16 `policy.a.breaker.failure_rate` is NaN: a share lies between a millionth and 1; give a share such as \
               0.5, not a percentage",
            ],
        ),
        (
            "[policy.a.breaker]\nfailure_rate = 50\n[policy.a.bulkhead]\npermits = 0",
            &[
                "2:16 `policy.a.breaker.failure_rate` is 50: a share lies between a millionth and 1; give a share such as \
                 0.5, not a percentage",
                "4:11 `policy.a.bulkhead.permits` is 0: it lies outside 1 to 1,000,000; give the number of calls that the \
                 callee bears at a time",
            ],
        ),
        (
            "[policy.a.breaker.slow]\nrate = 1\nlonger_than = \"0s\"",
            &[
                "3:15 `policy.a.breaker.slow.longer_than` is 0ns: it is zero; give a time above zero, such as 5s",
            ],
        ),
        (
            "[policy.a.rate_limit]\nrate = \"0/s\"",
            &[
                "2:8 `policy.a.rate_limit.rate` is 0: nothing would ever be admitted; give at least 1, or remove what is \
               limited",
            ],
        ),
        (
            "[policy.a.pacing]\nrate = \"5000/s\"\nqueue = 10",
            &[
                "2:8 `policy.a.pacing.rate` is 5000 in 1s: departures would be less than a millisecond apart, closer than a \
               timer can keep them; lower the rate, or use a token bucket",
            ],
        ),
        (
            "[policy.a]\ndirection = \"inbound\"\ndeadline = \"0s\"",
            &[
                "3:12 `policy.a.deadline` is 0ns: every call would be over before it began; give a time above zero, or leave \
               it out",
            ],
        ),
        // what would be repeated without being safe to repeat
        (
            "[policy.a.retry]\nbase = \"50ms\"",
            &["1:11 `policy.a.retry.methods` is missing, and has no default"],
        ),
        (
            "[policy.a.hedge]\nmethods = [\"GET\", \"POST\"]",
            &[
                "2:11 `policy.a.hedge.methods` has POST, which is not idempotent: a second one may do it twice; send each with \
               an Idempotency-Key that the callee honours and say `idempotency_key = true`, or take POST off the list",
            ],
        ),
        (
            "[policy.a.retry]\nmethods = [\"BREW\"]",
            &[
                "2:11 `policy.a.retry.methods` has BREW, which is not idempotent: a second one may do it twice; send each with \
               an Idempotency-Key that the callee honours and say `idempotency_key = true`, or take BREW off the list",
            ],
        ),
        (
            "[policy.a.retry]\nmethods = [\"GET\"]\nidempotency_key = true",
            &[
                "3:19 `policy.a.retry.idempotency_key` is true: all `methods` are idempotent, so no key is ever asked for; \
               leave it out",
            ],
        ),
        (
            "[policy.a.retry]\nmethods = [\"GET\", \"put\"]",
            &["2:19 `policy.a.retry.methods` has \"put\": methods are written in capitals (RFC 9110 §9.1)"],
        ),
        (
            "[policy.a.retry]\nmethods = [\"GET\", \"GET\"]",
            &["2:19 `policy.a.retry.methods` has \"GET\": it stands there twice"],
        ),
        (
            "[policy.a.retry]\nmethods = []",
            &[
                "2:11 `policy.a.retry.methods` is empty: nothing would ever be repeated; list methods, or leave the section \
               out",
            ],
        ),
        // what can't be enforced there, or not together
        (
            "[policy.a.rate_limit]\nrate = \"5/s\"\nqueue = 5\nkeys_max = 7",
            &[
                "3:9 `policy.a.rate_limit.queue` has no meaning here: what comes faster is refused and never waits; `pacing` \
                 makes it wait",
                "4:12 `policy.a.rate_limit.keys_max` has no meaning here: calls to one callee are limited together, so there \
                 are no keys",
            ],
        ),
        (
            "[policy.a]\ndirection = \"inbound\"\ncoarse_shed = { limit = 9, min = 4 }",
            &[
                "3:34 `policy.a.coarse_shed.min` has no meaning here: `limit` is a fixed one, so nothing is measured",
            ],
        ),
        (
            &format!("[policy.a.retry]\n{repeats}\n[policy.a.hedge]\n{repeats}"),
            &[
                "3:11 `policy.a.hedge` is set: the policy retries, too, and both around one try would multiply the tries; leave \
               out one of the two",
            ],
        ),
        (
            "[policy.a]\ntimeout.attempt = \"90s\"\nbreaker = {}",
            &[
                "3:1 `policy.a.breaker.probe_limit` is 60s, its default: a probe may take longer (`timeout.attempt`), and would \
               count as lost while it is under way; raise it to `timeout.attempt` at least",
            ],
        ),
        (
            "[policy.a]\ndirection = \"inbound\"\ncoarse_shed.limit = 3\nload_shed.limit = 5",
            &[
                "3:21 `policy.a.coarse_shed.limit` is 3: `load_shed.limit` is no less than that, so nobody would ever wait \
               there; raise it to the sum of `load_shed.limit` and `load_shed.queue`",
            ],
        ),
        // no TOML
        ("[policy.a\nx = 1", &["1:10 this is no TOML: unclosed table, expected `]`"]),
        ("[policy.a]\n[policy.a]", &["2:9 this is no TOML: duplicate key"]),
    ];
    for (text, expected) in rows {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[test]
fn the_line_is_shown_up_to_what_is_meant_and_no_further() {
    let text = "\
[policy.ä]
retry = { methods = [\"GET\"], bass\t= \"hunter2\" }
breaker = {\tmode = \"ähnlich\", window = 5 }

[store]
url = \"hunter2\"
";
    let expected = "\
conf/mainstay.toml: 3 mistakes, and nothing of it is used
conf/mainstay.toml:2:30: `policy.a.retry.bass` is no setting; the nearest is `base`
 2 | retry = { methods = [\"GET\"], bass
   |                              ^^^^
conf/mainstay.toml:3:20: `policy.a.breaker.mode` is \"ähnlich\": it is one of \"enforce\", \"observe_only\", \"disabled\", \
\"forced_open\"
 3 | breaker = { mode = \"ähnlich\"
   |                    ^^^^^^^^^
conf/mainstay.toml:5:2: `store` is no setting; there are `policy`
 5 | [store
   |  ^^^^^";
    // An unquoted key of TOML has no letter beyond ASCII.
    let shown = Document::read("conf/mainstay.toml", &text.replacen('ä', "a", 1)).unwrap_err().to_string();
    assert_eq!(shown, expected);
    let shown = Document::read("conf/mainstay.toml", text).unwrap_err().to_string();
    assert!(shown.contains("conf/mainstay.toml:1:") && shown.contains("no TOML"), "{shown}");
}

#[test]
fn what_is_read_and_what_is_told_is_bounded() {
    let long = format!("#{}", "x".repeat(TEXT_MAX));
    let expected = format!("1:1 the text is {} bytes long; at most {TEXT_MAX} are read", TEXT_MAX + 1);
    assert_eq!(told(&long), [expected]);
    let many: String = (0..=POLICIES_MAX).map(|n| format!("[policy.p{n}]\n")).collect();
    assert!(told(&many)[0].contains("at most 1000 are read"), "{:?}", told(&many));
    let wrong: String = (0..150).map(|n| format!("k{n} = 1\n")).collect();
    let mistakes = Document::read("mainstay.toml", &wrong).unwrap_err();
    assert_eq!((mistakes.told().len(), mistakes.untold()), (100, 50));
    assert!(mistakes.to_string().ends_with("\nand 50 more"), "{mistakes}");
    let deep = format!("policy = {}1{}", "[".repeat(2_000), "]".repeat(2_000));
    assert!(told(&deep)[0].contains("no TOML"));
    let wide = format!("[policy.a.breaker]\n{}mode = \"x\"", " ".repeat(4_000));
    let shown = Document::read("mainstay.toml", &wide).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}
