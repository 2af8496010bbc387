//! Time: what is to happen, and when.

use super::*;

impl Lab {
    /// Lets time pass.
    pub(in crate::shard) fn live(&mut self, by: Duration) {
        let until = self.now + by;
        while self.step(until) {}
        self.now = until;
    }

    /// The next thing that happens until then; `false` if nothing does.
    pub(in crate::shard) fn step(&mut self, until: Instant) -> bool {
        let next = self.agenda.keys().next().copied();
        let timer = self.next_timer();
        match (next, timer) {
            (Some(key), timer) if key.0 <= until && timer.is_none_or(|(due, ..)| key.0 <= due) => {
                self.now = self.now.max(key.0);
                let (node, boot, due) = self.agenda.remove(&key).expect("it was just found");
                if boot.is_none_or(|boot| self.is_up(node) && self.machines[&node].boots == boot) {
                    self.happen(node, due);
                }
                true
            }
            (_, Some((at, node, role, id))) if at <= until => {
                self.now = self.now.max(at);
                let process = self.machine(node).process.as_mut().expect("it has a timer");
                process.timers.remove(&(role, id));
                self.input(node, role, Event::Timer { id });
                true
            }
            _ => false,
        }
    }

    pub(super) fn next_timer(&self) -> Option<(Instant, NodeId, RoleId, u64)> {
        let machines = self.machines.iter();
        let timers = machines.filter_map(|(node, machine)| Some((node, machine.process.as_ref()?)));
        let timers = timers.flat_map(|(node, process)| {
            let timers = process.timers.iter();
            timers.map(|((role, id), at)| (*at, *node, *role, *id))
        });
        timers.min()
    }

    pub(super) fn plan(&mut self, after: Duration, node: NodeId, boot: Option<u64>, due: Due) {
        self.number += 1;
        self.agenda
            .insert((self.now + after, self.number), (node, boot, due));
    }

    pub(super) fn happen(&mut self, node: NodeId, due: Due) {
        match due {
            Due::Arrive(from, role, header, message) => {
                self.arrive(from, Address { node, role }, header, message)
            }
            Due::Sync => drop(self.sync(node)),
            Due::Read(role, token, query, early) => {
                let rows = early.unwrap_or_else(|| self.machines[&node].disk.read(&query));
                self.input(
                    node,
                    role,
                    Event::Read {
                        token,
                        result: Ok(rows),
                    },
                );
            }
            Due::Settle => {
                let count = self.draw((1, 4)).as_micros() as usize;
                self.settle_rows(node, count);
            }
            Due::File(owner) => {
                self.machine(node).filing.remove(&owner);
                if self.file_step(node, owner) {
                    self.plan_file(node, owner);
                }
            }
            Due::Link(other, up) => {
                if up == self.is_up(other) {
                    self.link(node, other, up);
                }
            }
        }
    }

    /// One step after the other, of each owner.
    pub(super) fn plan_file(&mut self, node: NodeId, owner: u64) {
        if !self.machine(node).filing.insert(owner) {
            return;
        }
        let (from, to) = self.setup.weather.disk.unwrap_or((100, 100));
        let (after, boot) = (self.draw((from, to)), self.machines[&node].boots);
        self.plan(after, node, Some(boot), Due::File(owner));
    }

    pub(super) fn arrive(&mut self, from: Address, to: Address, header: Header, message: Message) {
        let node = to.node;
        if !self.is_up(node) || self.cut.contains(&(from.node, node)) || header.deadline <= self.now {
            return;
        }
        self.happenings
            .push(Happening::Delivered(from, to, message.clone()));
        let bytes = postcard::to_stdvec(&message).expect("messages can be encoded");
        let event = Event::Message {
            from,
            header,
            message: postcard::from_bytes(&bytes).expect("and decoded"),
        };
        self.input(node, to.role, event);
    }
}
