//! Which requests may be made a second time.

use http::{Method, Request};
use mainstay_envelope::Monotonic;
use mainstay_resilience::http::safety;
use mainstay_resilience::{Describe, Facts, Safety};
use toml::de::DeValue;

use crate::form::Form;
use crate::value::{Setting, Value, Wrong};

/// Which requests retry and hedge may make a second time: what `methods` and `idempotency_key` say beside their other
/// settings. Enforced by [`Repeats::describe`].
///
/// A request of a method that is not idempotent (RFC 9110 §9.2.2), a POST say, may only be repeated if it carries a key by
/// which the callee knows it again. So a document that lists one must say that its requests carry one; and one that
/// does not carry it is, all the same, tried once.
///
/// The default is what [`http::Requests`](mainstay_resilience::http::Requests) goes by: the idempotent methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    methods: Vec<Method>,
    keyed: bool,
}

impl Default for Repeats {
    fn default() -> Self {
        let methods =
            vec![Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
        Repeats { methods, keyed: false }
    }
}

impl Repeats {
    /// The methods whose requests may be repeated.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Whether those that are not idempotent carry a key.
    pub fn keyed(&self) -> bool {
        self.keyed
    }

    /// Requests as `describe` describes them; those whose method was not listed as [`Safety::Unsafe`], so that they are
    /// neither retried nor hedged.
    pub fn describe<D>(&self, describe: D) -> Limited<D> {
        Limited { describe, methods: self.methods.clone().into() }
    }

    pub(super) fn form<F: Form>(&mut self, form: &mut F) {
        let mut methods = Methods(self.methods.clone());
        form.required("methods", &mut methods);
        form.setting("idempotency_key", &mut self.keyed);
        form.then(|| self.methods = methods.0);
        let keyless = self.methods.iter().find(|method| safety(method, false) == Safety::Unsafe);
        match keyless {
            Some(method) if !self.keyed => form.refuse(
                "methods",
                format!(
                    "has {method}, which is not idempotent: a second one may do it twice; send each with an Idempotency-Key \
                     that the callee honours and say `idempotency_key = true`, or take {method} off the list"
                ),
            ),
            None if self.keyed => form.refuse(
                "idempotency_key",
                "is true: all `methods` are idempotent, so no key is ever asked for; leave it out".to_owned(),
            ),
            _ => {}
        }
    }
}

/// Requests of which some may not be repeated; made by [`Repeats::describe`].
#[derive(Debug, Clone)]
pub struct Limited<D> {
    describe: D,
    methods: std::sync::Arc<[Method]>,
}

impl<B, D: Describe<Request<B>>> Describe<Request<B>> for Limited<D> {
    fn facts(&self, request: &Request<B>, now: Monotonic) -> Facts {
        let facts = self.describe.facts(request, now);
        if self.methods.contains(request.method()) { facts } else { facts.with_safety(Safety::Unsafe) }
    }

    fn repeat(&self, request: &Request<B>) -> Option<Request<B>> {
        self.describe.repeat(request)
    }

    fn identity<'a>(&self, request: &'a Request<B>) -> Option<&'a str> {
        self.describe.identity(request)
    }

    fn send(&self, request: &mut Request<B>, facts: &Facts) {
        self.describe.send(request, facts);
    }
}

/// A list of methods.
struct Methods(Vec<Method>);

impl Setting for Methods {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let allowed = "it is a list of methods, such as [\"GET\", \"PUT\"]";
        let list = value.as_array().ok_or_else(|| Wrong::new(value, allowed))?;
        if list.is_empty() {
            let why = "is empty: nothing would ever be repeated; list methods, or leave the section out";
            return Err(Wrong { why: why.to_owned(), span: None });
        }
        let mut methods = Vec::new();
        for element in list {
            let wrong = |why: &str| {
                let Wrong { why, .. } = Wrong::new(element.get_ref(), why);
                Wrong { why: why.replacen("is", "has", 1), span: Some(element.span()) }
            };
            let name =
                element.get_ref().as_str().ok_or_else(|| wrong("a method is text, such as \"GET\""))?;
            if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
                return Err(wrong("methods are written in capitals (RFC 9110 §9.1)"));
            }
            let method = Method::from_bytes(name.as_bytes()).map_err(|_| wrong("it is no method"))?;
            if methods.contains(&method) {
                return Err(wrong("it stands there twice"));
            }
            methods.push(method);
        }
        Ok(Methods(methods))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::List(self.0.iter().map(ToString::to_string).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_resilience::http::Requests;

    #[test]
    fn only_what_is_listed_is_repeated_and_never_without_a_key() {
        let repeats = Repeats { methods: vec![Method::GET, Method::POST], keyed: true };
        let describe = repeats.describe(Requests);
        for (method, key, safety) in [
            ("GET", None, Safety::Safe),
            ("POST", Some("k"), Safety::Keyed),
            ("POST", None, Safety::Unsafe),
            ("PUT", None, Safety::Unsafe),
            ("PATCH", Some("k"), Safety::Unsafe),
        ] {
            let mut request = Request::builder().method(method);
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let request = request.body(()).unwrap();
            assert_eq!(describe.facts(&request, Monotonic::ORIGIN).safety, safety, "{method} {key:?}");
            assert!(describe.repeat(&request).is_some());
        }
    }
}
