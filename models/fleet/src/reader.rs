//! Fills in settings from a document, and finds what is wrong with it.

use std::collections::BTreeSet;
use std::ops::Range;

use mainstay_resilience::Invalid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::form::Form;
use crate::mistake::Found;
use crate::nearest::nearest;
use crate::value::{Setting, shown};

/// What is found while a document is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) mistakes: Vec<Found>,
    /// The settings that are there, from the document's root.
    pub(crate) given: BTreeSet<String>,
}

/// Reads tables, one within the other.
pub(crate) struct Reader<'f, 'a, 'i> {
    at: At<'a, 'i>,
    findings: &'f mut Findings,
}

/// The table that is being read.
struct At<'a, 'i> {
    table: &'a DeTable<'i>,
    /// Of the table, from the document's root. Empty for the root.
    path: String,
    /// The key that opened it.
    header: Range<usize>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
    /// Mistakes that were found before this table.
    before: usize,
}

impl<'f, 'a, 'i> Reader<'f, 'a, 'i> {
    pub(crate) fn new(
        table: &'a DeTable<'i>,
        path: String,
        header: Range<usize>,
        findings: &'f mut Findings,
    ) -> Self {
        let before = findings.mistakes.len();
        Reader { at: At { table, path, header, known: Vec::new(), before }, findings }
    }

    /// Whether nothing wrong was found in the table so far.
    pub(crate) fn is_right(&self) -> bool {
        self.findings.mistakes.len() == self.at.before
    }

    /// Refuses what is there and was not asked for.
    pub(crate) fn finish(&mut self) {
        for key in self.at.table.keys() {
            let written = key.get_ref();
            if self.at.known.iter().any(|known| written == known) {
                continue;
            }
            let what = match nearest(written, &self.at.known) {
                Some(near) => format!("is no setting; the nearest is `{near}`"),
                None => format!("is no setting; there are {}", listed(&self.at.known)),
            };
            self.wrong(key.span(), written, what);
        }
    }

    /// Looks at one key's value, which from now on is a known one.
    pub(crate) fn look(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.at.known.push(key);
        let value = self.at.table.get(key)?;
        self.findings.given.insert(join(&self.at.path, key));
        Some(value)
    }

    fn wrong(&mut self, span: Range<usize>, key: &str, what: String) {
        self.findings.mistakes.push(Found { span, key: join(&self.at.path, key), what });
    }

    /// Refuses the table as a whole.
    pub(crate) fn refuse_all(&mut self, what: String) {
        self.findings.mistakes.push(Found { span: self.at.header.clone(), key: self.at.path.clone(), what });
    }

    /// Refuses what a check refuses, where it stands; not if something was wrong before, since it would be told of a
    /// default then. `key` tells the setting of a pattern's field; none: it is the table itself.
    pub(crate) fn check(
        &mut self,
        checked: Result<(), Invalid>,
        key: impl FnOnce(&Invalid) -> Option<String>,
    ) {
        if !self.is_right() {
            return;
        }
        let Err(invalid) = checked else { return };
        let (given, problem, remedy) = (invalid.given(), invalid.problem(), invalid.remedy());
        match key(&invalid) {
            None => self.refuse_all(format!("is {given}: {problem}; {remedy}")),
            Some(key) => {
                // Of a default the document says nothing; that it is one, its reader may not know.
                let path = join(&self.at.path, &key);
                let default = if self.findings.given.contains(&path) { "" } else { ", its default" };
                let span = place(self.at.table, &key).unwrap_or(self.at.header.clone());
                self.wrong(span, &key, format!("is {given}{default}: {problem}; {remedy}"));
            }
        }
    }
}

/// Where the value of `path` stands or, where it is a default, the section it would stand in.
fn place(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let mut found = None;
    let mut table = Some(table);
    for key in path.split('.') {
        let Some((name, value)) = table.and_then(|table| table.get_key_value(key)) else { break };
        table = value.get_ref().as_table();
        // Of a section, its name: all of it may be many lines.
        found = Some(if table.is_some() { name.span() } else { value.span() });
    }
    found
}

pub(crate) fn join(path: &str, key: &str) -> String {
    // What is no bare key of TOML would read as a path.
    let is_bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn listed(known: &[&str]) -> String {
    known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

impl Form for Reader<'_, '_, '_> {
    fn setting<T: Setting>(&mut self, key: &'static str, value: &mut T) {
        let Some(written) = self.look(key) else { return };
        match T::read(written.get_ref()) {
            Ok(read) => *value = read,
            Err(wrong) => self.wrong(wrong.span.unwrap_or(written.span()), key, wrong.why),
        }
    }

    fn required<T: Setting>(&mut self, key: &'static str, value: &mut T) {
        if !self.at.table.contains_key(key) {
            self.wrong(self.at.header.clone(), key, "is missing, and has no default".to_owned());
        }
        self.setting(key, value);
    }

    fn section<T: Copy>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        fresh: T,
        settings: impl FnOnce(&mut Self, &mut T),
        check: impl FnOnce(T) -> Result<(), Invalid>,
    ) {
        let Some(written) = self.look(key) else { return };
        let Some(table) = written.get_ref().as_table() else {
            let path = join(&self.at.path, key);
            let what = format!("is {}: it is a section, such as [{path}]", shown(written.get_ref()));
            return self.wrong(written.span(), key, what);
        };
        let header = self.at.table.get_key_value(key).map_or(written.span(), |(name, _)| name.span());
        let (path, before) = (join(&self.at.path, key), self.findings.mistakes.len());
        let inner = At { table, path, header, known: Vec::new(), before };
        let outer = std::mem::replace(&mut self.at, inner);
        let mut read = fresh;
        settings(self, &mut read);
        self.finish();
        self.check(check(read), |invalid| key_of(invalid, key));
        self.at = outer;
        *value = Some(read);
    }

    fn then(&mut self, follows: impl FnOnce()) {
        follows();
    }

    fn meaningless(&mut self, keys: &[&'static str], why: &'static str) {
        for key in keys {
            if let Some(written) = self.look(key) {
                self.wrong(written.span(), key, format!("has no meaning here: {why}"));
            }
        }
    }

    fn refuse(&mut self, key: &'static str, why: String) {
        let span = place(self.at.table, key).unwrap_or(self.at.header.clone());
        self.wrong(span, key, why);
    }
}

/// The setting of a field in the section of its pattern, where it has another name or none.
fn key_of(invalid: &Invalid, section: &str) -> Option<String> {
    match invalid.field() {
        // Of two numbers that a document writes as one rate.
        "permits" | "per" if invalid.pattern() != "bulkhead" => Some("rate".to_owned()),
        field if field == section => None,
        field => Some(field.to_owned()),
    }
}
