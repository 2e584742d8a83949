//! Choreographies: what is found wrong with them, and how they are drawn.

use mainstay_flow::saga::{Finding, Graph, Participant};

/// An order that is paid, then taken from the stock, and undone when either fails.
fn shop() -> Vec<Participant> {
    vec![
        Participant::new("order")
            .starts("OrderCreated")
            .on("InventoryUpdated", "inventory")
            .produces("OrderConfirmed")
            .ends()
            .on("PaymentRefused", "payment")
            .produces("OrderCancelled")
            .ends()
            .on("PaymentRefunded", "payment")
            .produces("OrderCancelled")
            .ends()
            .on("StockSet", "inventory")
            .done(),
        Participant::new("payment")
            .on("OrderCreated", "order")
            .produces("PaymentProcessed")
            .fails_with("PaymentRefused")
            .on("StockShort", "inventory")
            .produces("PaymentRefunded")
            .done(),
        Participant::new("inventory")
            .announces("StockSet")
            .on("PaymentProcessed", "payment")
            .produces("InventoryUpdated")
            .fails_with("StockShort")
            .done(),
    ]
}

/// What is found, in its own words.
fn sentences(participants: &[Participant]) -> Vec<String> {
    Graph::of(participants).check().iter().map(ToString::to_string).collect()
}

/// The shop with one participant replaced.
fn shop_but(name: &str, other: impl Into<Participant>) -> Vec<Participant> {
    let mut other = Some(other.into());
    let shop = shop().into_iter().map(|p| if p.name() == name { other.take().unwrap() } else { p }).collect();
    assert!(other.is_none());
    shop
}

#[test]
fn the_shop_holds_together() {
    assert_eq!(sentences(&shop()), Vec::<String>::new());
}

#[test]
fn what_is_published_and_consumed_by_nobody_is_found() {
    let inventory = Participant::new("inventory")
        .announces("StockSet")
        .starts("StockCounted")
        .on("PaymentProcessed", "payment")
        .produces("InventoryUpdated")
        .produces("StockReserved")
        .fails_with("StockShort");
    let says = |event: &str| {
        format!(
            "inventory publishes {event}, and nobody consumes it: let a participant react to it, declare that its \
             reaction ends the saga, or that it is only announced"
        )
    };
    assert_eq!(sentences(&shop_but("inventory", inventory)), [says("StockCounted"), says("StockReserved")]);
}

#[test]
fn who_waits_for_what_nobody_publishes_is_found() {
    let payment = Participant::new("payment")
        .on("OrderCreated", "order")
        .produces("PaymentProcessed")
        .fails_with("PaymentRefused")
        .on("StockShort", "inventory")
        .produces("PaymentRefunded")
        .on("OrderAmended", "order")
        .on("CardExpired", "bank")
        .on("InventoryUpdated", "order");
    assert_eq!(
        sentences(&shop_but("payment", payment)),
        [
            "payment reacts to OrderAmended of order, and order publishes no such fact: nothing will ever arrive; \
             declare who publishes OrderAmended, or remove the reaction",
            "payment reacts to CardExpired of bank, and bank is none of the participants: nothing will ever \
             arrive; declare who publishes CardExpired, or remove the reaction",
            "payment reacts to InventoryUpdated of order, and order publishes no such fact: nothing will ever \
             arrive; it is inventory that publishes InventoryUpdated",
        ]
    );
}

#[test]
fn a_failure_that_nobody_handles_is_found_also_when_it_is_announced() {
    let payment = Participant::new("payment")
        .announces("PaymentRefused")
        .announces("CardStolen")
        .on("OrderCreated", "order")
        .produces("PaymentProcessed")
        .fails_with("PaymentRefused")
        .fails_with("CardStolen")
        .on("StockShort", "inventory")
        .produces("PaymentRefunded");
    assert_eq!(
        sentences(&shop_but("payment", payment)),
        [
            "payment may fail with CardStolen, and nobody reacts to it: what was done before is left as it is; let \
          those who have to undo something react to CardStolen"
        ]
    );
}

