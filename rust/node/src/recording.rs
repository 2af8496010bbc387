//! Recordings: all inputs of a role, to replay it to the same effects.
//!
//! A recording is a file of length-delimited frames (4 bytes, little endian, then postcard). The first is a
//! [`Heading`]: the parameters of the instance. Each of the others is a [`Step`]: one input and a digest of its effects.
//! Recording is for debugging: it slows the node down and the files grow without bound.

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
/// The longest frame that is read back; no input of a role is larger.
const MAX_FRAME: usize = 64 << 20;

/// The parameters of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The format version.
    pub format: u16,
    /// The role.
    pub role: RoleId,
    /// The spec of the role; `None` for the node role.
    pub spec: Option<Spec>,
    /// The data directory.
    pub replica: ReplicaId,
    /// The members.
    pub topology: Topology,
    /// The reachable nodes.
    pub alive: BTreeSet<NodeId>,
    /// The timeouts of Raft groups.
    pub raft: Timing,
    /// The seed of its random source.
    pub seed: u64,
}

impl Heading {
    /// The heading of an instance with these surroundings.
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

    /// Creates the instance in its initial state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when this program cannot create such an instance.
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
            .ok_or_else(|| Error::invalid(format!("{:?} is not a role of {spec:?}", self.role)))
    }
}

/// One input and its effects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The input.
    pub input: Input<Event>,
    /// [`digest`] of the effects.
    pub effects: u64,
}

/// A hash of effects.
pub fn digest(effects: &[Effect]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    effects.hash(&mut hasher);
    hasher.finish()
}

/// Replays a recording; returns the number of steps, if all had the recorded effects.
///
/// # Errors
/// The first step with other effects, or the reason why the instance cannot be created.
pub fn replay(heading: &Heading, steps: &[Step]) -> Result<usize, String> {
    let mut instance = heading.instance().map_err(|error| error.to_string())?;
    let mut rng = rng_from_seed(heading.seed);
    for (number, step) in steps.iter().enumerate() {
        let mut effects = Vec::new();
        instance.handle(step.input.now, &mut rng, step.input.event.clone(), &mut effects);
        if digest(&effects) != step.effects {
            return Err(format!(
                "step {number} of {:?} diverged: effects {effects:?} of {:?}",
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
    /// Creates a recording in `directory`.
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

    /// Flushes buffered bytes to the operating system.
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

/// Reads a recording. A truncated last step, as after a crash, is omitted.
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
            "not a recording: a frame of {length} bytes"
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

    /// The bytes of stored recordings. Changing them requires a new format version.
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
