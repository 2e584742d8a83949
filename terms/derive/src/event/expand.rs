//! The implementation for a checked enum.
//!
//! Two hidden shapes do the work, so that the enum needs no serde derive and its attributes can't change what
//! is stored: for writing a serde "remote" copy of the enum, untagged, which borrows the fields; for reading
//! a struct of the fields inside each type's arm.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

use super::parse::{Events, Field, Kind, Shape};

pub(super) fn expand(events: &Events) -> TokenStream {
    let Events { ident, root, variants } = events;
    let serde = quote!(#root::__private::serde).to_string();
    let remote = ident.to_string();
    let names = variants.iter().map(|kind| &kind.name);
    let event_type_arms =
        variants.iter().map(|Kind { ident, name, .. }| quote!(Self::#ident { .. } => #name,));
    let schema_arms =
        variants.iter().map(|Kind { ident, schema, .. }| quote!(Self::#ident { .. } => #schema,));
    let tag_arms = variants.iter().filter_map(tag_arm);
    let unit_arms = variants.iter().filter(|kind| matches!(kind.shape, Shape::Unit)).map(|kind| {
        let ident = &kind.ident;
        quote!(Self::#ident => ::core::result::Result::Ok(b"{}".to_vec()),)
    });
    let wire = variants.iter().map(wire_variant);
    let decode_arms = variants.iter().map(|kind| decode_arm(kind, &serde));

    quote! {
        #[allow(unused_qualifications, clippy::all, clippy::pedantic)]
        const _: () = {
            use #root::__private as __flow;

            #[derive(__flow::serde::Serialize)]
            #[serde(crate = #serde, remote = #remote, untagged)]
            #[allow(dead_code)]
            enum __Wire { #(#wire)* }

            #[automatically_derived]
            impl #root::Event for #ident {
                fn types() -> &'static [&'static str] {
                    &[#(#names),*]
                }

                fn event_type(&self) -> &'static str {
                    match self { #(#event_type_arms)* }
                }

                fn schema(&self) -> u32 {
                    match self { #(#schema_arms)* }
                }

                fn tags(&self) -> ::core::result::Result<::std::vec::Vec<__flow::Tag>, __flow::BadName> {
                    #[allow(unreachable_patterns)]
                    match self {
                        #(#tag_arms)*
                        _ => ::core::result::Result::Ok(::std::vec::Vec::new()),
                    }
                }

                fn encode(&self) -> ::core::result::Result<::std::vec::Vec<u8>, __flow::serde_json::Error> {
                    #[allow(unreachable_patterns)]
                    match self {
                        #(#unit_arms)*
                        _ => {
                            let mut bytes = ::std::vec::Vec::new();
                            __Wire::serialize(self, &mut __flow::serde_json::Serializer::new(&mut bytes))?;
                            ::core::result::Result::Ok(bytes)
                        }
                    }
                }

                fn decode(
                    event_type: &str,
                    schema: u32,
                    bytes: &[u8],
                ) -> ::core::result::Result<Self, __flow::Undecodable> {
                    match event_type {
                        #(#decode_arms)*
                        _ => ::core::result::Result::Err(__flow::Undecodable::unknown_type(event_type)),
                    }
                }
            }
        };
    }
}

/// A field's name, or `__0` in a newtype.
fn binding(field: &Field) -> syn::Ident {
    field.ident.clone().unwrap_or_else(|| format_ident!("__0"))
}

fn tag_arm(kind: &Kind) -> Option<TokenStream> {
    let ident = &kind.ident;
    let (pattern, fields) = match &kind.shape {
        Shape::Unit => return None,
        Shape::Newtype(field) => (quote!((__0)), std::slice::from_ref(&**field)),
        Shape::Named(fields) => {
            let tagged = fields.iter().filter(|field| field.tag.is_some()).map(binding);
            (quote!({ #(#tagged,)* .. }), fields.as_slice())
        }
    };
    let tags: Vec<_> = fields
        .iter()
        .filter_map(|field| {
            let (tag, value) = (field.tag.as_ref()?, binding(field));
            // Spanned at the type: that is what lacks Display, if it does.
            Some(quote_spanned!(field.ty.span()=> __flow::tag(#tag, #value)?))
        })
        .collect();
    if tags.is_empty() {
        return None;
    }
    Some(quote!(Self::#ident #pattern => ::core::result::Result::Ok(::std::vec![#(#tags),*]),))
}

fn wire_variant(kind: &Kind) -> TokenStream {
    let ident = &kind.ident;
    let attributes = &kind.serde;
    match &kind.shape {
        Shape::Unit => quote!(#ident,),
        Shape::Newtype(field) => {
            let Field { ty, serde, .. } = &**field;
            quote!(#ident(#(#serde)* #ty),)
        }
        Shape::Named(fields) => {
            let fields = fields.iter().map(|Field { ident, ty, serde, .. }| quote!(#(#serde)* #ident: #ty));
            quote!(#(#[serde(#attributes)])* #ident { #(#fields),* },)
        }
    }
}

fn decode_arm(kind: &Kind, serde: &str) -> TokenStream {
    let Kind { ident, name, schema, upcast, serde: attributes, shape } = kind;
    let upcast = match upcast {
        None => quote!(::core::option::Option::None),
        Some(path) => quote_spanned! {path.span()=>
            ::core::option::Option::Some(|from, payload| {
                #path(from, payload).map_err(|error| ::std::string::ToString::to_string(&error))
            })
        },
    };
    let stored = match shape {
        Shape::Unit => quote!(
            struct __Stored {}
        ),
        Shape::Newtype(field) => {
            let Field { ty, serde, .. } = &**field;
            quote!(struct __Stored(#(#serde)* #ty);)
        }
        Shape::Named(fields) => {
            let fields = fields.iter().map(|Field { ident, ty, serde, .. }| quote!(#(#serde)* #ident: #ty));
            quote!(struct __Stored { #(#fields),* })
        }
    };
    let made = match shape {
        Shape::Unit => quote!(Self::#ident),
        Shape::Newtype(_) => quote!(Self::#ident(__stored.0)),
        Shape::Named(fields) => {
            let names = fields.iter().map(binding);
            quote!(Self::#ident { #(#names: __stored.#names),* })
        }
    };
    quote! {
        #name => {
            #[derive(__flow::serde::Deserialize)]
            #[serde(crate = #serde #(, #attributes)*)]
            #stored
            #[allow(unused_variables)]
            let __stored: __Stored = __flow::decode(event_type, #schema, schema, bytes, #upcast)?;
            ::core::result::Result::Ok(#made)
        }
    }
}