#[test]
fn a_failure_whose_reactions_lead_to_no_end_is_found() {
    let order = Participant::new("order")
        .starts("OrderCreated")
        .on("InventoryUpdated", "inventory")
        .produces("OrderConfirmed")
        .ends()
        .on("PaymentRefused", "payment")
        .on("PaymentRefunded", "payment")
        .produces("OrderCancelled")
        .ends()
        .on("StockSet", "inventory");
    assert_eq!(
        sentences(&shop_but("order", order)),
        [
            "payment may fail with PaymentRefused, and no reaction to it leads to an end: what was done before is \
          left as it is; let what follows PaymentRefused come to a reaction that ends the saga"
        ]
    );
}

/// A payment that is tried again: refused, it asks the order for another card, and that begins again.
fn again(times: Option<u32>) -> Vec<Participant> {
    let again = Participant::new("order")
        .starts("OrderCreated")
        .on("PaymentProcessed", "payment")
        .ends()
        .on("PaymentRefused", "payment")
        .produces("CardChanged")
        .fails_with("OrderCancelled");
    let order = match times {
        Some(times) => again.at_most(times),
        None => again,
    };
    let payment = Participant::new("payment")
        .on("OrderCreated", "order")
        .produces("PaymentProcessed")
        .fails_with("PaymentRefused")
        .on("CardChanged", "order")
        .produces("PaymentProcessed")
        .fails_with("PaymentRefused")
        .on("OrderCancelled", "order")
        .ends();
    vec![order.into(), payment.into()]
}

#[test]
fn a_cycle_is_found_unless_one_of_its_reactions_is_bounded() {
    assert_eq!(sentences(&again(Some(3))), Vec::<String>::new());
    assert_eq!(
        sentences(&again(None)),
        [
            "CardChanged (order) → PaymentRefused (payment) leads back to itself, and nothing bounds how often: say \
          of one of these reactions how often it may happen (at_most)"
        ]
    );
}

#[test]
fn each_of_two_cycles_is_found_and_the_shortest_way_around_is_told() {
    let a = Participant::new("a").starts("Go").on("Pong", "b").produces("Ping").on("Stop", "b").ends();
    let b = Participant::new("b")
        .on("Go", "a")
        .produces("Stop")
        .produces("Pong")
        .produces("Long")
        .on("Ping", "a")
        .produces("Pong")
        .produces("Long");
    let c = Participant::new("c").on("Long", "b").produces("Longer").on("East", "d").produces("West");
    let d = Participant::new("d")
        .on("Longer", "c")
        .produces("East")
        .on("West", "c")
        .produces("East")
        .on("East2", "c");
    let found = Graph::of(&[a.into(), b.into(), c.into(), d.into()]).check();
    let cycles: Vec<&Vec<String>> = found
        .iter()
        .filter_map(
            |finding| if let Finding::UnboundedCycle { facts } = finding { Some(facts) } else { None },
        )
        .collect();
    assert_eq!(
        cycles,
        [&vec!["Ping (a)".to_owned(), "Pong (b)".into()], &vec!["West (c)".into(), "East (d)".into()]]
    );
}

#[test]
fn a_participant_that_follows_itself_is_found() {
    let order = Participant::new("order")
        .starts("OrderCreated")
        .on("OrderCreated", "order")
        .produces("OrderConfirmed")
        .ends();
    assert_eq!(
        sentences(&[order.into()]),
        [
            "order follows itself: it reacts to its own OrderCreated; do both in the one transaction that makes \
          OrderCreated"
        ]
    );
}

#[test]
fn a_start_that_comes_to_no_end_is_found_once_at_its_root() {
    let order = Participant::new("order").starts("OrderCreated").on("PaymentProcessed", "payment");
    let payment = Participant::new("payment").on("OrderCreated", "order").produces("PaymentProcessed");
    assert_eq!(
        sentences(&[order.into(), payment.into()]),
        [
            "a request to order begins with OrderCreated, from which no end can be reached: declare which reaction \
          ends the saga"
        ]
    );
}

#[test]
fn a_way_that_leads_nowhere_is_found_where_it_parts_from_those_that_end() {
    let payment = Participant::new("payment")
        .on("OrderCreated", "order")
        .produces("PaymentProcessed")
        .produces("PaymentPostponed")
        .fails_with("PaymentRefused")
        .on("StockShort", "inventory")
        .produces("PaymentRefunded");
    let mut shop = shop_but("payment", payment);
    shop.push(Participant::new("clerk").on("PaymentPostponed", "payment").produces("CustomerCalled").into());
    shop.push(Participant::new("diary").on("CustomerCalled", "clerk").into());
    assert_eq!(
        sentences(&shop),
        [
            "payment may publish PaymentPostponed, after which no end can be reached, though the saga could still \
          end before: declare which reaction to PaymentPostponed ends it, or that PaymentPostponed is only \
          announced"
        ]
    );
}

