//! The shell of a node's roles: from events to effects, one event at a time.

use crate::cluster::Cluster;
use crate::cluster::time::Due;
use crate::disk::Store;
use crate::protocol::{Action, Address, AddressOf, Envelope, Input, Protocol};
use crate::trace::TraceEvent;

impl<P: Protocol> Cluster<P> {
    /// Delivers an event to a mailbox.
    pub(super) fn post(&mut self, node: P::NodeId, role: P::Role, event: P::Event, fixed: bool) {
        let found = self.nodes.get_mut(&node).expect("a node of the cluster");
        if let Some(process) = &mut found.process {
            process.mail(role, event, fixed, self.scrambler.as_mut());
        }
    }

    /// Handles the events of a node until its mailboxes are empty.
    pub(super) fn settle(&mut self, node: P::NodeId) {
        let clock = self.clock(node);
        while let Some(process) = &mut self.node(node).process
            && let Some((role, effects)) = process.handle_next(clock)
        {
            for effect in effects {
                self.perform(Address { node, role }, effect);
            }
        }
    }

    fn perform(&mut self, from: AddressOf<P>, effect: P::Effect) {
        let Address { node, role } = from;
        let process = self.nodes[&node].process.as_ref().expect("it is running");
        let boot = process.boot();
        match self.protocol.action(from, effect, process) {
            Action::Send { to, message } if to.node == node => {
                self.trace.push(TraceEvent::Local(Envelope {
                    from,
                    to,
                    message: message.clone(),
                }));
                self.post(node, to.role, P::event(Input::Message { from, message }), false);
            }
            Action::Send { to, message } => self.send(Envelope { from, to, message }),
            Action::Persist {
                token,
                background,
                ops,
            } => {
                self.trace.push(TraceEvent::Submitted {
                    node,
                    ops: ops.clone(),
                });
                let found = self.node(node);
                found.process.as_mut().expect("it is running").awaits(role, token);
                found.disk.submit(role, token, background, ops);
                self.plan_sync(node);
            }
            Action::ApplyRows { token, rows } => {
                self.node(node).disk.apply_rows(role, token, rows);
                self.plan_flushing(node);
            }
            Action::Read { token, .. } if self.nodes[&node].disk.slow == Some(token) => {}
            Action::Read { token, query } => match self.profile.disk {
                None => {
                    let answer = self.nodes[&node].disk.store.read(&query);
                    self.post(node, role, P::event(Input::Read { token, answer }), false);
                }
                Some(range) => {
                    let after = self.draw(range);
                    // As of some moment before the response.
                    let early = self
                        .chance(500)
                        .then(|| self.nodes[&node].disk.store.read(&query));
                    self.plan(
                        after,
                        node,
                        Some(boot),
                        Due::Read {
                            role,
                            token,
                            query,
                            early,
                        },
                    );
                }
            },
            Action::File {
                token,
                owner: files,
                task,
            } => {
                let disk = &mut self.node(node).disk;
                disk.ask_file(role, token, files, task);
                if !disk.files_held {
                    self.plan_file(node, files);
                }
            }
            Action::SetTimer { id, at } => {
                let process = self.node(node).process.as_mut().expect("it is running");
                process.timers.insert((role, id), at);
            }
            Action::Post { role, event } => self.post(node, role, event, false),
            Action::Host(hosted) => {
                let record = self.record;
                for hosted in hosted {
                    let role = hosted.role;
                    let process = self.node(node).process.as_mut().expect("it is running");
                    if !process.has(role) {
                        process.host(hosted, record);
                        self.post(node, role, P::event(Input::Start), true);
                    }
                }
            }
            Action::Output(output) => self.trace.push(TraceEvent::Output(node, output)),
            Action::Nothing => {}
        }
    }
}
