//! The single copy of a key: a value and a version that rises with every write.
//!
//! The store assigns the versions (positions in its log), and a client without an answer does not know the
//! version of its write. So the version may be known only as a lower bound, until an operation observes it;
//! everything else is determined.

/// The precondition of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The key has no value.
    Absent,
    /// The key has a value, in this version.
    Version(u64),
}

/// The effect of an operation on its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect<'a> {
    /// It observed this value, possibly with its version; or none.
    Read { seen: Option<(&'a [u8], Option<u64>)> },
    /// Its condition held, and it set this value, or removed it.
    Write {
        value: Option<&'a [u8]>,
        condition: Condition,
        /// The new version, if known.
        version: Option<u64>,
    },
    /// Its condition did not hold.
    Refused {
        condition: Condition,
        current: Option<u64>,
    },
}

impl Effect<'_> {
    /// The version that it found, if any.
    pub(crate) fn reveals(&self) -> Option<u64> {
        match *self {
            Effect::Read { seen } => seen.and_then(|(_, version)| version),
            Effect::Refused { current, .. } => current,
            Effect::Write {
                condition: Condition::Version(version),
                ..
            } => Some(version),
            Effect::Write { .. } => None,
        }
    }
}

/// An operation in the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    /// Its position in the history.
    pub(crate) position: usize,
    pub(crate) invoked: u64,
    /// `None`: it takes effect at any time after its invocation, or never.
    pub(crate) returned: Option<u64>,
    pub(crate) effect: Effect<'a>,
}

impl Step<'_> {
    /// If it is a write, one that may also not have taken effect.
    pub(crate) fn if_it_writes(&self) -> Option<Self> {
        let writes = matches!(self.effect, Effect::Write { .. });
        writes.then_some(Step {
            returned: None,
            ..*self
        })
    }
}

/// The value of a key between two operations, as far as it is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content<'a> {
    /// Any value, or none.
    Anything,
    /// Any value.
    Something,
    /// None.
    Nothing,
    /// This value.
    Value(&'a [u8]),
}

/// The state of a key between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Register<'a> {
    content: Content<'a>,
    /// Of the last write.
    version: u64,
    /// The version may be higher. Versions of removals are never observed: there the bound suffices.
    or_more: bool,
}

impl<'a> Register<'a> {
    /// A key that was never written.
    pub(crate) const NEW: Register<'static> = Register {
        content: Content::Nothing,
        version: 0,
        or_more: true,
    };

    /// An unknown state.
    pub(crate) const ANY: Register<'static> = Register {
        content: Content::Anything,
        version: 0,
        or_more: true,
    };

    /// Whether its version is not determined yet.
    pub(crate) fn is_vague(self) -> bool {
        self.or_more
    }

    /// Whether this version has passed.
    pub(crate) fn is_beyond(self, version: u64) -> bool {
        self.version > version
    }

    /// The register after an operation, with what its outcome reveals; `None` if that outcome is impossible
    /// here.
    pub(crate) fn execute(self, effect: &Effect<'a>) -> Option<Self> {
        match *effect {
            Effect::Read { seen: None } => self.nothing(),
            Effect::Read {
                seen: Some((value, version)),
            } => {
                let found = self.value(value)?;
                version.map_or(Some(found), |version| found.version(version))
            }
            Effect::Refused { condition, current } => match current {
                None if condition != Condition::Absent => self.nothing(),
                Some(version) if condition != Condition::Version(version) => {
                    self.something()?.version(version)
                }
                _ => None,
            },
            Effect::Write {
                value,
                condition,
                version,
            } => {
                let before = match condition {
                    Condition::Any => self,
                    Condition::Absent => self.nothing()?,
                    Condition::Version(expected) => self.something()?.version(expected)?,
                };
                before.written(value, version)
            }
        }
    }

    fn nothing(self) -> Option<Self> {
        let content = Content::Nothing;
        let fits = matches!(self.content, Content::Anything | Content::Nothing);
        fits.then_some(Register { content, ..self })
    }

    fn something(self) -> Option<Self> {
        let content = match self.content {
            Content::Nothing => return None,
            Content::Anything | Content::Something => Content::Something,
            value => value,
        };
        Some(Register { content, ..self })
    }

    fn value(self, value: &'a [u8]) -> Option<Self> {
        let content = Content::Value(value);
        let fits = self.content == content || matches!(self.content, Content::Anything | Content::Something);
        fits.then_some(Register { content, ..self })
    }

    fn version(self, version: u64) -> Option<Self> {
        let fits = version == self.version || (version > self.version && self.or_more);
        let or_more = false;
        fits.then_some(Register {
            version,
            or_more,
            ..self
        })
    }

    fn written(self, value: Option<&'a [u8]>, version: Option<u64>) -> Option<Self> {
        let least = self.version + 1;
        let content = value.map_or(Content::Nothing, Content::Value);
        version
            .is_none_or(|version| version >= least)
            .then_some(Register {
                content,
                version: version.unwrap_or(least),
                or_more: version.is_none() || value.is_none(),
            })
    }
}

/// Whether an operation can follow a write *because of* what that wrote. An unconditional write can follow
/// anything, and reveals nothing.
pub(crate) fn observes(effect: &Effect<'_>, write: &Effect<'_>) -> bool {
    let Effect::Write { value, version, .. } = *write else {
        return false;
    };
    let fits = |seen: u64| value.is_some() && version.is_none_or(|version| version == seen);
    match *effect {
        Effect::Read { seen: None }
        | Effect::Refused { current: None, .. }
        | Effect::Write {
            condition: Condition::Absent,
            ..
        } => value.is_none(),
        // With any version, so that the value's origin stays clear.
        Effect::Read {
            seen: Some((seen, _)),
        } => value == Some(seen),
        Effect::Refused {
            current: Some(seen), ..
        }
        | Effect::Write {
            condition: Condition::Version(seen),
            ..
        } => fits(seen),
        Effect::Write {
            condition: Condition::Any,
            ..
        } => false,
    }
}
