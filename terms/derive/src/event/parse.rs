//! What the user wrote, checked. Every refusal points at the word that is wrong.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Path, Result, Type, Variant};

/// The longest name of an event type, in bytes: the event store's limit, told where the name is written.
const NAME_BYTES_MAX: usize = 128;

/// An enum of events.
pub(super) struct Events {
    pub(super) ident: Ident,
    /// The module that holds the trait.
    pub(super) root: Path,
    pub(super) variants: Vec<Kind>,
}

/// One variant: one type of event.
pub(super) struct Kind {
    pub(super) ident: Ident,
    pub(super) name: String,
    pub(super) schema: u32,
    pub(super) upcast: Option<Path>,
    /// serde attributes of the variant that shape the payload.
    pub(super) serde: Vec<TokenStream>,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    Unit,
    /// Boxed: a field is many times the size of the other shapes.
    Newtype(Box<Field>),
    Named(Vec<Field>),
}

pub(super) struct Field {
    /// None in a newtype.
    pub(super) ident: Option<Ident>,
    pub(super) ty: Type,
    /// serde attributes, passed on as they are.
    pub(super) serde: Vec<Attribute>,
    /// The tag's name, before the colon.
    pub(super) tag: Option<String>,
}

/// Collects errors, so that the user sees all of them at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn say(&mut self, span: Span, message: impl std::fmt::Display) {
        self.add(Error::new(span, message));
    }

    fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

impl Events {
    pub(super) fn read(input: &DeriveInput) -> Result<Self> {
        let Data::Enum(data) = &input.data else {
            let message = "an Event is an enum with a variant for each type of event; \
                           put this struct into a variant: `enum …Event { Made(Made) }`";
            return Err(Error::new(input.ident.span(), message));
        };
        let mut errors = Errors::default();
        if !input.generics.params.is_empty() {
            let message = "an Event has no parameters: what is stored has to be read without knowing them";
            errors.say(input.generics.span(), message);
        }
        if data.variants.is_empty() {
            errors.say(input.ident.span(), "an Event without variants can never happen; add one");
        }
        let root = errors.take(read_enum_attributes(&input.attrs)).unwrap_or_else(default_root);
        let mut names = HashSet::new();
        let mut variants = Vec::new();
        for variant in &data.variants {
            let Some((kind, name_span)) = errors.take(Kind::read(variant)) else { continue };
            if !names.insert(kind.name.clone()) {
                let message =
                    format!("two variants are stored as {:?}; they could not be told apart", kind.name);
                errors.say(name_span, message);
            }
            variants.push(kind);
        }
        match errors.0 {
            Some(error) => Err(error),
            None => Ok(Self { ident: input.ident.clone(), root, variants }),
        }
    }
}

fn default_root() -> Path {
    syn::parse_quote!(::mainstay::flow)
}

fn read_enum_attributes(attributes: &[Attribute]) -> Result<Path> {
    let mut root = None;
    for attribute in attributes {
        if attribute.path().is_ident("event") {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("crate") {
                    return Err(unknown(&meta, "on the enum", &["crate = \"path\""]));
                }
                set(&mut root, meta.value()?.parse::<LitStr>()?.parse_with(Path::parse_mod_style)?, &meta)
            })?;
        }
        if attribute.path().is_ident("serde") {
            for key in keys(attribute)? {
                if key.is_ident("rename_all_fields") {
                    let message = "the payload of an event does not see this; put `#[serde(rename_all = …)]` \
                                   on each variant";
                    return Err(Error::new(key.span(), message));
                }
            }
        }
    }
    Ok(root.unwrap_or_else(default_root))
}

