//! The data directory: who may use it, and whose it is.
//!
//! ```text
//! DIR/LOCK        locked (flock) by the process that uses the directory
//! DIR/identity    whose directory this is, as text with a checksum; replaced atomically
//! DIR/journal/    an LMDB environment
//! DIR/state/      an LMDB environment
//! DIR/snapshots/  files of rows, see `crate::files`
//! ```
//!
//! The id of a node lives here and nowhere else. A node that finds its directory empty has lost its memory: it gets a
//! new replica id and never resumes the old one, whose counters it no longer knows.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use quorate_protocol::ids::{ClusterId, NodeId, ReplicaId};

use crate::error::OpenError;
use crate::sys;

/// The version of the identity file that this program writes.
const IDENTITY_VERSION: u32 = 1;

const IDENTITY_FILE: &str = "identity";

/// Whose data a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node, which owns the directory.
    pub node: NodeId,
    /// The replica: this directory, in this life.
    pub replica: ReplicaId,
}

/// What [`DataDir::claim`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose directory it is, now in any case.
    pub identity: Identity,
    /// Whether it was empty: the node starts without a memory.
    pub fresh: bool,
}

/// A data directory, locked for this process for as long as a clone of this is kept.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`OpenError::DirectoryInUse`] if it is locked; [`OpenError::Io`] if it cannot be created or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
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
            _lock: Arc::new(lock),
        })
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose directory it is; `None` if nobody has claimed it.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] or [`OpenError::FormatTooNew`] if the file is not a whole identity.
    pub fn identity(&self) -> Result<Option<Identity>, OpenError> {
        Ok(self.read()?.map(|file| file.identity))
    }

    /// Makes sure that the directory is `node`'s of `cluster`: an empty one becomes so, with a new replica id whose
    /// random bits are `incarnation`; one that is already keeps the replica id it has.
    ///
    /// # Errors
    /// [`OpenError::ForeignCluster`] or [`OpenError::ForeignNode`] if it is somebody else's, and those of
    /// [`identity`](Self::identity). [`OpenError::Corrupt`] if there are data, but nobody's.
    pub fn claim(&self, cluster: ClusterId, node: NodeId, incarnation: u64) -> Result<Claim, OpenError> {
        let Some(IdentityFile { identity, .. }) = self.read()? else {
            for part in ["journal", "state"] {
                let path = self.path.join(part);
                if path.exists() {
                    let detail =
                        "there are data, but the identity file that says whose is missing".to_owned();
                    return Err(OpenError::Corrupt { path, detail });
                }
            }
            let identity = Identity {
                cluster,
                node,
                replica: ReplicaId::new(node, incarnation),
            };
            self.write(IdentityFile {
                identity,
                has_data: false,
            })?;
            return Ok(Claim {
                identity,
                fresh: true,
            });
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

    /// Whether the store was created in this directory: from then on, its absence is a loss.
    pub(crate) fn has_data(&self) -> Result<bool, OpenError> {
        Ok(self.read()?.is_some_and(|file| file.has_data))
    }

    /// Remembers durably that the store was created. Does nothing in a directory that nobody has claimed.
    pub(crate) fn set_has_data(&self) -> Result<(), OpenError> {
        match self.read()? {
            Some(file) if !file.has_data => self.write(IdentityFile {
                has_data: true,
                ..file
            }),
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<Option<IdentityFile>, OpenError> {
        let path = self.path.join(IDENTITY_FILE);
        match fs::read(&path) {
            Ok(bytes) => IdentityFile::parse(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Replaces the file so that after a power cut there is the old one or the new one, whole.
    fn write(&self, file: IdentityFile) -> Result<(), OpenError> {
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

/// The identity file: lines of text, the last of them a CRC-32C of those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdentityFile {
    identity: Identity,
    has_data: bool,
}

impl IdentityFile {
    fn render(&self) -> String {
        let Identity {
            cluster,
            node,
            replica,
        } = self.identity;
        let mut text = format!(
            "quorate-identity {IDENTITY_VERSION}\ncluster {cluster}\nnode {node}\nreplica {:016x}\nhas-data {}\n",
            replica.0, self.has_data
        );
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
        let version = field::<u32>(&mut lines, "quorate-identity").ok_or_else(|| corrupt("no version"))?;
        if version > IDENTITY_VERSION {
            let supported = IDENTITY_VERSION;
            return Err(OpenError::FormatTooNew {
                path: path.to_owned(),
                found: version,
                supported,
            });
        }
        let file = (|| {
            let cluster = u128::from_str_radix(value(&mut lines, "cluster")?, 16).ok()?;
            let node = field(&mut lines, "node")?;
            let replica = u64::from_str_radix(value(&mut lines, "replica")?, 16).ok()?;
            let has_data = field(&mut lines, "has-data")?;
            let identity = Identity {
                cluster: ClusterId(cluster),
                node,
                replica: ReplicaId(replica),
            };
            Some(IdentityFile { identity, has_data })
        })();
        // Written back, the fields must give the file, byte for byte: that covers the checksum too.
        file.filter(|file| file.render().as_bytes() == bytes)
            .ok_or_else(|| corrupt("not as it was written"))
    }
}

fn value<'a>(lines: &mut std::str::Lines<'a>, name: &str) -> Option<&'a str> {
    lines.next()?.strip_prefix(name)?.strip_prefix(' ')
}

fn field<T: FromStr>(lines: &mut std::str::Lines<'_>, name: &str) -> Option<T> {
    value(lines, name)?.parse().ok()
}

/// Creates a directory and its missing parents, each durably entered in its parent.
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
