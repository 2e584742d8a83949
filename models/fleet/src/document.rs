//! A document as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::ops::Range;

use toml::de::DeTable;

use crate::mistake::{Found, Mistakes};
use crate::policy::{Inbound, Outbound, Policy};
use crate::reader::{Findings, Reader, join};
use crate::value::{Value, quoted, shown};

/// The longest text of a document: a megabyte. The whole fleet of a company fits in a tenth of it.
pub const TEXT_MAX: usize = 1 << 20;

/// The most policies of a document.
pub const POLICIES_MAX: usize = 1_000;

/// What a `mainstay.toml` says, checked: all of it can be built and enforced.
///
/// Written with [`Display`] it is a document again, with every default filled in.
#[derive(Debug, Clone, Default)]
pub struct Document {
    policies: BTreeMap<String, Policy>,
    /// The settings that stood in the text, from its root.
    given: BTreeSet<String>,
}

/// Two that say the same are equal, whether they say it or leave it to the defaults.
impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

impl Document {
    /// Reads the text of a document. `file` is its name, for whoever is told what is wrong with it.
    ///
    /// # Errors
    /// [`Mistakes`]: all that were found, with line, column and what would be right. Nothing of the document is used then.
    pub fn read(file: &str, text: &str) -> Result<Self, Mistakes> {
        if text.len() > TEXT_MAX {
            let what = format!("the text is {} bytes long; at most {TEXT_MAX} are read", text.len());
            return Err(Mistakes::new(file, "", vec![Found { span: 0..0, key: String::new(), what }]));
        }
        let (root, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            // What stands behind a missing quote or bracket would be told as nonsense.
            let broken = broken.into_iter().map(|error| Found {
                span: error.span().unwrap_or(text.len()..text.len()),
                key: String::new(),
                what: format!("this is no TOML: {}", error.message().replace('\n', ", ")),
            });
            return Err(Mistakes::new(file, text, broken.collect()));
        }
        let (mut document, mut findings) = (Document::default(), Findings::default());
        document.fill(root.get_ref(), &mut findings);
        if !findings.mistakes.is_empty() {
            return Err(Mistakes::new(file, text, findings.mistakes));
        }
        document.given = findings.given;
        Ok(document)
    }

    fn fill(&mut self, root: &DeTable<'_>, findings: &mut Findings) {
        let mut reader = Reader::new(root, String::new(), 0..0, findings);
        let policies = reader.look("policy");
        reader.finish();
        let Some(policies) = policies else { return };
        let wrong = |span: Range<usize>, key: String, what: String| Found { span, key, what };
        let Some(table) = policies.get_ref().as_table() else {
            let what =
                format!("is {}: policies are sections, such as [policy.payment]", shown(policies.get_ref()));
            return findings.mistakes.push(wrong(policies.span(), "policy".to_owned(), what));
        };
        if table.len() > POLICIES_MAX {
            let what = format!("has {} policies; at most {POLICIES_MAX} are read", table.len());
            return findings.mistakes.push(wrong(policies.span(), "policy".to_owned(), what));
        }
        for (name, policy) in table {
            let path = join("policy", name.get_ref());
            let Some(settings) = policy.get_ref().as_table() else {
                let what = format!("is {}: a policy is a section, such as [{path}]", shown(policy.get_ref()));
                findings.mistakes.push(wrong(policy.span(), path, what));
                continue;
            };
            let mut reader = Reader::new(settings, path, name.span(), findings);
            if let Some(policy) = Policy::read(name.get_ref(), &mut reader) {
                self.policies.insert(name.get_ref().to_string(), policy);
            }
        }
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name)
    }

    /// The outbound policy of that name. None: it is not there, or inbound.
    pub fn outbound(&self, name: &str) -> Option<&Outbound> {
        match self.policy(name)? {
            Policy::Outbound(policy) => Some(policy),
            Policy::Inbound(_) => None,
        }
    }

    /// The inbound policy of that name. None: it is not there, or outbound.
    pub fn inbound(&self, name: &str) -> Option<&Inbound> {
        match self.policy(name)? {
            Policy::Inbound(policy) => Some(policy),
            Policy::Outbound(_) => None,
        }
    }

    /// Puts a policy in; the one that was there under its name, if there was one.
    pub fn insert(&mut self, policy: Policy) -> Option<Policy> {
        self.policies.insert(policy.name().to_owned(), policy)
    }

    /// Whether the text said this of a policy, or left it to its default. `setting` as in `retry.base`.
    pub fn is_given(&self, policy: &str, setting: &str) -> bool {
        self.given.contains(&join(&join("policy", policy), setting))
    }
}

impl Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, policy) in self.policies.values().enumerate() {
            let title = Title(policy.name());
            writeln!(f, "{}[policy.{title}]", if n == 0 { "" } else { "\n" })?;
            let settings = policy.settings();
            let is_section = |value: &Value| matches!(value, Value::Table(_));
            for (key, value) in settings.iter().filter(|(_, value)| !is_section(value)) {
                writeln!(f, "{key} = {value}")?;
            }
            for (section, settings) in &settings {
                let Value::Table(settings) = settings else { continue };
                writeln!(f, "\n[policy.{title}.{section}]")?;
                for (key, value) in settings {
                    writeln!(f, "{key} = {value}")?;
                }
            }
        }
        Ok(())
    }
}

/// A name as a key.
struct Title<'a>(&'a str);

impl Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(is_bare) {
            f.write_str(self.0)
        } else {
            quoted(self.0, f)
        }
    }
}
