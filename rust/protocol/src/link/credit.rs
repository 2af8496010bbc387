//! Credit: how much may be under way. Both ends count from the beginning of the session.

/// Whether an envelope of `size` bytes may join `outstanding` ones. One that is larger than the window goes alone.
fn fits(outstanding: Amount, window: Amount, size: u64) -> bool {
    window.count > outstanding.count
        && (outstanding.bytes == 0 || outstanding.bytes.saturating_add(size) <= window.bytes)
}

/// Bytes and envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) count: u64,
}

impl Amount {
    /// One envelope of this size.
    pub(super) fn of(size: usize) -> Amount {
        Amount {
            bytes: size as u64,
            count: 1,
        }
    }

    fn add(&mut self, bytes: u64, count: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.count = self.count.saturating_add(count);
    }

    /// What is in `self` and not in `other`, which must be part of it.
    fn beyond(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes - other.bytes,
            count: self.count - other.count,
        }
    }

    fn covers(self, other: Amount) -> bool {
        self.bytes >= other.bytes && self.count >= other.count
    }
}

/// What a receiver tells its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    /// How much may be under way.
    pub(super) window: Amount,
    /// How much roles have taken since the session began.
    pub(super) taken: Amount,
    /// How many chunks have arrived since the session began.
    pub(super) chunks: u64,
}

impl Grant {
    pub(super) const FIELDS: usize = 5;

    pub(super) fn fields(&self) -> [u64; Self::FIELDS] {
        [
            self.window.bytes,
            self.window.count,
            self.taken.bytes,
            self.taken.count,
            self.chunks,
        ]
    }

    pub(super) fn from_fields(fields: [u64; Self::FIELDS]) -> Self {
        Grant {
            window: Amount {
                bytes: fields[0],
                count: fields[1],
            },
            taken: Amount {
                bytes: fields[2],
                count: fields[3],
            },
            chunks: fields[4],
        }
    }
}

/// The sender's side. Invariant: what it has used covers what was taken of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Spending {
    used: Amount,
    chunks: u64,
    grant: Grant,
}

impl Spending {
    /// Takes the peer's word, or says why it cannot be true.
    pub(super) fn granted(&mut self, grant: Grant) -> Result<(), String> {
        if !self.used.covers(grant.taken) || grant.chunks > self.chunks {
            return Err(format!(
                "{grant:?} has taken more than {:?} and {} chunks",
                self.used, self.chunks
            ));
        }
        if !grant.taken.covers(self.grant.taken) || grant.chunks < self.grant.chunks {
            return Err(format!("{grant:?} takes back {:?}", self.grant));
        }
        self.grant = grant;
        Ok(())
    }

    /// Bytes and envelopes under way.
    pub(super) fn outstanding(&self) -> Amount {
        self.used.beyond(self.grant.taken)
    }

    /// Chunks under way.
    pub(super) fn outstanding_chunks(&self) -> u64 {
        self.chunks - self.grant.chunks
    }

    pub(super) fn allows(&self, size: usize) -> bool {
        fits(self.outstanding(), self.grant.window, size as u64)
    }

    pub(super) fn spend(&mut self, size: usize) {
        assert!(self.allows(size), "{size} bytes sent without credit: {self:?}");
        self.used.add(size as u64, 1);
    }

    pub(super) fn spend_chunk(&mut self, window: u64) {
        self.chunks += 1;
        assert!(
            self.outstanding_chunks() <= window,
            "more than {window} chunks under way"
        );
    }
}

/// The receiver's side. Invariant: what it has received covers what was taken of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Allowance {
    received: Amount,
    grant: Grant,
    announced: Option<Grant>,
}

impl Allowance {
    pub(super) fn new(window_bytes: u64, window_count: u64) -> Self {
        Allowance {
            received: Amount::default(),
            grant: Grant {
                window: Amount {
                    bytes: window_bytes,
                    count: window_count,
                },
                ..Grant::default()
            },
            announced: None,
        }
    }

