//! The mutations as they are written down, and their edits as they are applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::tree::Tree;

/// Where the mutations are.
pub(super) const FOLDER: &str = "mutations";

/// In `caught_by`: the mutation is expected to hang, and the time limit catches it.
pub(super) const TIMEOUT: &str = "timeout";

/// In `caught_by`: the command is no test program; it says by exit code [`VIOLATED`] that it noticed.
pub(super) const EXIT: &str = "exit";

/// What a check of this program exits with when what it checked does not hold; other codes are failures to check.
pub(super) const VIOLATED: i32 = 1;

/// Enough to build one crate anew and run its tests on a busy machine.
const LIMIT_SECONDS: u64 = 300;

/// One way to break the code.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) name: String,
    /// One sentence: what it breaks.
    pub(super) what: String,
    pub(super) edits: Vec<Edit>,
    pub(super) command: Vec<String>,
    /// Tests that must fail.
    pub(super) caught_by: Vec<String>,
    /// Tests that may fail beside them.
    pub(super) also_fails: Vec<String>,
    pub(super) limit: Duration,
    /// Whether the gate runs it on every change.
    pub(super) gate: bool,
}

impl Mutation {
    /// The tests that must fail; none when a hang or an exit code is expected.
    pub(super) fn expected_tests(&self) -> impl Iterator<Item = &String> {
        self.caught_by.iter().filter(|name| *name != TIMEOUT && *name != EXIT)
    }

    /// Whether the time limit is what catches it.
    pub(super) fn expects_hang(&self) -> bool {
        self.caught_by == [TIMEOUT]
    }

    /// Whether the exit code is what catches it.
    pub(super) fn expects_exit(&self) -> bool {
        self.caught_by == [EXIT]
    }

    pub(super) fn first_file(&self) -> &str {
        self.edits.first().map_or("", |edit| edit.file.as_str())
    }
}

/// One place where text is replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// Relative to the root of the tree.
    pub(super) file: String,
    /// Stands exactly once in the file.
    pub(super) find: String,
    pub(super) replace: String,
}

/// A file of the folder, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    what: String,
    file: Option<String>,
    find: Option<String>,
    replace: Option<String>,
    #[serde(default)]
    edit: Vec<Edit>,
    command: Vec<String>,
    caught_by: Vec<String>,
    #[serde(default)]
    also_fails: Vec<String>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    gate: bool,
}

/// Reads every mutation of the tree, in the order of their file names.
pub(super) fn read(tree: &Tree) -> Result<Vec<Mutation>> {
    let mut names = BTreeSet::new();
    let mut mutations = Vec::new();
    for file in tree.files() {
        if !file.strip_prefix(FOLDER).is_some_and(|rest| rest.starts_with('/') && rest.ends_with(".toml")) {
            continue;
        }
        let text = tree.text(file).with_context(|| format!("{file} can't be read"))?;
        let mutation = parse(&text).with_context(|| format!("{file} is no mutation"))?;
        ensure!(names.insert(mutation.name.clone()), "{file}: another mutation is named {}", mutation.name);
        mutations.push(mutation);
    }
    Ok(mutations)
}

fn parse(text: &str) -> Result<Mutation> {
    let written: Written = toml::from_str(text)?;
    let mut edits = written.edit;
    match (written.file, written.find, written.replace) {
        (None, None, None) => {}
        (Some(file), Some(find), Some(replace)) if edits.is_empty() => {
            edits.push(Edit { file, find, replace });
        }
        _ => bail!("give file, find and replace together, or [[edit]] tables and none of the three"),
    }
    ensure!(!edits.is_empty(), "it edits nothing");
    for edit in &edits {
        ensure!(!edit.find.is_empty(), "the text to find in {} is empty", edit.file);
        ensure!(edit.find != edit.replace, "the edit of {} changes nothing", edit.file);
        let stays_inside =
            Path::new(&edit.file).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(stays_inside, "{} is not a path inside the tree", edit.file);
    }
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    ensure!(
        !written.name.is_empty() && written.name.chars().all(is_plain),
        "the name {:?} is to be made of a-z, 0-9, - and _",
        written.name
    );
    ensure!(!written.what.trim().is_empty(), "`what` is to say what it breaks");
    ensure!(!written.command.is_empty(), "the command is empty");
    let is_quiet = written.command.iter().any(|word| word == "-q" || word == "--quiet");
    ensure!(!is_quiet, "a quiet command does not say which test failed");
    ensure!(!written.caught_by.is_empty(), "caught_by names no test: nothing would notice");
    ensure!(
        written.caught_by.len() == 1 || !written.caught_by.iter().any(|name| name == TIMEOUT),
        "a hang is caught by the timeout alone: what failed before it is chance"
    );
    ensure!(
        written.caught_by.len() == 1 || !written.caught_by.iter().any(|name| name == EXIT),
        "an exit code names no test: name either the tests or the exit"
    );
    Ok(Mutation {
        name: written.name,
        what: written.what,
        edits,
        command: written.command,
        caught_by: written.caught_by,
        also_fails: written.also_fails,
        limit: Duration::from_secs(written.timeout_seconds.unwrap_or(LIMIT_SECONDS)),
        gate: written.gate,
    })
}

