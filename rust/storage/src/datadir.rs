//! The data directory: its lock, and the node that owns it.
//!
//! ```text
//! DIR/LOCK        locked (flock) by the process that uses the directory
//! DIR/identity    the owner of the directory, as text with a checksum; replaced atomically
//! DIR/journal/    an LMDB environment
//! DIR/state/      an LMDB environment
//! DIR/snapshots/  files of rows, see `crate::files`
//! ```
//!
//! The replica id of a node is stored only here. A node that finds its directory empty has lost its data: it gets a new
//! replica id and never resumes the old one, whose counters are lost.
//!
//! A cluster is *formed* once all its nodes have served and one of them has led; before that no node acknowledges a write.
//! The identity records the formation, with the cluster's name, size and ring. A directory that is not part of a formed
//! cluster can be [reset](DataDir::reset); others never can.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use quorate_core::ids::{ClusterId, NodeId, ReplicaId};
use quorate_ring::RingSettings;

use crate::error::OpenError;
use crate::sys;

/// The version of the identity file that this program reads and writes.
const IDENTITY_VERSION: u32 = 3;

const IDENTITY_FILE: &str = "identity";

/// The owner of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node, which owns the directory.
    pub node: NodeId,
    /// The replica id of this directory.
    pub replica: ReplicaId,
}

/// The formed cluster of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formation {
    /// The cluster's name.
    pub name: String,
    /// The number of nodes.
    pub nodes: u16,
    /// How keys become tokens, and how many tokens a node has.
    pub ring: RingSettings,
}

/// The result of [`DataDir::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The owner of the directory.
    pub identity: Identity,
    /// Whether it was empty, so that the node starts without data.
    pub fresh: bool,
}

/// A data directory, locked by this process until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Whether it was just created, durably.
    created: bool,
    _lock: Arc<File>,
}

