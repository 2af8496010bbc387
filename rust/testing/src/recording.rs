//! Recordings of the events and effects of an instance, and their replay.

use crate::protocol::{Clock, Protocol, rng_from_seed};

/// An event with its time and effects.
pub type Step<P> = (Clock, <P as Protocol>::Event, Vec<<P as Protocol>::Effect>);

/// The recording of an instance.
pub struct Recording<P: Protocol> {
    /// The role.
    pub role: P::Role,
    /// The events and effects.
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

    /// The final state of the instance.
    ///
    /// # Panics
    /// If it is still running.
    pub fn end(&self) -> &P::Instance {
        self.end
            .as_ref()
            .expect("recordings are returned when they have ended")
    }

    /// Replays the recorded events on a new instance.
    ///
    /// # Panics
    /// If its effects or its final state differ.
    pub fn replay(&self) -> P::Instance {
        let mut instance = self.beginning.clone();
        let mut rng = rng_from_seed(self.seed);
        for (clock, event, expected) in &self.steps {
            let mut effects = Vec::new();
            P::handle(&mut instance, *clock, &mut rng, event.clone(), &mut effects);
            assert_eq!(&effects, expected, "after {event:?}");
        }
        assert_eq!(&instance, self.end(), "the same effects but another final state");
        instance
    }
}