#[test]
fn a_reaction_that_nothing_leads_to_is_found() {
    let mut shop = shop();
    shop.push(Participant::new("mill").on("Flour", "bakery").produces("Grain").at_most(2).into());
    shop.push(Participant::new("bakery").on("Grain", "mill").produces("Flour").into());
    let says = |who: &str, what: &str, from: &str| {
        format!(
            "{who} reacts to {what} of {from}, and nothing ever leads there: no request begins it and nothing \
             announced does; declare what starts it, or remove the reaction"
        )
    };
    assert_eq!(sentences(&shop), [says("bakery", "Grain", "mill"), says("mill", "Flour", "bakery")]);
}

#[test]
fn what_is_wrong_with_one_declaration_is_found() {
    let find = |participant: Participant| {
        let found = Graph::of(&[participant]).check();
        let Finding::BadParticipant { why, .. } = &found[0] else { panic!("{found:?}") };
        why.clone()
    };
    let says = |why: &str| {
        format!("participant \"p\" can't take part: {why}; nothing was started; correct its declaration")
    };
    let p = || Participant::new("p");
    assert_eq!(find(p().announces("")), says("event type \"\" is not usable: it is empty"));
    assert_eq!(
        find(p().on("A\nB", "q").into()),
        says("event type \"A\\nB\" is not usable: it holds the control character U+000A")
    );
    assert_eq!(
        find(p().on("A", "").into()),
        says("it follows \"\", which is no participant's name: it is empty")
    );
    assert_eq!(
        find(p().on("A", "q").on("A", "q").into()),
        says("two reactions to A of q; which one holds can't be told")
    );
    assert_eq!(
        find(p().on("A", "q").at_most(0).into()),
        says("it reacts to A at most 0 times; leave the reaction out")
    );
    let many = (0..65).fold(p(), |p, n| p.announces(format!("E{n}")));
    assert_eq!(find(many), says("a list of 65 event types, at most 64"));
    let many = (0..257).fold(p(), |p, n| p.on(format!("E{n}"), "q").into());
    assert_eq!(find(many), says("257 reactions, at most 256"));
    let long = "x".repeat(129);
    assert!(find(Participant::new(&long)).contains("its name is no name of a topic"));
    assert!(p().on("A", "q").on("A", "r").on("B", "q").done().check().is_ok());
}

#[test]
fn two_participants_of_one_name_are_found_once() {
    let three = [Participant::new("a"), Participant::new("a"), Participant::new("b"), Participant::new("a")];
    assert_eq!(
        sentences(&three),
        ["a is declared twice: its topic would have two owners; give one of them another name"]
    );
}

#[test]
fn a_choreography_past_all_measure_is_cut_and_said_to_be() {
    let many: Vec<Participant> = (0..200)
        .map(|n| (0..30).fold(Participant::new(format!("p{n}")), |p, m| p.starts(format!("E{m}"))))
        .collect();
    assert_eq!(Graph::of(&many).check(), [Finding::TooLarge { max: 4_000 }]);
    let drawn = Graph::of(&many).text().to_string();
    assert!(drawn.lines().count() < 10_000);
}

#[test]
fn the_order_of_declarations_makes_no_difference() {
    let mut turned = shop();
    turned.reverse();
    let (one, other) = (Graph::of(&shop()), Graph::of(&turned));
    assert_eq!(one.text().to_string(), other.text().to_string());
    assert_eq!(one.svg().to_string(), other.svg().to_string());
}

#[test]
fn the_text_drawing_follows_each_fact_once() {
    let expected = "\
OrderCreated ◄ a request to order
└─ payment
   ├─ PaymentProcessed
   │  └─ inventory
   │     ├─ InventoryUpdated
   │     │  └─ order ■
   │     │     └─ OrderConfirmed
   │     └─ ✗ StockShort
   │        └─ payment
   │           └─ PaymentRefunded
   │              └─ order ■
   │                 └─ OrderCancelled
   └─ ✗ PaymentRefused
      └─ order ■
         └─ OrderCancelled

StockSet ◄ announced by inventory
└─ order

■ ends the saga   ✗ failure   ↑ drawn above   ⚠ see the findings";
    assert_eq!(Graph::of(&shop()).text().to_string(), expected);
}

