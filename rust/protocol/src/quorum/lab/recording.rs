//! What a role instance was given and what it did, and whether it would do the same again.

use crate::instance::Instance;
use crate::role::{Effect, Event, Input, Role, rng_from_seed};
use crate::time::Now;

/// The life of one role instance.
#[derive(Clone)]
pub(in crate::quorum) struct Recording {
    beginning: Instance,
    seed: u64,
    pub(in crate::quorum) inputs: Vec<Input<Event>>,
    effects: Vec<Vec<Effect>>,
    end: Option<Instance>,
}

impl Recording {
    pub(super) fn new(beginning: Instance, seed: u64) -> Self {
        Recording {
            beginning,
            seed,
            inputs: Vec::new(),
            effects: Vec::new(),
            end: None,
        }
    }

    pub(super) fn input(&mut self, now: Now, event: &Event) {
        let event = event.clone();
        self.inputs.push(Input { now, event });
    }

    pub(super) fn output(&mut self, effects: &[Effect]) {
        self.effects.push(effects.to_vec());
    }

    pub(super) fn ended(mut self, instance: Instance) -> Self {
        self.end = Some(instance);
        self
    }

    /// What became of the instance.
    pub(in crate::quorum) fn end(&self) -> &Instance {
        self.end
            .as_ref()
            .expect("recordings are given out when they have ended")
    }

    /// Gives the recorded inputs to a new instance. Panics where it does anything else than the first one did.
    pub(in crate::quorum) fn replay(&self) -> Instance {
        let mut instance = self.beginning.clone();
        let mut rng = rng_from_seed(self.seed);
        for (input, expected) in self.inputs.iter().zip(&self.effects) {
            let mut effects = Vec::new();
            instance.handle(input.now, &mut rng, input.event.clone(), &mut effects);
            assert_eq!(&effects, expected, "after {:?}", input.event);
        }
        assert_eq!(
            Some(&instance),
            self.end.as_ref(),
            "the same effects but another state"
        );
        instance
    }
}
