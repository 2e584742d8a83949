//! The rule: the table of requirements in ARCHITECTURE.md tells the truth.
//!
//! It has every row, once. A state is `open`, `begun` or `done`. A row marked done names its room, its
//! public name, an example and a test, and the test exists; whatever a row names, in any state, exists:
//!
//! * a room or an example: a path in backticks;
//! * a test: `path/file.rs::name`, or `name` alone where there is only one, or `path/file.rs` for a file
//!   whose documentation is run as a test. A test under `#[ignore]` holds nothing and doesn't count. A case
//!   of a conformance suite is a test when `conformance/mod.rs` lists it (`group::case`) and some store runs
//!   the suite; it is named by the file it is written in.
//!
//! Outside of the table too, whatever ARCHITECTURE.md names as `path/file.rs::name` is such a test.

use proc_macro2::{TokenStream, TokenTree};

use super::syntax::{self, Source};
use super::{Finding, Scene};

const FILE: &str = "ARCHITECTURE.md";

/// What the whole is judged against. A row that is dropped from the table would be a promise dropped.
const ROWS: [&str; 25] = [
    "R1.1", "R2.1", "R2.2a", "R2.2b", "R2.2c", "R2.3a", "R2.3b", "R2.4a", "R2.4b", "R2.4c", "R3.1", "R3.2",
    "R3.3", "R3.4", "R4.1", "R4.2", "R4.3", "R5.1", "R5.2", "R5.3", "R6.1", "R6.2", "R6.3", "R6.4", "R7",
];

/// One line of the table.
struct Row<'a> {
    line: usize,
    id: &'a str,
    state: &'a str,
    room: &'a str,
    public_name: &'a str,
    example: &'a str,
    test: &'a str,
}

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    let mut add = |line: usize, what: String, remedy: &str| {
        findings.push(Finding { rule: "requirements", file: FILE.into(), line, what, remedy: remedy.into() });
    };
    let Some(text) = scene.tree.contains(FILE).then(|| scene.tree.text(FILE)).flatten() else {
        return add(0, "the file is missing".into(), "write it; it holds the table of requirements");
    };
    let (rows, broken) = read_table(&text);
    for line in broken {
        add(line, "this row has not the seven columns of its table".into(), "fill or escape its cells");
    }
    for id in ROWS {
        match rows.iter().filter(|row| row.id == id).count() {
            1 => {}
            0 => add(0, format!("the row {id} is missing"), "add it; an open row is no shame"),
            count => add(0, format!("the row {id} stands there {count} times"), "keep one"),
        }
    }
    let tests = Tests::find(&scene.sources);
    for row in rows {
        if !ROWS.contains(&row.id) {
            add(row.line, format!("nobody asked for {}", row.id), "keep the ids of the requirements");
        }
        if !matches!(row.state, "open" | "begun" | "done") {
            let what = format!("{} has the state {:?}", row.id, row.state);
            add(row.line, what, "say open, begun or done");
        }
        if row.state == "done" {
            let columns = [
                ("room", row.room),
                ("public name", row.public_name),
                ("example", row.example),
                ("test", row.test),
            ];
            for (column, cell) in columns {
                if quoted(cell).is_empty() {
                    let what = format!("{} is marked done and names no {column}", row.id);
                    add(row.line, what, "name it in backticks, or mark the row begun");
                }
            }
        }
        for path in quoted(row.room).into_iter().chain(quoted(row.example)) {
            let folder = format!("{}/", path.trim_end_matches('/'));
            if !scene.tree.contains(path) && !scene.tree.files().any(|file| file.starts_with(&folder)) {
                add(row.line, format!("{} names {path}, which does not exist", row.id), "name what exists");
            }
        }
        for test in quoted(row.test) {
            // Those that name their file are looked up below, like everywhere else.
            if !names_file(test) && !tests.exist(test) {
                let what = format!("{} names the test {test}, which does not exist or is ignored", row.id);
                add(row.line, what, "name a test that runs, or mark the row open");
            }
        }
    }
    for (index, line) in text.lines().enumerate() {
        for test in quoted(line).into_iter().filter(|quoted| names_file(quoted) && !tests.exist(quoted)) {
            let what = format!("the test {test} does not exist or is ignored");
            add(index + 1, what, "name a test that runs, or take back what it was to hold");
        }
    }
}

/// Whether it reads like `path/file.rs::name`.
fn names_file(quoted: &str) -> bool {
    quoted.rsplit_once("::").is_some_and(|(file, _)| file.ends_with(".rs"))
}

/// The rows of the table whose first column is headed `Row`, and the lines that don't fit it.
fn read_table(text: &str) -> (Vec<Row<'_>>, Vec<usize>) {
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let Some(cells) = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        if cells.first() == Some(&"Row") {
            inside = true;
        } else if inside && !cells.iter().all(|cell| cell.chars().all(|c| matches!(c, '-' | ':'))) {
            match cells.as_slice() {
                &[id, _what, state, room, public_name, example, test] => {
                    rows.push(Row { line: line_number, id, state, room, public_name, example, test });
                }
                _ => broken.push(line_number),
            }
        }
    }
    (rows, broken)
}

