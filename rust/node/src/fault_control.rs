//! Fault injection by clients, if the configuration allows it.
//!
//! A change is applied atomically: the active faults become the rules of the transport in one step, and each
//! fault that begins or ends is recorded on the timeline.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::faults::{FaultChange, FaultSet, LinkFault};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::Topology;

use crate::telemetry::Telemetry;
use crate::transport::FaultRules;

/// The sender to the peers, into which faults can be injected.
pub trait FaultInjector: Send + Sync {
    /// Applies these rules to everything sent from now on; replaces all earlier rules.
    fn inject(&self, rules: &FaultRules);
}

/// The active faults.
pub struct FaultControl {
    node: NodeId,
    allowed: bool,
    members: BTreeSet<NodeId>,
    links: Arc<dyn FaultInjector>,
    telemetry: Arc<Telemetry>,
    faults: Mutex<FaultSet>,
}

impl FaultControl {
    /// Starts without faults; `allowed` says whether any may be injected.
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

    /// The active faults.
    pub fn in_force(&self) -> Vec<LinkFault> {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .faults()
    }

    /// Applies a change and returns the active faults.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] where faults are not allowed; the error of an invalid change.
    pub fn change(&self, change: &FaultChange) -> Result<Vec<LinkFault>, Error> {
        if !self.allowed {
            return Err(Error::PermissionDenied(format!(
                "{} does not allow fault injection: start it with allow_faults (`quorate node --allow-faults`), for \
                 testing only",
                self.node
            )));
        }
        // Held until the links have the rules, so that concurrent changes reach them in order.
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let after = faults.changed(change.clone(), &self.members)?;
        let rules = self.members.iter().fold(FaultRules::default(), |rules, peer| {
            rules.with(*peer, after.on(self.node, *peer).into())
        });
        self.links.inject(&rules);
        let emit = |fault: &LinkFault, what: &str| {
            let description = format!("{fault} {what}");
            self.telemetry.emit(TimelineEvent::Fault { description });
        };
        faults.difference(&after).for_each(|fault| emit(fault, "ends"));
        after.difference(&faults).for_each(|fault| emit(fault, "begins"));
        *faults = after;
        Ok(faults.faults())
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::ClusterId;
    use quorate_protocol::faults::Impairment;
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
            impairment: Impairment {
                block: true,
                ..Impairment::default()
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
    fn a_change_sets_transport_rules_and_emits_events() {
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
    fn changes_are_rejected_where_faults_are_not_allowed() {
        let (control, _, telemetry) = control(false);
        let refused = control.change(&FaultChange::Add(vec![cut(7)])).unwrap_err();
        assert!(refused.is_definite() && refused.name() == "PermissionDenied");
        assert!(refused.to_string().contains("--allow-faults"));
        assert!(control.in_force().is_empty() && events(&telemetry).is_empty());
    }
}