impl Kind {
    /// The variant, and where its name is written.
    fn read(variant: &Variant) -> Result<(Self, Span)> {
        let (mut name, mut schema, mut upcast) = (None::<LitStr>, None::<LitInt>, None::<Path>);
        let mut serde = Vec::new();
        for attribute in &variant.attrs {
            if attribute.path().is_ident("event") {
                attribute.parse_nested_meta(|meta| {
                    if meta.path.is_ident("name") {
                        set(&mut name, meta.value()?.parse()?, &meta)
                    } else if meta.path.is_ident("schema") {
                        set(&mut schema, meta.value()?.parse()?, &meta)
                    } else if meta.path.is_ident("upcast") {
                        set(&mut upcast, meta.value()?.parse()?, &meta)
                    } else if meta.path.is_ident("tag") {
                        Err(meta.error("`tag` stands on a field, whose value it shows"))
                    } else {
                        Err(unknown(
                            &meta,
                            "on a variant",
                            &["name = \"…\"", "schema = 2", "upcast = function"],
                        ))
                    }
                })?;
            }
            if attribute.path().is_ident("serde") {
                attribute.parse_nested_meta(|meta| {
                    let value = rest_of(&meta)?;
                    if meta.path.is_ident("rename_all") {
                        let path = &meta.path;
                        serde.push(quote::quote!(#path #value));
                    }
                    Ok(())
                })?;
            }
        }
        let mut errors = Errors::default();
        let name_span = name.as_ref().map_or(variant.ident.span(), LitStr::span);
        let name = name.map_or_else(|| variant.ident.unraw().to_string(), |name| name.value());
        if let Err(why) = check_name(&name) {
            errors.say(name_span, format!("this name can't be stored: {why}"));
        }
        let (schema, schema_span) = match &schema {
            None => (1, variant.ident.span()),
            Some(literal) => (errors.take(literal.base10_parse()).unwrap_or(1), literal.span()),
        };
        match (schema, &upcast) {
            (0, _) => errors.say(schema_span, "schemas are numbered from 1"),
            (1, Some(upcast)) => {
                errors.say(
                    upcast.span(),
                    "nothing is older than schema 1; add `schema = 2`, or remove `upcast`",
                );
            }
            (2.., None) => {
                let message = "events of the older schemas are stored already and have to be readable; add \
                               `upcast = function`, `fn(from: u32, payload: Value) -> Result<Value, impl Display>`";
                errors.say(schema_span, message);
            }
            _ => {}
        }
        let shape = errors.take(Shape::read(&variant.fields)).unwrap_or(Shape::Unit);
        match errors.0 {
            Some(error) => Err(error),
            None => {
                Ok((Self { ident: variant.ident.clone(), name, schema, upcast, serde, shape }, name_span))
            }
        }
    }
}

impl Shape {
    fn read(fields: &Fields) -> Result<Self> {
        match fields {
            Fields::Unit => Ok(Self::Unit),
            Fields::Named(named) => {
                let mut errors = Errors::default();
                let read = named.named.iter().filter_map(|field| errors.take(Field::read(field))).collect();
                errors.0.map_or(Ok(Self::Named(read)), Err)
            }
            Fields::Unnamed(unnamed) => {
                let mut fields = unnamed.unnamed.iter();
                match (fields.next(), fields.next()) {
                    (Some(field), None) => Ok(Self::Newtype(Box::new(Field::read(field)?))),
                    _ => Err(Error::new(
                        unnamed.span(),
                        "stored fields have names: write `{ name: Type, … }`, or one struct: `(Struct)`",
                    )),
                }
            }
        }
    }
}

impl Field {
    fn read(field: &syn::Field) -> Result<Self> {
        let mut tag = None;
        for attribute in &field.attrs {
            if !attribute.path().is_ident("event") {
                continue;
            }
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("tag") {
                    return Err(unknown(&meta, "on a field", &["tag", "tag = \"name\""]));
                }
                let name = if meta.input.peek(syn::Token![=]) {
                    let literal: LitStr = meta.value()?.parse()?;
                    check_name(&literal.value()).map_err(|why| {
                        Error::new(literal.span(), format!("this tag can't be stored: {why}"))
                    })?;
                    literal.value()
                } else if let Some(ident) = &field.ident {
                    ident.unraw().to_string()
                } else {
                    return Err(meta.error("this field has no name to tag with; write `tag = \"name\"`"));
                };
                set(&mut tag, name, &meta)
            })?;
        }
        let serde =
            field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")).cloned().collect();
        Ok(Self { ident: field.ident.clone(), ty: field.ty.clone(), serde, tag })
    }
}

fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len()));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("it holds the control character U+{:04X}", c as u32)),
        None => Ok(()),
    }
}

fn set<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("given twice")),
    }
}

fn unknown(meta: &ParseNestedMeta<'_>, place: &str, known: &[&str]) -> Error {
    let given = meta.path.to_token_stream();
    let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    meta.error(format!("`{given}` means nothing {place}; known here: {known}"))
}

/// The keys of an attribute whose values are somebody else's business.
fn keys(attribute: &Attribute) -> Result<Vec<Path>> {
    let mut keys = Vec::new();
    attribute.parse_nested_meta(|meta| {
        rest_of(&meta)?;
        keys.push(meta.path.clone());
        Ok(())
    })?;
    Ok(keys)
}

