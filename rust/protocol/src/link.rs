//! The link to one peer: the scheduling of outgoing messages, flow control, and heartbeats.
//!
//! There is one [`Link`] at each end of a connection between two nodes. Roles pass it envelopes; it sends them in
//! **batches**. A **session** is one established connection: an ordered stream of batches that ends at the latest when
//! either process does. The link persists across sessions.
//!
//! # Three lanes
//! | lane | messages | credit | order |
//! |---|---|---|---|
//! | control | heartbeats, credit, and small messages on which timeouts or acknowledgements of peers depend ([`Message::lane`](crate::message::Message::lane)) | none | first |
//! | data | all other messages | yes | second |
//! | bulk | any envelope of more than [`BULK_THRESHOLD`] bytes, in chunks of at most [`CHUNK_BYTES`] | yes, and a window of 8 chunks | last |
//!
//! A batch has at most [`MAX_BATCH`] bytes and is built when the previous one has been sent ([`LinkEvent::Sent`]). There
//! is no batching delay: all messages that are pending by then are sent together, so batches grow under load, and a single
//! message is sent immediately. While chunks are ready, data leaves room for one in every batch, so that neither starves.
//!
//! The appends to a Raft group are delivered in order: one that is enqueued while a large one of its group is pending
//! follows it in the bulk lane, and a large one is sent after the smaller ones that were enqueued before it
//! ([`Message::appends_to`](crate::message::Message::appends_to)).
//!
//! A heartbeat therefore never waits for more than the previous batch and the window of chunks: half a mebibyte of bulk,
//! however large the value that is being sent.
//!
//! # Credit
//! The receiver of a session grants a window: the bytes and envelopes that it accepts before roles have taken them. It
//! then reports those taken ([`LinkEvent::Taken`]). The sender never has more than the window in flight. So a slow role
//! blocks its senders, and its memory stays bounded. The lanes bound the memory of the sender: messages beyond their
//! bounds are **shed**: counted, reported ([`LinkEffect::Shed`]) and dropped. No role blocks on credit. Messages whose
//! deadline has passed are shed, too.
//!
//! An envelope larger than the whole window is sent when nothing else is in flight.
//!
//! # Sessions
//! When a session ends, its state is lost: sent batches, unfinished bulk, credit. Messages in the lanes stay for a grace
//! period, so that a connection that is replaced within it loses no unsent message; after that, and until the next session,
//! all messages are shed immediately.
//!
//! Both ends send a heartbeat every 100 ms. A session on which nothing arrives for the idle timeout, one second, is closed:
//! this detects a stopped process or a black-holed route. A peer is **up** from the first batch that arrives on a session
//! until that session ends. A process that was itself stopped finds all its timers late; it extends the idle timeout of its
//! peers by that delay.
//!
//! # The driving contract
//! * A session's batches arrive in order and at most once; a duplicate is ignored, a gap closes the session.
//! * Session ids never repeat.
//! * [`LinkEvent::Sent`] follows each [`LinkEffect::Transmit`], unless the session ends first.
//! * One timer: a later [`LinkEffect::SetTimer`] replaces an earlier one.
//!
//! Dialling, hello and authentication, and sockets are not part of the link. Its only inputs are its events.

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
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
