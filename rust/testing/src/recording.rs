//! What an instance was given and what it did, and whether it would do the same again.

use crate::protocol::{Clock, Protocol, rng_from_seed};

/// An event with its time, and the effects that it had.
pub type Step<P> = (Clock, <P as Protocol>::Event, Vec<<P as Protocol>::Effect>);

/// The life of an instance.
pub struct Recording<P: Protocol> {
    /// In which role.
    pub role: P::Role,
    /// What it was given and did.
    pub steps: Vec<Step<P>>,
    beginning: P::Instance,
    seed: u64,
    end: Option<P::Instance>,
}

impl<P: Protocol> Recording<P> {
    pub(crate) fn new(role: P::Role, beginning: P::Instance, seed: u64) -> Self {
        Recording {
            role,
            steps: Vec::new(),
            beginning,
            seed,
            end: None,
        }
    }

    pub(crate) fn ended(mut self, instance: P::Instance) -> Self {
        self.end = Some(instance);
        self
    }

    /// What became of the instance.
    ///
    /// # Panics
    /// If it still runs.
    pub fn end(&self) -> &P::Instance {
        self.end
            .as_ref()
            .expect("recordings are given out when they have ended")
    }

    /// Gives the recorded events to a new instance.
    ///
    /// # Panics
    /// Where it does anything else than the first one did, or ends in another state.
    pub fn replay(&self) -> P::Instance {
        let mut instance = self.beginning.clone();
        let mut rng = rng_from_seed(self.seed);
        for (clock, event, expected) in &self.steps {
            let mut effects = Vec::new();
            P::handle(&mut instance, *clock, &mut rng, event.clone(), &mut effects);
            assert_eq!(&effects, expected, "after {event:?}");
        }
        assert_eq!(&instance, self.end(), "the same effects but another state");
        instance
    }
}
