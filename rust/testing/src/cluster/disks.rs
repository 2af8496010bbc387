//! The disks of a cluster: operations and their timing.

use crate::cluster::Cluster;
use crate::cluster::time::Due;
use crate::disk::{Flight, Store};
use crate::protocol::{Input, Protocol};
use crate::trace::TraceEvent;

type FlightOf<P> = Flight<<<P as Protocol>::Store as Store>::Op, <P as Protocol>::Role>;

impl<P: Protocol> Cluster<P> {
    /// Completes the first `count` pending persists, or rejects them if the disk is full. Returns their number.
    pub fn persist(&mut self, node: P::NodeId, count: usize) -> usize {
        let mut done = 0;
        while done < count && self.sync(node) {
            done += 1;
            self.settle(node);
        }
        done
    }

    /// Rejects the newest pending persist.
    pub fn refuse_newest(&mut self, node: P::NodeId) {
        if let Some(flight) = self.node(node).disk.refuse_newest() {
            self.answer(node, flight, true);
            self.settle(node);
        }
    }

    /// Completes all pending requests, and stops holding writes.
    pub fn release(&mut self, node: P::NodeId) {
        let disk = &mut self.node(node).disk;
        (disk.held, disk.unflushed, disk.files_held) = (false, false, false);
        self.persist(node, usize::MAX);
        self.flush_rows(node, usize::MAX);
        self.settle(node);
        while let Some(owner) = self.nodes[&node].disk.file_owners().first().copied() {
            self.file_step(node, owner);
        }
    }

    /// Performs a step of the first task on an owner's files.
    pub fn file_step(&mut self, node: P::NodeId, owner: u64) {
        let step = self.node(node).disk.file_step(owner);
        for (role, token) in step.flushed {
            self.post(node, role, P::event(Input::Flushed { token }), false);
        }
        if let Some((role, token, done)) = step.done {
            self.post(node, role, P::event(Input::File { token, done }), false);
        }
        self.settle(node);
    }

    // ---- timing ----

    pub(super) fn plan_sync(&mut self, node: P::NodeId) {
        match self.profile.disk {
            Some(range) => {
                let at = self.nodes[&node].syncs_at.max(self.now) + self.draw(range).as_micros() as u64;
                let found = self.node(node);
                found.syncs_at = at;
                let boot = Some(found.boots);
                let after = std::time::Duration::from_micros(at - self.now);
                self.plan(after, node, boot, Due::Sync);
            }
            None => while !self.nodes[&node].disk.held && self.sync(node) {},
        }
    }

    pub(super) fn plan_flushing(&mut self, node: P::NodeId) {
        if let Some(range) = self.profile.flushing {
            let (after, boot) = (self.draw(range), self.nodes[&node].boots);
            self.plan(after, node, Some(boot), Due::Flush);
        } else if !self.nodes[&node].disk.unflushed {
            self.flush_rows(node, usize::MAX);
        }
    }

    /// Schedules the steps of each owner sequentially.
    pub(super) fn plan_file(&mut self, node: P::NodeId, owner: u64) {
        let range = self.profile.disk.unwrap_or((100, 100));
        if self.node(node).filing.insert(owner) {
            let (after, boot) = (self.draw(range), self.nodes[&node].boots);
            self.plan(after, node, Some(boot), Due::File(owner));
        }
    }

    // ---- operations ----

    /// Performs the next persist; `false` if there is none.
    pub(super) fn sync(&mut self, node: P::NodeId) -> bool {
        let Some((flight, refused)) = self.node(node).disk.sync() else {
            return false;
        };
        self.answer(node, flight, refused);
        true
    }

    fn answer(&mut self, node: P::NodeId, flight: FlightOf<P>, refused: bool) {
        let (role, token, ops) = (flight.owner, flight.token, flight.ops);
        self.trace.push(TraceEvent::Disk { node, ops, refused });
        let process = self.node(node).process.as_mut();
        if process.is_some_and(|process| process.is_told(role, token)) {
            let event = P::event(match refused {
                true => Input::Refused { token },
                false => Input::Persisted { token },
            });
            self.post(node, role, event, false);
        }
    }

    pub(super) fn flush_rows(&mut self, node: P::NodeId, count: usize) {
        for (role, token) in self.node(node).disk.flush(count) {
            self.post(node, role, P::event(Input::Flushed { token }), false);
        }
    }
}
