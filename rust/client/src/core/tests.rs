//! Each rule of the client, by example; `chaos` checks them all on random clusters.

mod attempts;
mod chaos;
mod exactly_once;
mod groups;
mod harness;
mod links;
mod many;
mod outcomes;
mod routing;
mod sessions;