/// What stands in backticks in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Every test of the tree.
struct Tests {
    /// (file, name)
    functions: Vec<(String, String)>,
    /// Files whose documentation has an example that is run.
    documented: Vec<String>,
}

impl Tests {
    fn find(sources: &[Source]) -> Tests {
        let mut tests = Tests { functions: Vec::new(), documented: Vec::new() };
        for source in sources {
            let mut names = Vec::new();
            if let Ok(tokens) = source.text.parse::<TokenStream>() {
                test_functions(tokens, &mut names);
            }
            tests.functions.extend(names.into_iter().map(|name| (source.file.clone(), name)));
            if has_doctest(&source.text) {
                tests.documented.push(source.file.clone());
            }
        }
        tests.functions.extend(suite_cases(sources));
        tests
    }

    fn exist(&self, named: &str) -> bool {
        match named.rsplit_once("::") {
            Some((file, name)) => self.functions.iter().any(|(in_file, is)| in_file == file && is == name),
            None if named.ends_with(".rs") => self.documented.iter().any(|file| file == named),
            None => self.functions.iter().filter(|(_, name)| name == named).count() == 1,
        }
    }
}

/// The cases of conformance suites that somebody runs.
fn suite_cases(sources: &[Source]) -> Vec<(String, String)> {
    const SUITE: &str = "conformance_suite";
    let mut cases = Vec::new();
    for suite in sources {
        let Some(folder) = suite.file.strip_suffix("conformance/mod.rs") else { continue };
        let is_run = sources.iter().any(|source| {
            !source.file.starts_with(folder) && source.text.parse().is_ok_and(|tokens| calls(tokens, SUITE))
        });
        let Ok(tokens) = suite.text.parse() else { continue };
        let mut mentions = Vec::new();
        syntax::mentions(tokens, &mut mentions);
        for (path, _) in mentions.into_iter().filter(|(path, _)| is_run && path.len() == 2) {
            let file = format!("{folder}conformance/{}.rs", path[0]);
            let written = |source: &&Source| source.file == file;
            let functions = sources.iter().find(written).and_then(|source| source.syntax.as_ref());
            let is_case = functions.is_some_and(|syntax| {
                syntax.items.iter().any(|item| matches!(item, syn::Item::Fn(f) if f.sig.ident == path[1]))
            });
            if is_case {
                cases.push((file, path[1].clone()));
            }
        }
    }
    cases.sort();
    cases.dedup();
    cases
}

/// Whether the macro is called somewhere.
fn calls(tokens: TokenStream, name: &str) -> bool {
    let mut was_name = false;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '!' && was_name => return true,
            TokenTree::Group(group) if calls(group.stream(), name) => return true,
            TokenTree::Ident(ident) => was_name = ident == name,
            _ => was_name = false,
        }
    }
    false
}

/// The names of functions under a `test` attribute, those inside macro arguments too (`proptest!`).
///
/// Read from tokens, since the arguments of a macro have no syntax.
fn test_functions(tokens: TokenStream, names: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let (mut is_test, mut is_ignored) = (false, false);
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        match (token, tokens.get(index + 1)) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(attribute))) if hash.as_char() == '#' => {
                let last = attribute_name(attribute.stream());
                is_test |= last.as_deref() == Some("test");
                is_ignored |= last.as_deref() == Some("ignore");
                index += 1;
            }
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "fn" => {
                if is_test && !is_ignored {
                    names.push(name.to_string());
                }
                (is_test, is_ignored) = (false, false);
            }
            // What may stand between an attribute and its function.
            (TokenTree::Ident(word), _) if word == "pub" || word == "async" || word == "unsafe" => {}
            (TokenTree::Group(group), _) => {
                test_functions(group.stream(), names);
                if group.delimiter() == proc_macro2::Delimiter::Brace {
                    (is_test, is_ignored) = (false, false);
                }
            }
            (TokenTree::Punct(end), _) if end.as_char() == ';' => (is_test, is_ignored) = (false, false),
            _ => {}
        }
        index += 1;
    }
}

