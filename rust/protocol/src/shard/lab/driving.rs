//! From events to effects: what a node's shell does with its roles, one event at a time.

use super::*;

impl Lab {
    pub(in crate::shard) fn input(&mut self, node: NodeId, role: RoleId, event: Event) {
        if let Some(process) = &mut self.machine(node).process {
            process.mailbox.push_back((role, event));
            self.settle();
        }
    }

    pub(super) fn settle(&mut self) {
        for node in self.nodes() {
            while let Some(process) = &mut self.machine(node).process
                && let Some((role, event)) = process.mailbox.pop_front()
            {
                let wall = (EPOCH + self.now.0).saturating_add_signed(self.machines[&node].skew_micros);
                let now = Now {
                    instant: self.now,
                    wall: WallTime(wall),
                };
                let process = self.machine(node).process.as_mut().expect("it runs");
                let mut effects = Vec::new();
                if let Some((instance, rng)) = process.roles.get_mut(&role) {
                    instance.handle(now, rng, event, &mut effects);
                }
                for effect in effects {
                    self.perform(Address { node, role }, effect);
                }
            }
        }
    }

    pub(super) fn post(&mut self, node: NodeId, role: RoleId, event: Event) {
        let process = self.machine(node).process.as_mut().expect("it runs");
        process.mailbox.push_back((role, event));
    }

    fn perform(&mut self, from: Address, effect: Effect) {
        let (node, role) = (from.node, from.role);
        let boot = Some(self.machines[&node].boots);
        match effect {
            Effect::Send { to, header, message } if to.node == node => {
                let event = Event::Message {
                    from,
                    header,
                    message,
                };
                self.post(node, to.role, event);
            }
            Effect::Send { to, header, message } => self.send(from, to, header, message),
            Effect::Reply { client, response } => {
                self.happenings.push(Happening::Reply(client.request, response));
            }
            Effect::Relay {
                to,
                client,
                header,
                request,
            } => {
                let event = Event::Request {
                    client,
                    header,
                    request,
                };
                self.post(node, to, event);
            }
            Effect::Emit(event) => self.happenings.push(Happening::Emitted(node, event)),
            Effect::Persist { token, priority, ops } => {
                self.machine(node).disk.persist(role, token, priority, ops);
                self.plan_sync(node);
            }
            Effect::Derive { token, writes } => {
                self.machine(node).disk.derive(role, token, writes);
                if let Some(range) = self.setup.weather.settling {
                    let after = self.draw(range);
                    self.plan(after, node, boot, Due::Settle);
                } else if !self.machines[&node].disk.unsettled {
                    self.settle_at_once(node);
                }
            }
            Effect::Read { token, query } => match self.setup.weather.disk {
                None => {
                    let result = Ok(self.machines[&node].disk.read(&query));
                    self.post(node, role, Event::Read { token, result });
                }
                Some(range) => {
                    let after = self.draw(range);
                    let early = self.chance(500).then(|| self.machines[&node].disk.read(&query));
                    self.plan(after, node, boot, Due::Read(role, token, query, early));
                }
            },
            Effect::Files { token, task } => {
                let owner = task.owner();
                self.machine(node).disk.ask_file(role, token, task);
                if !self.machines[&node].disk.files_held {
                    self.plan_file(node, owner);
                }
            }
            Effect::SetTimer { id, at } => {
                let process = self.machine(node).process.as_mut().expect("it runs");
                process.timers.insert((role, id), at);
            }
            Effect::Group(_) | Effect::Span(_) | Effect::Measure(_) => {}
            Effect::Reconcile(_) => panic!("only node roles ask for that"),
        }
    }

    pub(super) fn plan_sync(&mut self, node: NodeId) {
        match self.setup.weather.disk {
            Some(range) => {
                let at = self.machines[&node].syncs_at.max(self.now) + self.draw(range);
                self.machine(node).syncs_at = at;
                let boot = self.machines[&node].boots;
                self.plan(at.since(self.now), node, Some(boot), Due::Sync);
            }
            None if self.machines[&node].disk.held => {}
            None => {
                let (flight, refused) = self.machine(node).disk.sync().expect("just put there");
                let token = flight.token;
                let event = match refused {
                    true => Event::PersistRefused { token },
                    false => Event::Persisted { tokens: vec![token] },
                };
                self.post(node, flight.role, event);
            }
        }
    }

    pub(super) fn settle_at_once(&mut self, node: NodeId) {
        for (role, token) in self.machine(node).disk.settle(usize::MAX) {
            self.post(node, role, Event::Settled { tokens: vec![token] });
        }
    }

    pub(super) fn send(&mut self, from: Address, to: Address, header: Header, message: Message) {
        let process = self.machines[&from.node].process.as_ref().expect("it runs");
        let weather = self.setup.weather.clone();
        if !process.alive.contains(&to.node) || self.chance(weather.lost) {
            return;
        }
        let due = Due::Arrive(from, to.role, header, message.clone());
        let again = self.chance(weather.twice).then(|| self.draw(weather.latency));
        // Between servers a copy may also come in a later life of the receiver; elsewhere it goes with the connection.
        let (again, life) = match message {
            Message::Raft { .. } => (again, None),
            _ => (again.or(self.repeat), Some(self.machines[&to.node].boots)),
        };
        let after = self.draw(weather.latency);
        self.plan(after, to.node, None, due.clone());
        if let Some(again) = again {
            self.plan(after + again, to.node, life, due);
        }
    }
}
