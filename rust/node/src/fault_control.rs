//! Where clients make faults on this node, if its configuration lets them.
//!
//! A change is made as a whole or not at all: the faults in force become the rules of the transport in one step, and each
//! fault that begins or ends is told on the timeline.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::faults::{FaultChange, FaultSet, LinkFault};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::Topology;

use crate::telemetry::Telemetry;
use crate::transport::FaultRules;

/// What sends to the peers, and can be made to do so badly.
pub trait FaultInjector: Send + Sync {
    /// Spoils what is sent from now on; replaces all earlier rules.
    fn inject(&self, rules: &FaultRules);
}

/// Keeps the faults in force.
pub struct FaultControl {
    node: NodeId,
    allowed: bool,
    members: BTreeSet<NodeId>,
    links: Arc<dyn FaultInjector>,
    telemetry: Arc<Telemetry>,
    faults: Mutex<FaultSet>,
}

impl FaultControl {
    /// No faults yet; whether there may ever be any, `allowed` says.
    pub fn new(
        node: NodeId,
        allowed: bool,
        topology: &Topology,
        links: Arc<dyn FaultInjector>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        FaultControl {
            node,
            allowed,
            members: topology.ids().collect(),
            links,
            telemetry,
            faults: Mutex::default(),
        }
    }

    /// The faults in force.
    pub fn in_force(&self) -> Vec<LinkFault> {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .faults()
    }

    /// Makes a change; the faults in force after it.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] where no faults are allowed, and for a change that makes no sense.
    pub fn change(&self, change: &FaultChange) -> Result<Vec<LinkFault>, Error> {
        if !self.allowed {
            return Err(Error::PermissionDenied(format!(
                "{} does not let clients make faults: start it with allow_faults on (`quorate node --allow-faults`), \
                 in a cluster that may be broken",
                self.node
            )));
        }
        // Held until the links know, so that two changes reach them in their order.
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let after = faults.changed(change.clone(), &self.members)?;
        let rules = self.members.iter().fold(FaultRules::default(), |rules, peer| {
            rules.with(*peer, after.on(self.node, *peer).into())
        });
        self.links.inject(&rules);
        let news = |fault: &LinkFault, what: &str| {
            let description = format!("{fault} {what}");
            self.telemetry.emit(TimelineEvent::Fault { description });
        };
        faults.beyond(&after).for_each(|fault| news(fault, "ends"));
        after.beyond(&faults).for_each(|fault| news(fault, "begins"));
        *faults = after;
        Ok(faults.faults())
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::ClusterId;
    use quorate_protocol::faults::Effect;
    use quorate_protocol::topology::Member;
    use quorate_ring::RingSettings;

    use super::*;
    use crate::clock::Clock;
    use crate::transport::Fault;

    #[derive(Default)]
    struct Rules(Mutex<FaultRules>);

    impl FaultInjector for Rules {
        fn inject(&self, rules: &FaultRules) {
            *self.0.lock().unwrap() = rules.clone();
        }
    }

    fn control(allowed: bool) -> (FaultControl, Arc<Rules>, Arc<Telemetry>) {
        let member = |number| Member {
            id: NodeId(number),
            peer_address: format!("127.0.0.1:{number}"),
            client_address: String::new(),
            http_address: String::new(),
            rack: String::new(),
            datacenter: String::new(),
        };
        let members = (1..=3).map(member).collect();
        let cluster = ClusterId::from_name("test");
        let topology = Topology::new(cluster, 1, members, RingSettings::default()).unwrap();
        let clock = Arc::new(Clock::default());
        let telemetry = Arc::new(Telemetry::new(clock, NodeId(1), 1, 16, 16));
        let rules = Arc::new(Rules::default());
        let control = FaultControl::new(
            NodeId(1),
            allowed,
            &topology,
            Arc::clone(&rules) as _,
            Arc::clone(&telemetry),
        );
        (control, rules, telemetry)
    }

    fn cut(id: u64) -> LinkFault {
        LinkFault {
            id,
            groups: vec![vec![NodeId(1)], vec![NodeId(2)]],
            one_way: false,
            effect: Effect {
                block: true,
                ..Effect::default()
            },
        }
    }

    fn events(telemetry: &Telemetry) -> Vec<String> {
        let occurrences = telemetry.events_after(0).into_iter();
        occurrences
            .map(|occurrence| match occurrence.event {
                TimelineEvent::Fault { description } => description,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn faults_become_rules_of_what_this_node_sends_and_events() {
        let (control, rules, telemetry) = control(true);
        let rule = |to| rules.0.lock().unwrap().get(NodeId(to));
        control.change(&FaultChange::Add(vec![cut(7)])).unwrap();
        assert!(rule(2).block);
        assert_eq!(rule(3), Fault::default());
        control.change(&FaultChange::Add(vec![cut(7)])).unwrap();
        assert_eq!(control.in_force(), [cut(7)]);
        assert_eq!(control.change(&FaultChange::Heal(vec![7])), Ok(Vec::new()));
        assert_eq!(rule(2), Fault::default());
        assert_eq!(
            events(&telemetry),
            [
                "00000007 n1 <-> n2 blocked begins",
                "00000007 n1 <-> n2 blocked ends"
            ]
        );
    }

    #[test]
    fn a_node_that_does_not_allow_faults_refuses_them_and_names_the_remedy() {
        let (control, _, telemetry) = control(false);
        let refused = control.change(&FaultChange::Add(vec![cut(7)])).unwrap_err();
        assert!(refused.is_definite() && refused.name() == "PermissionDenied");
        assert!(refused.to_string().contains("--allow-faults"));
        assert!(control.in_force().is_empty() && events(&telemetry).is_empty());
    }
}
