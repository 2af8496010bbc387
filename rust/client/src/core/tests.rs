//! Each rule of the client, by example; `chaos` holds them all against random clusters.

mod chaos;
mod harness;
mod links;
mod outcomes;
mod routing;