    /// An envelope begins to arrive; false if there was no credit for it.
    #[must_use]
    pub(super) fn receive(&mut self, size: usize) -> bool {
        let fits = fits(self.untaken(), self.grant.window, size as u64);
        self.received.add(size as u64, 1);
        fits
    }

    pub(super) fn receive_chunk(&mut self) {
        self.grant.chunks += 1;
    }

    /// Roles have taken this much.
    pub(super) fn take(&mut self, bytes: u64, count: u64) {
        self.grant.taken.add(bytes, count);
        assert!(
            self.received.covers(self.grant.taken),
            "more was taken than was delivered: {self:?}"
        );
    }

    /// What arrived and no role has taken yet.
    pub(super) fn untaken(&self) -> Amount {
        self.received.beyond(self.grant.taken)
    }

    /// What to tell the sender, if it must know it now: at first, after chunks, after a quarter of the window.
    pub(super) fn due(&self) -> Option<Grant> {
        let Some(announced) = self.announced else {
            return Some(self.grant);
        };
        let news = self.grant.taken.beyond(announced.taken);
        let due = self.grant.chunks > announced.chunks
            || news.bytes > self.grant.window.bytes / 4
            || news.count > self.grant.window.count / 4;
        due.then_some(self.grant)
    }

    /// What to tell the sender if there is a batch anyway.
    pub(super) fn news(&self) -> Option<Grant> {
        (self.announced != Some(self.grant)).then_some(self.grant)
    }

    /// The sender has been told.
    pub(super) fn announce(&mut self) {
        self.announced = Some(self.grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(bytes: u64, count: u64) -> Spending {
        let mut spending = Spending::default();
        spending
            .granted(Grant {
                window: Amount { bytes, count },
                ..Grant::default()
            })
            .unwrap();
        spending
    }

    #[test]
    fn nothing_may_be_sent_before_the_first_grant() {
        assert!(!Spending::default().allows(1));
    }

    #[test]
    fn an_envelope_larger_than_the_window_goes_alone() {
        let mut spending = granted(100, 10);
        assert!(spending.allows(1000));
        spending.spend(60);
        assert!(spending.allows(40) && !spending.allows(41) && !spending.allows(1000));
    }

    #[test]
    fn the_count_is_bounded_too() {
        let mut spending = granted(100, 2);
        spending.spend(0);
        assert!(spending.allows(1));
        spending.spend(1);
        assert!(!spending.allows(1));
    }

    #[test]
    fn a_grant_that_cannot_be_true_is_refused() {
        let mut spending = granted(100, 10);
        spending.spend(10);
        let mut grant = Grant::from_fields([100, 10, 10, 1, 0]);
        assert_eq!(spending.granted(grant), Ok(()));
        assert_eq!(spending.outstanding(), Amount::default());
        grant.taken.bytes = 9;
        assert!(spending.granted(grant).is_err());
        grant.taken.bytes = 11;
        assert!(spending.granted(grant).is_err());
    }

    #[test]
    fn both_ends_agree_on_what_fits() {
        let mut allowance = Allowance::new(100, 3);
        assert!(allowance.receive(1000));
        assert!(!allowance.receive(1));
    }

    #[test]
    fn credit_is_told_at_first_then_after_a_quarter_of_the_window() {
        let mut allowance = Allowance::new(100, 100);
        assert!(allowance.due().is_some());
        allowance.announce();
        assert!(allowance.receive(50));
        allowance.take(25, 1);
        assert!(allowance.due().is_none() && allowance.news().is_some());
        allowance.take(1, 0);
        assert!(allowance.due().is_some());
        allowance.announce();
        assert!(allowance.due().is_none() && allowance.news().is_none());
        allowance.receive_chunk();
        assert!(allowance.due().is_some());
    }

    #[test]
    #[should_panic(expected = "more was taken than was delivered")]
    fn taking_what_never_came_breaks_an_invariant() {
        Allowance::new(100, 100).take(1, 0);
    }
}
