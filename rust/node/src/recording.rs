//! Recordings: everything that a role was given, so that it can be replayed to the same effects.
//!
//! A recording is a file of length-delimited frames (4 bytes, little endian, then postcard). The first is a
//! [`Heading`]: what the instance was made from. Each of the others is a [`Step`]: one input and a digest of the
//! effects that it had. Recording is for debugging: it slows the node down and the files grow without bound.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use quorate_core::bugs::Bugs;
use quorate_core::contract::{Input, Role, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Effect, Event, RoleId, Spec, Surroundings};
use quorate_protocol::topology::Topology;
use quorate_raft::settings::Timing;
use quorate_roles::Instance;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const FORMAT: u16 = 2;
/// The longest frame that is read back; nothing that a role is given is larger.
const MAX_FRAME: usize = 64 << 20;

/// What an instance was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// 1.
    pub format: u16,
    /// Which role.
    pub role: RoleId,
    /// The spec that it belongs to; `None` for the node role.
    pub spec: Option<Spec>,
    /// The data directory.
    pub replica: ReplicaId,
    /// The members.
    pub topology: Topology,
    /// The nodes that could be reached.
    pub alive: BTreeSet<NodeId>,
    /// How long things take in Raft groups.
    pub raft: Timing,
    /// Of its random source.
    pub seed: u64,
}

impl Heading {
    /// Of an instance with these surroundings.
    pub fn new(role: RoleId, spec: Option<Spec>, surroundings: &Surroundings, seed: u64) -> Self {
        Heading {
            format: FORMAT,
            role,
            spec,
            replica: surroundings.replica,
            topology: surroundings.placement.topology().as_ref().clone(),
            alive: surroundings.alive.clone(),
            raft: surroundings.raft,
            seed,
        }
    }

    /// The instance as it was when the recording began.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when this program cannot make such an instance.
    pub fn instance(&self) -> Result<Instance, Error> {
        let surroundings = Surroundings {
            replica: self.replica,
            placement: Placement::new(self.topology.clone())?,
            alive: self.alive.clone(),
            raft: self.raft,
            bugs: Bugs::none(),
        };
        let Some(spec) = &self.spec else {
            return Ok(Instance::node(&surroundings));
        };
        let instances = Instance::create(spec, &surroundings)?;
        let found = instances.into_iter().find(|(role, _)| *role == self.role);
        found
            .map(|(_, instance)| instance)
            .ok_or_else(|| Error::invalid(format!("{:?} is no role of {spec:?}", self.role)))
    }
}

/// One input and what it led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What the role was given.
    pub input: Input<Event>,
    /// [`digest`] of the effects.
    pub effects: u64,
}

/// A number that differs, nearly always, when effects differ.
pub fn digest(effects: &[Effect]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    effects.hash(&mut hasher);
    hasher.finish()
}

/// Gives the instance of a recording its inputs again; the number of steps that had the same effects.
///
/// # Errors
/// The step whose effects differ, or why there is no such instance.
pub fn replay(heading: &Heading, steps: &[Step]) -> Result<usize, String> {
    let mut instance = heading.instance().map_err(|error| error.to_string())?;
    let mut rng = rng_from_seed(heading.seed);
    for (number, step) in steps.iter().enumerate() {
        let mut effects = Vec::new();
        instance.handle(step.input.now, &mut rng, step.input.event.clone(), &mut effects);
        if digest(&effects) != step.effects {
            return Err(format!(
                "step {number} of {:?} had other effects: now {effects:?} after {:?}",
                heading.role, step.input
            ));
        }
    }
    Ok(steps.len())
}

/// Writes the recording of one instance.
pub struct Recorder {
    file: BufWriter<File>,
}

impl Recorder {
    /// A new recording in `directory`, named after the role and the boot.
    ///
    /// # Errors
    /// When the file cannot be written; the error names it.
    pub fn create(directory: &Path, name: &str, heading: &Heading) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{name}.recording"));
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("create {}: {error}", path.display())))?;
        let mut recorder = Recorder {
            file: BufWriter::new(file),
        };
        recorder.frame(heading)?;
        Ok(recorder)
    }

    /// Adds a step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, step: &Step) -> io::Result<()> {
        self.frame(step)
    }

    /// Gives what is buffered to the operating system.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn frame(&mut self, content: &impl Serialize) -> io::Result<()> {
        let bytes = postcard::to_stdvec(content).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&bytes)
    }
}

/// Reads a recording back. A last step that was cut short, as by a crash, is left out.
///
/// # Errors
/// When the file cannot be read or is not a recording.
pub fn read(path: &Path) -> io::Result<(Heading, Vec<Step>)> {
    let mut file = BufReader::new(File::open(path)?);
    let heading: Heading =
        next(&mut file)?.ok_or_else(|| io::Error::other("the recording has no heading"))?;
    if heading.format != FORMAT {
        return Err(io::Error::other(format!(
            "format {} is not {FORMAT}",
            heading.format
        )));
    }
    let mut steps = Vec::new();
    while let Some(step) = next(&mut file)? {
        steps.push(step);
    }
    Ok((heading, steps))
}

fn next<T: DeserializeOwned>(file: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if !filled(file, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes is not of a recording"
        )));
    }
    let mut bytes = vec![0; length];
    if !filled(file, &mut bytes)? {
        return Ok(None);
    }
    postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
}

/// Whether the buffer was filled before the file ended.
fn filled(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::ClusterId;
    use quorate_core::time::Now;
    use quorate_protocol::topology::Member;
    use quorate_ring::RingSettings;

    use super::*;

    /// The bytes of recordings that people keep. A change of them needs a new format number.
    #[test]
    fn golden_bytes() {
        let member = Member {
            id: NodeId(1),
            peer_address: "p".to_owned(),
            client_address: "c".to_owned(),
            http_address: "h".to_owned(),
            rack: "r".to_owned(),
            datacenter: "d".to_owned(),
        };
        let topology = Topology::new(ClusterId(2), 3, vec![member], RingSettings::default()).unwrap();
        let heading = Heading {
            format: FORMAT,
            role: RoleId::Control,
            spec: Some(Spec::Control),
            replica: ReplicaId::new(NodeId(1), 7),
            topology,
            alive: [NodeId(1)].into(),
            raft: Timing::DEFAULT,
            seed: 9,
        };
        let step = Step {
            input: Input {
                now: Now::default(),
                event: Event::Timer { id: 5 },
            },
            effects: digest(&[]),
        };
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(folder.path(), "n1", &heading).unwrap();
        recorder.step(&step).unwrap();
        recorder.flush().unwrap();
        let path = folder.path().join("n1.recording");
        let bytes = std::fs::read(&path).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "3400000002010100878080808080400203010101700163016801720164960100010100\
                        80a3c3470080c6868f010080e1eb170080ade204090e00000000000505d9d99efcb6d7cebdc701";
        assert_eq!(hex, expected);
        assert_eq!(read(&path).unwrap(), (heading, vec![step]));
    }
}