/// What follows a key, up to the next comma: `= value`, `(…)`, or nothing.
fn rest_of(meta: &ParseNestedMeta<'_>) -> Result<TokenStream> {
    let mut rest = TokenStream::new();
    while !meta.input.is_empty() && !meta.input.peek(syn::Token![,]) {
        rest.extend([meta.input.parse::<proc_macro2::TokenTree>()?]);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of a declaration: message and the source text each one points at.
    fn errors(source: &str) -> Vec<(String, String)> {
        let input = syn::parse_str::<DeriveInput>(source).unwrap();
        let error = Events::read(&input).err().unwrap_or_else(|| panic!("accepted: {source}"));
        let shown = |error: Error| (error.to_string(), error.span().source_text().unwrap_or_default());
        error.into_iter().map(shown).collect()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let input = syn::parse_str("enum E { r#Made { #[event(tag)] r#type: u8 }, Closed }").unwrap();
        let events = Events::read(&input).unwrap();
        assert_eq!(events.root.to_token_stream().to_string(), ":: mainstay :: flow");
        let made = &events.variants[0];
        assert_eq!((made.name.as_str(), made.schema, made.upcast.is_none()), ("Made", 1, true));
        let Shape::Named(fields) = &made.shape else { panic!("named fields") };
        assert_eq!(fields[0].tag.as_deref(), Some("type"));
    }

    #[test]
    fn a_mistake_is_shown_at_the_word_that_is_wrong() {
        let rows = [
            ("struct Made { a: u8 }", "Made", "put this struct into a variant"),
            ("enum E<T> { A(T) }", "<T>", "no parameters"),
            ("enum E {}", "E", "can never happen"),
            ("enum E { A(u8, u8) }", "(u8, u8)", "stored fields have names"),
            ("enum E { A, #[event(name = \"A\")] B }", "\"A\"", "two variants are stored as \"A\""),
            ("enum E { #[event(name = \"\")] A }", "\"\"", "it is empty"),
            ("enum E { #[event(name = \"a\\nb\")] A }", "\"a\\nb\"", "U+000A"),
            ("enum E { #[event(nmae = \"A\")] A }", "nmae", "known here: `name = \"…\"`"),
            ("enum E { #[event(schema = 0, upcast = f)] A }", "0", "numbered from 1"),
            ("enum E { #[event(schema = 2)] A }", "2", "add `upcast = function`"),
            ("enum E { #[event(upcast = a::f)] A }", "a::f", "nothing is older than schema 1"),
            ("enum E { #[event(schema = 2, schema = 3, upcast = f)] A }", "schema = 3", "given twice"),
            ("enum E { #[event(tag)] A }", "tag", "stands on a field"),
            ("enum E { A { #[event(name = \"x\")] a: u8 } }", "name", "known here: `tag`"),
            ("enum E { A(#[event(tag)] u8) }", "tag", "no name to tag with"),
            ("enum E { A { #[event(tag = \"\")] a: u8 } }", "\"\"", "this tag can't be stored"),
            ("#[event(krate = \"x\")] enum E { A }", "krate", "known here: `crate = \"path\"`"),
            (
                "#[serde(rename_all_fields = \"camelCase\")] enum E { A }",
                "rename_all_fields",
                "on each variant",
            ),
        ];
        for (source, at, words) in rows {
            let found = errors(source);
            assert_eq!(found.len(), 1, "{source}: {found:?}");
            assert!(found[0].0.contains(words), "{source}: {:?} does not say {words:?}", found[0].0);
            assert_eq!(found[0].1, at, "{source}: {}", found[0].0);
        }
    }

    #[test]
    fn a_name_longer_than_the_store_takes_is_refused_here() {
        let declared = |bytes: usize| format!("enum E {{ #[event(name = \"{}\")] A }}", "a".repeat(bytes));
        assert!(Events::read(&syn::parse_str(&declared(128)).unwrap()).is_ok());
        assert!(errors(&declared(129))[0].0.contains("129 bytes"));
    }

    #[test]
    fn all_mistakes_are_shown_at_once() {
        let source = "enum E<T> { A(u8, u8), #[event(schema = 3)] B { #[event(x)] b: T } }";
        assert_eq!(errors(source).len(), 4);
    }
}
