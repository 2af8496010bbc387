//! The effects of one turn, grouped by destination, so that each destination gets one batch.

use quorate_core::ids::NodeId;
use quorate_protocol::role::{Event, RoleId};
use quorate_protocol::telemetry::Span;
use quorate_protocol::wire::Envelope;
use quorate_storage::queue::Request as Commit;

use crate::shell::{Answer, Shell};

/// Effects that are not performed yet.
#[derive(Default)]
pub(super) struct Outbox {
    local: Vec<(RoleId, Vec<Event>)>,
    remote: Vec<(NodeId, Vec<Envelope>)>,
    commits: Vec<Commit>,
    answers: Vec<Answer>,
    spans: Vec<Span>,
}

impl Outbox {
    pub(super) fn local(&mut self, to: RoleId, event: Event) {
        group(&mut self.local, to).push(event);
    }

    pub(super) fn remote(&mut self, to: NodeId, message: Envelope) {
        group(&mut self.remote, to).push(message);
    }

    pub(super) fn commit(&mut self, request: Commit) {
        self.commits.push(request);
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    pub(super) fn span(&mut self, span: Span) {
        self.spans.push(span);
    }

    /// Performs all effects, those with the longest latency first.
    pub(super) fn flush(&mut self, shell: &Shell) {
        if !self.commits.is_empty() {
            shell.commits.submit(std::mem::take(&mut self.commits));
        }
        for (node, messages) in self.remote.drain(..) {
            shell.peers.send(node, messages);
        }
        if !self.local.is_empty() {
            let table = shell.roles.table();
            for (role, events) in self.local.drain(..) {
                // Messages to a role that does not exist are dropped, as by the network.
                if let Some(mailbox) = table.role(role) {
                    mailbox.push(events);
                }
            }
        }
        if !self.answers.is_empty() {
            shell.replies.reply(std::mem::take(&mut self.answers));
        }
        if !self.spans.is_empty() {
            shell.telemetry.spans(std::mem::take(&mut self.spans));
        }
    }
}

/// The group of `key`. A turn has few destinations, so a linear search beats a map.
fn group<K: PartialEq, T>(groups: &mut Vec<(K, Vec<T>)>, key: K) -> &mut Vec<T> {
    let index = match groups.iter().position(|(found, _)| *found == key) {
        Some(index) => index,
        None => {
            groups.push((key, Vec::new()));
            groups.len() - 1
        }
    };
    &mut groups[index].1
}
