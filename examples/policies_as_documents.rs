//! Policies as documents: the same rules as in Rust, said in a file, checked as a whole, changed while calls go on; and
//! a recording of what they decided, decided again.
//!
//! Run it: `cargo run --example policies_as_documents`. The chapter: docs/guide/policies-as-documents.md.

use std::error::Error;
use std::io::BufReader;

use mainstay::fleet::Document;
use mainstay::resilience::record::{Reader, Recording};
use mainstay::resilience::{EveryErrorIsTransient, Facts, Failed, Policy, Replayed, Safety, Why, replay};

const TEXT: &str = include_str!("mainstay.toml");

/// Asks, and is told what comes back.
async fn charge(policy: &Policy, answer: Result<u32, &'static str>) -> Result<u32, Failed<&'static str>> {
    let keyed = |now| Facts::unknown(now).with_safety(Safety::Keyed);
    policy.call(keyed, EveryErrorIsTransient, move |_| async move { answer }).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Right as a whole, or nothing of it is used.
    let document = Document::read("examples/mainstay.toml", TEXT)?;
    for policy in document.policies() {
        let rules: Vec<&str> = policy.settings().into_iter().map(|(key, _)| key).collect();
        println!("{}: {}", policy.name(), rules.join(", "));
    }

    // The policy that it describes, live: the same as if the builder had been told all that.
    let said = document.outbound("payment").ok_or("the document says nothing of payment")?;
    let policy = said.builder().record(Recording::All, 1_024).build()?;
    assert_eq!(charge(&policy, Ok(7)).await?, 7);
    while !matches!(charge(&policy, Err("no route")).await, Err(Failed::Refused(_))) {}
    let refused = charge(&policy, Ok(7)).await.err().ok_or("the breaker let a call through")?;
    println!("\nPayment failed too often: {refused}");
    assert!(refused.refusal().is_some_and(|refusal| refusal.why == Why::BreakerOpen));

    // The text is edited. With a slip, all that is wrong is told, and the policy stays as it is.
    let slipped = TEXT.replace("open_for", "opn_for").replace("\"300ms\"", "300");
    let mistakes =
        Document::read("examples/mainstay.toml", &slipped).err().ok_or("the slips were not seen")?;
    println!("\n{mistakes}");
    assert_eq!(mistakes.told().len(), 2);
    // An operator closes the breaker for good. What was learnt stays, and the next call goes through.
    let edited = TEXT.replace("open_for = \"5s\"", "open_for = \"5s\", mode = \"disabled\"");
    let edited = Document::read("examples/mainstay.toml", &edited)?;
    policy.reconfigure(edited.outbound("payment").ok_or("it is gone")?.spec())?;
    assert_eq!(charge(&policy, Ok(8)).await?, 8);

    // What it decided, as a file; `mainstay replay FILE` does the same as this.
    let file = tempfile::NamedTempFile::new()?;
    let saved = policy.scope().save(std::io::BufWriter::new(file.as_file()))?;
    let recording = Reader::new(BufReader::new(file.reopen()?))?;
    let mut again = 0;
    for decision in recording {
        let decision = decision?;
        assert_eq!(replay(&decision), Replayed::Same, "{decision}");
        again += 1;
    }
    println!("\n{again} of {saved} recorded decisions, decided again: the same, bit for bit");
    assert!(again == saved && again > 0);
    Ok(())
}
