//! Hosted roles: a role with its random source and, optionally, a recording of its inputs.
//!
//! The contract of a role requires that the same inputs with the same seed give the same effects. A [`Recording`] verifies
//! that: it contains the initial state of the role, its seed, every input, and a digest of the effects of each input.

use std::fmt::Debug;

use quorate_core::contract::{Input, Rng, Role, rng_from_seed};
use quorate_core::time::Now;
use xxhash_rust::xxh3::xxh3_64;

/// A role instance with its random source.
pub struct Hosted<R: Role> {
    role: R,
    rng: Rng,
    recording: Option<Recording<R>>,
}

impl<R> Hosted<R>
where
    R: Role,
    R::Event: Clone,
    R::Effect: Debug,
{
    /// Hosts a role with this seed; recorded if `record`.
    pub fn new(role: R, seed: u64, record: bool) -> Self {
        let recording = record.then(|| Recording {
            beginning: role.clone(),
            seed,
            inputs: Vec::new(),
            digests: Vec::new(),
        });
        Hosted {
            role,
            rng: rng_from_seed(seed),
            recording,
        }
    }

    /// The role.
    pub fn role(&self) -> &R {
        &self.role
    }

    /// Handles an event and returns the effects.
    pub fn handle(&mut self, now: Now, event: R::Event) -> Vec<R::Effect> {
        let mut effects = Vec::new();
        match &mut self.recording {
            None => self.role.handle(now, &mut self.rng, event, &mut effects),
            Some(recording) => {
                recording.inputs.push(Input {
                    now,
                    event: event.clone(),
                });
                self.role.handle(now, &mut self.rng, event, &mut effects);
                recording.digests.push(digest(&effects));
            }
        }
        effects
    }

    /// Ends the role and returns its recording, if any.
    pub fn into_recording(self) -> Option<Recording<R>> {
        self.recording
    }
}

/// All inputs of a role instance.
pub struct Recording<R: Role> {
    beginning: R,
    seed: u64,
    inputs: Vec<Input<R::Event>>,
    digests: Vec<u64>,
}

/// A replay that diverged from the recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input {input} of {of}, {event}, diverged in the replay: effects {effects}")]
pub struct Divergence {
    /// The number of the input, from 0.
    pub input: usize,
    /// The number of inputs.
    pub of: usize,
    /// The input.
    pub event: String,
    /// Its effects in the replay.
    pub effects: String,
}

impl<R> Recording<R>
where
    R: Role,
    R::Event: Clone + Debug,
    R::Effect: Debug,
{
    /// The initial state of the role.
    pub fn beginning(&self) -> &R {
        &self.beginning
    }

    /// The number of inputs.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Replays the inputs. Returns the final state of the role.
    ///
    /// # Errors
    /// The first input with other effects than recorded.
    pub fn replay(&self) -> Result<R, Divergence> {
        let mut role = self.beginning.clone();
        let mut rng = rng_from_seed(self.seed);
        for (number, (input, recorded)) in self.inputs.iter().zip(&self.digests).enumerate() {
            let mut effects = Vec::new();
            role.handle(input.now, &mut rng, input.event.clone(), &mut effects);
            if digest(&effects) != *recorded {
                return Err(Divergence {
                    input: number,
                    of: self.inputs.len(),
                    event: format!("{:?}", input.event),
                    effects: format!("{effects:?}"),
                });
            }
        }
        Ok(role)
    }
}

fn digest(effects: &impl Debug) -> u64 {
    xxh3_64(format!("{effects:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use rand_core::Rng as _;

    use super::*;

    /// Adds up its inputs and random numbers; has hidden state if `cheat`.
    #[derive(Clone, Debug)]
    struct Sum {
        total: u64,
        cheat: Option<std::rc::Rc<std::cell::Cell<u64>>>,
    }

    impl Role for Sum {
        type Event = u64;
        type Effect = u64;

        fn handle(&mut self, now: Now, rng: &mut Rng, event: u64, effects: &mut Vec<u64>) {
            let draw = rng.next_u64() % 10;
            let cheat = self.cheat.as_ref().map_or(0, |cell| cell.replace(cell.get() + 1));
            self.total += event + now.instant.0 + draw + cheat;
            effects.push(self.total);
        }
    }

    fn recorded(cheat: bool) -> Recording<Sum> {
        let mut hosted = Hosted::new(
            Sum {
                total: 0,
                cheat: cheat.then(Default::default),
            },
            7,
            true,
        );
        for event in 0..5 {
            hosted.handle(Now::default(), event);
        }
        hosted.into_recording().expect("it was asked for")
    }

    #[test]
    fn a_pure_role_replays_and_hidden_state_is_detected() {
        let recording = recorded(false);
        assert_eq!(recording.len(), 5);
        assert!(recording.replay().is_ok());
        assert_eq!(
            recorded(true).replay().err().map(|divergence| divergence.input),
            Some(0)
        );
    }
}
