//! The link to one peer: what is sent when, and what is not sent at all.
//!
//! One [`Link`] stands at each end of a connection between two nodes. Roles hand it envelopes; it makes **batches**
//! of them. A **session** is one connection that has been agreed upon: an ordered stream of batches that ends at the
//! latest when either process does. Sessions come and go, the link stays.
//!
//! # Three lanes
//! | lane | what | credit | order |
//! |---|---|---|---|
//! | control | heartbeats, credit, and the small messages that others' timeouts or acknowledgements wait for ([`Message::lane`](crate::message::Message::lane)) | none | first |
//! | data | all other messages | yes | second |
//! | bulk | any envelope of more than [`BULK_THRESHOLD`] bytes, in chunks of at most [`CHUNK_BYTES`] | yes, and a window of 8 chunks | last |
//!
//! A batch has at most [`MAX_BATCH`] bytes and is made when the one before is out ([`LinkEvent::Sent`]). There is no
//! lingering: what has gathered by then goes together, so batches grow by themselves under load and a lone message
//! leaves at once. While chunks are ready, data leaves room for one in every batch, so that neither starves.
//!
//! The appends to a Raft group are delivered in their order: one that comes while a large one of its group has not left follows
//! it in the bulk lane, and a large one leaves after the smaller ones that were there before it
//! ([`Message::appends_to`](crate::message::Message::appends_to)).
//!
//! A heartbeat therefore never waits behind more than the batch before it and the window of chunks: half a mebibyte of
//! bulk, however large the value that is being sent.
//!
//! # Credit
//! The receiver of a session says how many bytes and envelopes it takes in before a role has taken them
//! ([`LinkEvent::Taken`]), and then how many have been taken. The sender never has more than that under way. So a slow
//! role stops its senders, and what it holds stays bounded; what waits at the sender is bounded by the lanes, and
//! beyond their bounds it is **shed**: counted, reported ([`LinkEffect::Shed`]) and gone. Nobody waits for credit.
//! Messages whose deadline has passed are shed too, since nobody waits for their answers.
//!
//! An envelope larger than the whole window goes alone: when nothing else is under way.
//!
//! # Sessions
//! A session that ends takes everything with it that was handed over: batches, unfinished bulk, credit. What waits in
//! the lanes stays for a grace period, so that a connection that is replaced within it loses nothing that was not yet
//! sent; after that, and until the next session, all messages are shed at once.
//!
//! Both ends send a heartbeat every 100 ms. A session on which nothing arrives for the idle deadline, one second, is
//! closed: a stopped process or a black-holed route looks like that. A peer is **up** from the first batch that arrives
//! on a session until that session ends. A process that was itself stopped finds all its timers late; it gives its peers
//! that much more time before it judges them.
//!
//! # What the driver owes
//! * A session's batches arrive in order and at most once; a repeated one is ignored, a gap closes the session.
//! * Session names never repeat.
//! * [`LinkEvent::Sent`] comes for each [`LinkEffect::Transmit`], unless the session ends first.
//! * One timer: a later [`LinkEffect::SetTimer`] replaces an earlier one.
//!
//! What this leaves out: who dials, hello and authentication, sockets. A link never reads anything but its events.

mod batch;
mod bulk;
mod credit;
mod event;
mod lane;
mod session;
mod settings;
mod state;

pub use batch::{BATCH_HEADER, session_of_batch};
pub use event::{CloseReason, LinkEffect, LinkEvent, SessionId, ShedCause};
pub use settings::{CHUNK_BYTES, LinkSettings, MAX_BATCH, MAX_ENVELOPE};
pub use state::{Link, LinkTotals};

pub use crate::message::{BULK_THRESHOLD, Lane};

#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