/// The last word of an attribute's path: `test` of `tokio::test(start_paused = true)`.
fn attribute_name(tokens: TokenStream) -> Option<String> {
    let mut last = None;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => last = Some(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    last
}

/// Whether the documentation in a file has a block that `cargo test` runs.
fn has_doctest(text: &str) -> bool {
    let mut is_open = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(comment) = line.strip_prefix("//!").or_else(|| line.strip_prefix("///")) else {
            is_open = false;
            continue;
        };
        let Some(info) = comment.trim_start().strip_prefix("```") else { continue };
        if !is_open && matches!(info.trim(), "" | "rust" | "should_panic") {
            return true;
        }
        is_open = !is_open;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const TESTS: &str = "#[test]\nfn holds() {}\n\n#[test]\n#[ignore = \"slow\"]\nfn skipped() {}\n\n\
        fn helper() {}\n\nproptest! {\n    #[test]\n    fn property(x in 0..9u8) { f(x); }\n}\n\n\
        #[tokio::test(start_paused = true)]\nasync fn later() {}\n";

    /// A table with every row open but the first, which reads as given.
    fn tree(first: &str) -> Vec<String> {
        let mut table = format!(
            "# A\n\n| Row | What | State | Room | Public name | Example | Test |\n|---|---|---|---|---|---|---|\n{first}\n"
        );
        for row in &ROWS[1..] {
            table += &format!("| {row} | x | open | – | – | – | – |\n");
        }
        Fixture::new()
            .member("terms/a", "")
            .file("terms/a/src/lib.rs", "//! ```\n//! assert!(true);\n//! ```\npub fn f() {}\n")
            .file("terms/a/src/text.rs", "//! ```text\n//! a picture\n//! ```\npub fn g() {}\n")
            .file("terms/a/tests/all.rs", TESTS)
            .file(FILE, &table)
            .findings(check)
    }

    fn done(test: &str) -> String {
        format!("| R1.1 | x | done | `terms/a` | `a::f` | `terms/a/src/lib.rs` | {test} |")
    }

    #[test]
    fn a_done_row_with_a_test_that_exists_is_true() {
        for test in [
            "`terms/a/tests/all.rs::holds`",
            "`holds`",
            "`property` and `later`",
            "`terms/a/src/lib.rs`",
            "`holds`, `terms/a/tests/all.rs::property`",
        ] {
            assert_eq!(tree(&done(test)), Vec::<String>::new(), "{test}");
        }
    }

    #[test]
    fn a_done_row_without_a_test_that_runs_is_refused() {
        for test in [
            "`missing`",
            "`helper`",
            "`skipped`",
            "`terms/a/tests/all.rs::skipped`",
            "`terms/a/src/lib.rs::holds`",
            "`terms/a/src/text.rs`",
            "`holds`, `missing`",
        ] {
            let found = tree(&done(test));
            assert_eq!(found.len(), 1, "{test}: {found:?}");
            assert!(found[0].starts_with("ARCHITECTURE.md:5: "), "{found:?}");
            assert!(found[0].ends_with("does not exist or is ignored"), "{found:?}");
        }
        assert_eq!(tree(&done("–")), ["ARCHITECTURE.md:5: R1.1 is marked done and names no test"]);
    }

    #[test]
    fn a_case_of_a_suite_is_a_test_when_it_is_listed_and_run() {
        let found = |listed: &str, caller: &str| {
            let fixture = Fixture::new()
                .member("models/s", "")
                .file(
                    "models/s/src/conformance/mod.rs",
                    &format!("macro_rules! conformance_suite {{ () => {{ x! {{ {listed} }} }} }}\n"),
                )
                .file("models/s/src/conformance/feed.rs", "pub async fn dense(_: u8) {}\n")
                .file("models/s/tests/all.rs", caller);
            let mut table = "| Row | What | State | Room | Public name | Example | Test |\n".to_owned();
            for row in ROWS {
                table += &format!("| {row} | x | open | – | – | – | – |\n");
            }
            table += "\nHeld by `models/s/src/conformance/feed.rs::dense`.\n";
            fixture.file(FILE, &table).findings(check)
        };
        assert_eq!(found("feed::dense", "s::conformance_suite!(1);\n"), Vec::<String>::new());
        for (listed, caller) in [
            ("feed::dense", "// s::conformance_suite!(1);\nfn f() {}\n"),
            ("feed::other", "s::conformance_suite!(1);\n"),
            ("dense", "s::conformance_suite!(1);\n"),
        ] {
            let found = found(listed, caller);
            let expected = "the test models/s/src/conformance/feed.rs::dense does not exist or is ignored";
            assert_eq!(found, [format!("ARCHITECTURE.md:28: {expected}")], "{listed} {caller}");
        }
    }

    #[test]
    fn a_done_row_names_room_public_name_and_example() {
        let found = tree("| R1.1 | x | done | – | – | `terms/b` | `holds` |");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].ends_with("names no room") && found[1].ends_with("names no public name"));
        assert!(found[2].ends_with("names terms/b, which does not exist"), "{found:?}");
    }

    #[test]
    fn rows_are_whole_known_and_there_once() {
        let found = tree("| R9.9 | x | maybe | – | – | – | – |");
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md:0: the row R1.1 is missing",
                "ARCHITECTURE.md:5: nobody asked for R9.9",
                "ARCHITECTURE.md:5: R9.9 has the state \"maybe\""
            ]
        );
        let row = "| R1.1 | x | open | – | – | – | – |";
        assert_eq!(tree(&format!("{row}\n{row}")), ["ARCHITECTURE.md:0: the row R1.1 stands there 2 times"]);
        let found = tree(&format!("{row}\n| R2.1 | x |"));
        assert_eq!(found, ["ARCHITECTURE.md:6: this row has not the seven columns of its table"]);
        let found = Fixture::new().member("terms/a", "").findings(check);
        assert_eq!(found, ["ARCHITECTURE.md:0: the file is missing"]);
    }
}
