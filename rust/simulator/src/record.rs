//! Roles as the simulator keeps them: with their random source and, on demand, a recording of all that they were given.
//!
//! The contract of a role says that the same inputs with the same seed give the same effects. A [`Recording`] holds
//! a role to that: it is what the role was when it began, its seed, every input, and a digest of the effects that each
//! input had.

use std::fmt::Debug;

use quorate_core::contract::{Input, Rng, Role, rng_from_seed};
use quorate_core::time::Now;
use xxhash_rust::xxh3::xxh3_64;

/// A role instance and what drives it.
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
    /// A role that draws from the random source with this seed, recorded if `record` says so.
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

    /// Gives it an event and returns its effects.
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

    /// Ends it and returns its recording, if there is one.
    pub fn into_recording(self) -> Option<Recording<R>> {
        self.recording
    }
}

/// All that a role instance was ever given.
pub struct Recording<R: Role> {
    beginning: R,
    seed: u64,
    inputs: Vec<Input<R::Event>>,
    digests: Vec<u64>,
}

/// A replay that went another way than the recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input {input} of {of}, {event}, has other effects in the replay: {effects}")]
pub struct Divergence {
    /// Which input, from 0.
    pub input: usize,
    /// How many there are.
    pub of: usize,
    /// The input.
    pub event: String,
    /// What it leads to in the replay.
    pub effects: String,
}

impl<R> Recording<R>
where
    R: Role,
    R::Event: Clone + Debug,
    R::Effect: Debug,
{
    /// What the role was before its first input.
    pub fn beginning(&self) -> &R {
        &self.beginning
    }

    /// How many inputs it holds.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Gives a role like the recorded one the same inputs. Returns what it is after the last of them.
    ///
    /// # Errors
    /// The first input with other effects than were recorded.
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

    /// Adds up what it is given, and a random number; cheats if it can.
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
    fn a_pure_role_replays_and_one_with_hidden_state_is_found_out() {
        let recording = recorded(false);
        assert_eq!(recording.len(), 5);
        assert!(recording.replay().is_ok());
        assert_eq!(
            recorded(true).replay().err().map(|divergence| divergence.input),
            Some(0)
        );
    }
}