#[test]
fn the_text_drawing_shows_rings_bounds_and_what_is_wrong() {
    let mut wrong = again(Some(3));
    wrong.push(Participant::new("clerk").on("Called", "customer").produces("Noted").into());
    wrong.push(Participant::new("x").on("Y", "y").produces("X").into());
    wrong.push(Participant::new("y").on("X", "x").produces("Y").into());
    let expected = "\
OrderCreated ◄ a request to order
└─ payment
   ├─ PaymentProcessed
   │  └─ order ■
   └─ ✗ PaymentRefused
      └─ order (at most 3×)
         ├─ CardChanged
         │  └─ payment
         │     ├─ PaymentProcessed ↑
         │     └─ ✗ PaymentRefused ↑
         └─ ✗ OrderCancelled
            └─ payment ■

Called ◄ expected from customer, which does not publish it ⚠
└─ clerk
   └─ Noted ⚠ consumed by nobody

X ◄ of x
└─ y
   └─ Y
      └─ x
         └─ X ↑

■ ends the saga   ✗ failure   ↑ drawn above   ⚠ see the findings";
    assert_eq!(Graph::of(&wrong).text().to_string(), expected);
}

#[test]
fn a_long_chain_is_drawn_in_pieces_that_stay_near_the_margin() {
    let mut chain = vec![Participant::new("p0").starts("E0")];
    for n in 1..=400 {
        let next = Participant::new(format!("p{n}")).on(format!("E{}", n - 1), format!("p{}", n - 1));
        chain.push(if n == 400 { next.ends().into() } else { next.produces(format!("E{n}")).into() });
    }
    let graph = Graph::of(&chain);
    assert_eq!(graph.check(), []);
    let text = graph.text().to_string();
    for n in 0..400 {
        let shown = text.matches(&format!("E{n}\n")).count() + text.matches(&format!("E{n} ")).count();
        assert!((1..=2).contains(&shown), "E{n} is drawn {shown} times");
    }
    assert!(text.lines().all(|line| line.chars().count() < 100));
    assert!(text.contains("E11 … below\n\nE11 ◄ of p11\n"), "{text}");
    assert!(graph.svg().to_string().len() < 1 << 20);
}

#[test]
fn names_that_were_not_checked_can_neither_steer_a_terminal_nor_leave_the_picture() {
    let hostile = Participant::new("<script>alert(1)</script>")
        .starts("\u{1b}[2J\" onload=\"x")
        .announces("a & b]]>\u{202e}\u{ffff}");
    let graph = Graph::of(&[hostile]);
    let text = graph.text().to_string();
    assert!(text.chars().all(|c| !c.is_control() || c == '\n') && !text.contains('\u{202e}'), "{text}");
    let svg = graph.svg().to_string();
    assert!(!svg.contains("<script") && !svg.contains("\" onload=\"") && !svg.contains('\u{1b}'), "{svg}");
    assert!(svg.contains("&lt;script&gt;") && svg.contains("a &amp; b]]&gt;\u{fffd}\u{fffd}"), "{svg}");
}

#[test]
fn the_picture_is_what_it_was() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/choreography.svg");
    let drawn = Graph::of(&shop()).svg().to_string();
    if std::env::var_os("MAINSTAY_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(golden, &drawn).unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap();
    assert!(drawn == expected, "look at the new picture, then write it with MAINSTAY_GOLDEN=write:\n{drawn}");
}

#[test]
fn the_picture_tells_in_words_what_it_shows() {
    let svg = Graph::of(&shop()).svg().to_string();
    let between = |from: &str, to: &str| svg.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
    assert_eq!(between("choreography-title\">", "</title>"), "Choreography of inventory, order, payment");
    let said = between("choreography-desc\">", "</desc>");
    for sentence in [
        "A request to order begins with OrderCreated.",
        "inventory announces StockSet.",
        "payment reacts to OrderCreated with PaymentProcessed, or fails with PaymentRefused.",
        "order reacts to InventoryUpdated with OrderConfirmed, which ends the saga.",
        "order reacts to StockSet.",
    ] {
        assert!(said.contains(sentence), "{sentence} is not in: {said}");
    }
}
