//! `#[derive(Event)]`: parse (refuse what can't be stored), then expand.

mod expand;
mod parse;

use proc_macro2::TokenStream;

/// The implementation, or the compile errors.
pub(crate) fn derive(input: TokenStream) -> TokenStream {
    match syn::parse2(input).and_then(|input| parse::Events::read(&input)) {
        Ok(events) => expand::expand(&events),
        Err(errors) => errors.to_compile_error(),
    }
}