/// The new text of each edited file; nothing is written.
///
/// # Errors
/// When a text to find does not stand exactly once where it is looked for: the code has moved on, and the
/// mutation is stale.
pub(super) fn edited(tree: &Path, edits: &[Edit]) -> Result<BTreeMap<String, String>> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for edit in edits {
        let text = match texts.remove(&edit.file) {
            Some(text) => text,
            None => std::fs::read_to_string(tree.join(&edit.file))
                .with_context(|| format!("{} can't be read", edit.file))?,
        };
        let count = text.matches(edit.find.as_str()).count();
        ensure!(count == 1, "{} holds the text to find {count} times, not once", edit.file);
        texts.insert(edit.file.clone(), text.replacen(&edit.find, &edit.replace, 1));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"a-b\"\nwhat = \"Breaks.\"\nfile = \"src/lib.rs\"\nfind = \"x\"\n\
        replace = \"y\"\ncommand = [\"cargo\", \"test\"]\ncaught_by = [\"t\"]\n";

    #[test]
    fn one_edit_and_several_edits_are_read() {
        let one = parse(GOOD).unwrap();
        assert_eq!((one.edits.len(), one.limit.as_secs()), (1, 300));
        let several = "name = \"a\"\nwhat = \"Breaks.\"\ncommand = [\"cargo\", \"test\"]\n\
            caught_by = [\"timeout\"]\ntimeout_seconds = 9\n\
            [[edit]]\nfile = \"a.rs\"\nfind = \"x\"\nreplace = \"y\"\n\
            [[edit]]\nfile = \"b.rs\"\nfind = \"x\"\nreplace = \"\"\n";
        let several = parse(several).unwrap();
        assert_eq!((several.edits.len(), several.limit.as_secs()), (2, 9));
        assert!(several.expects_hang());
        assert_eq!(several.expected_tests().count(), 0);
    }

    #[test]
    fn a_plan_that_can_not_mean_what_it_says_is_refused() {
        for (change, to, why) in [
            ("name = \"a-b\"", "name = \"../b\"", "is to be made of"),
            ("what = \"Breaks.\"", "what = \" \"", "is to say what it breaks"),
            ("find = \"x\"\n", "", "together"),
            ("find = \"x\"", "find = \"\"", "is empty"),
            ("find = \"x\"", "find = \"y\"", "changes nothing"),
            ("src/lib.rs", "../lib.rs", "not a path inside"),
            ("src/lib.rs", "/lib.rs", "not a path inside"),
            ("[\"t\"]", "[]", "names no test"),
            ("[\"t\"]", "[\"t\", \"timeout\"]", "by the timeout alone"),
            ("[\"t\"]", "[\"t\", \"exit\"]", "either the tests or the exit"),
            ("[\"cargo\", \"test\"]", "[]", "command is empty"),
            ("[\"cargo\", \"test\"]", "[\"cargo\", \"test\", \"-q\"]", "does not say which"),
            ("replace = \"y\"", "replace = \"y\"\ncatched_by = []", "unknown field"),
        ] {
            let text = GOOD.replace(change, to);
            assert_ne!(text, GOOD, "{change}");
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(why), "{change} -> {to}: {error}");
        }
    }

    #[test]
    fn an_edit_is_applied_where_its_text_stands_once() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.rs"), "one two two\n").unwrap();
        let edit = |find: &str, replace: &str| Edit {
            file: "a.rs".into(),
            find: find.into(),
            replace: replace.into(),
        };
        let apply = |edits: &[Edit]| edited(directory.path(), edits).map_err(|error| error.to_string());
        assert_eq!(apply(&[edit("one", "1")]).unwrap()["a.rs"], "1 two two\n");
        assert_eq!(apply(&[edit("one ", ""), edit("two two", "2")]).unwrap()["a.rs"], "2\n");
        assert_eq!(
            apply(&[edit("three", "3")]).unwrap_err(),
            "a.rs holds the text to find 0 times, not once"
        );
        assert_eq!(apply(&[edit("two", "2")]).unwrap_err(), "a.rs holds the text to find 2 times, not once");
        let missing = Edit { file: "b.rs".into(), ..edit("one", "1") };
        assert_eq!(apply(&[missing]).unwrap_err(), "b.rs can't be read");
        // Nothing is written by planning.
        assert_eq!(std::fs::read_to_string(directory.path().join("a.rs")).unwrap(), "one two two\n");
    }
}