impl DataDir {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`OpenError::DirectoryInUse`] if it is locked; [`OpenError::Io`] if it cannot be created or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let created = !path.is_dir();
        create_dir_durably(path)?;
        let path = fs::canonicalize(path).map_err(io_error("resolve", path))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        if !sys::try_lock(&lock).map_err(io_error("lock", &lock_path))? {
            return Err(OpenError::DirectoryInUse { path });
        }
        Ok(DataDir {
            path,
            created,
            _lock: Arc::new(lock),
        })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The owner of the directory; `None` if it is not claimed.
    ///
    /// # Errors
    /// Those of [`inspect`].
    pub fn identity(&self) -> Result<Option<Identity>, OpenError> {
        Ok(self.read()?.map(|file| file.identity))
    }

    /// Claims the directory for `node` of `cluster`: an empty one gets a new replica id with the random bits `incarnation`;
    /// one that the node owns already keeps its replica id.
    ///
    /// # Errors
    /// [`OpenError::ForeignCluster`] or [`OpenError::ForeignNode`] if it has another owner, and those of [`inspect`].
    pub fn claim(&self, cluster: ClusterId, node: NodeId, incarnation: u64) -> Result<Claim, OpenError> {
        let Some(IdentityFile { identity, .. }) = self.read()? else {
            reject_data(&self.path)?;
            return self.take(cluster, node, incarnation);
        };
        let path = || self.path.clone();
        if identity.cluster != cluster {
            return Err(OpenError::ForeignCluster {
                path: path(),
                found: identity.cluster,
                expected: cluster,
            });
        }
        if identity.node != node {
            return Err(OpenError::ForeignNode {
                path: path(),
                found: identity.node,
                expected: node,
            });
        }
        Ok(Claim {
            identity,
            fresh: false,
        })
    }

    /// Claims the directory for `node` of `cluster` and discards what an attempt to form a cluster left in it, of which
    /// nothing was acknowledged. The store that is opened next is empty.
    ///
    /// # Errors
    /// [`OpenError::AlreadyFormed`] if it is part of a formed cluster, and those of [`inspect`].
    pub fn reset(&self, cluster: ClusterId, node: NodeId, incarnation: u64) -> Result<Claim, OpenError> {
        match self.read()? {
            None => reject_data(&self.path)?,
            Some(file) => {
                if let Some(Formation { name, .. }) = file.formation {
                    let path = self.path.clone();
                    return Err(OpenError::AlreadyFormed { path, name });
                }
            }
        }
        self.take(cluster, node, incarnation)
    }

    /// Writes a new identity, which marks the store as not created, so that the next open creates it.
    fn take(&self, cluster: ClusterId, node: NodeId, incarnation: u64) -> Result<Claim, OpenError> {
        let identity = Identity {
            cluster,
            node,
            replica: ReplicaId::new(node, incarnation),
        };
        // The process that created the directory may have been killed before its entry was durable.
        if !self.created
            && let Some(parent) = self.path.parent()
        {
            match File::open(parent).and_then(|parent| parent.sync_all()) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(io_error("sync", parent)(error));
                }
                _ => {}
            }
        }
        self.write(&IdentityFile {
            identity,
            has_data: false,
            formation: None,
        })?;
        Ok(Claim {
            identity,
            fresh: true,
        })
    }

    /// Records durably that the directory is part of this formed cluster, so that it cannot be reset.
    ///
    /// # Errors
    /// [`OpenError::Io`] if it cannot be written, [`OpenError::Corrupt`] if it is not claimed, and those of [`inspect`].
    pub fn set_formed(&self, formation: Formation) -> Result<(), OpenError> {
        let file = self.read()?.ok_or_else(|| OpenError::Corrupt {
            path: self.path.join(IDENTITY_FILE),
            detail: "it is missing".to_owned(),
        })?;
        if file.formation.as_ref() == Some(&formation) {
            return Ok(());
        }
        self.write(&IdentityFile {
            formation: Some(formation),
            ..file
        })
    }

    /// Whether the store was created in this directory: from then on, a missing store is an error.
    pub(crate) fn has_data(&self) -> Result<bool, OpenError> {
        Ok(self.read()?.is_some_and(|file| file.has_data))
    }

    /// Records durably that the store was created. Does nothing in an unclaimed directory.
    pub(crate) fn set_has_data(&self) -> Result<(), OpenError> {
        match self.read()? {
            Some(file) if !file.has_data => self.write(&IdentityFile {
                has_data: true,
                ..file
            }),
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<Option<IdentityFile>, OpenError> {
        read(&self.path)
    }

    /// Replaces the file atomically: after a power failure either the old or the new file is intact.
    fn write(&self, file: &IdentityFile) -> Result<(), OpenError> {
        let path = self.path.join(IDENTITY_FILE);
        let temporary = self.path.join("identity.new");
        let written = || -> io::Result<()> {
            let mut target = File::create(&temporary)?;
            target.write_all(file.render().as_bytes())?;
            target.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().map_err(io_error("write", &path))
    }
}

/// Reads the identity of a directory, which may be in use; `None` if it is missing or not claimed. The formation is `None`
/// until the cluster is formed.
///
/// # Errors
/// [`OpenError::Corrupt`], [`OpenError::FormatTooOld`] or [`OpenError::FormatTooNew`] if the file is not a valid identity
/// of this version, or is missing beside data.
pub fn inspect(directory: &Path) -> Result<Option<(Identity, Option<Formation>)>, OpenError> {
    let Some(file) = read(directory)? else {
        reject_data(directory)?;
        return Ok(None);
    };
    Ok(Some((file.identity, file.formation)))
}

fn read(directory: &Path) -> Result<Option<IdentityFile>, OpenError> {
    let path = directory.join(IDENTITY_FILE);
    match fs::read(&path) {
        Ok(bytes) => IdentityFile::parse(&bytes, &path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// Rejects a directory that has data but no identity.
fn reject_data(directory: &Path) -> Result<(), OpenError> {
    for part in ["journal", "state"] {
        let path = directory.join(part);
        if path.try_exists().map_err(io_error("inspect", &path))? {
            let detail = "there are data, but the identity file is missing".to_owned();
            return Err(OpenError::Corrupt { path, detail });
        }
    }
    Ok(())
}

/// The identity file: lines of text, the last of them a CRC-32C of those above it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IdentityFile {
    identity: Identity,
    has_data: bool,
    formation: Option<Formation>,
}

impl IdentityFile {
    fn render(&self) -> String {
        let Identity {
            cluster,
            node,
            replica,
        } = self.identity;
        let mut text = format!(
            "quorate-identity {IDENTITY_VERSION}\ncluster {cluster}\nnode {node}\nreplica {:016x}\nhas-data {}\n\
             formed {}\n",
            replica.0,
            self.has_data,
            self.formation.is_some(),
        );
        if let Some(Formation { name, nodes, ring }) = &self.formation {
            let RingSettings { vnodes, hash } = ring;
            let name = escaped(name);
            write!(text, "name {name}\nnodes {nodes}\nvnodes {vnodes}\nhash {hash}\n")
                .expect("a string takes any text");
        }
        let crc = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("a string takes any text");
        text
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, OpenError> {
        let corrupt = |detail: &str| OpenError::Corrupt {
            path: path.to_owned(),
            detail: detail.to_owned(),
        };
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("not text"))?;
        let mut lines = text.lines();
        let found = field::<u32>(&mut lines, "quorate-identity").ok_or_else(|| corrupt("no version"))?;
        let (path, supported) = (path.to_owned(), IDENTITY_VERSION);
        if found > IDENTITY_VERSION {
            return Err(OpenError::FormatTooNew {
                path,
                found,
                supported,
            });
        }
        if found < IDENTITY_VERSION {
            return Err(OpenError::FormatTooOld {
                path,
                found,
                supported,
            });
        }
        let file = (|| {
            let cluster = u128::from_str_radix(value(&mut lines, "cluster")?, 16).ok()?;
            let node = field(&mut lines, "node")?;
            let replica = u64::from_str_radix(value(&mut lines, "replica")?, 16).ok()?;
            let identity = Identity {
                cluster: ClusterId(cluster),
                node,
                replica: ReplicaId(replica),
            };
            Some(IdentityFile {
                identity,
                has_data: field(&mut lines, "has-data")?,
                formation: match field(&mut lines, "formed")? {
                    true => Some(formation(&mut lines)?),
                    false => None,
                },
            })
        })();
        // Rendering the fields must reproduce the file byte for byte, which covers the checksum too.
        file.filter(|file| file.render().as_bytes() == bytes)
            .ok_or_else(|| corrupt("checksum or format mismatch"))
    }
}

fn formation(lines: &mut std::str::Lines<'_>) -> Option<Formation> {
    Some(Formation {
        name: unescaped(value(lines, "name")?),
        nodes: field(lines, "nodes")?,
        ring: RingSettings {
            vnodes: field(lines, "vnodes")?,
            hash: field(lines, "hash")?,
        },
    })
}

/// Escapes a name to a single line.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

fn unescaped(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        name.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                // Anything but a backslash is invalid, which the comparison with the rendered file detects.
                other => other.unwrap_or_default(),
            },
            plain => plain,
        });
    }
    name
}

fn value<'a>(lines: &mut std::str::Lines<'a>, name: &str) -> Option<&'a str> {
    lines.next()?.strip_prefix(name)?.strip_prefix(' ')
}

fn field<T: FromStr>(lines: &mut std::str::Lines<'_>, name: &str) -> Option<T> {
    value(lines, name)?.parse().ok()
}

/// Creates a directory and its missing parents, each with a durable entry in its parent.
pub(crate) fn create_dir_durably(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("create", path)(error)),
        _ => sync_dir(parent),
    }
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", path))
}

pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "datadir_tests.rs"]
mod tests;
