//! Credit: flow control by a window of bytes and envelopes in flight. Both ends count from the beginning of the session.

/// Whether an envelope of `size` bytes may be sent with `outstanding` ones in flight. One that is larger than the window is
/// sent alone.
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

    /// The difference; `other` must be covered by `self`.
    fn minus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes - other.bytes,
            count: self.count - other.count,
        }
    }

    fn covers(self, other: Amount) -> bool {
        self.bytes >= other.bytes && self.count >= other.count
    }
}

/// The credit that a receiver grants its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    /// The maximum in flight.
    pub(super) window: Amount,
    /// The amount that roles have taken since the session began.
    pub(super) taken: Amount,
    /// The number of chunks that have arrived since the session began.
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

/// The sender's side. Invariant: the amount used covers the amount taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct SendCredit {
    used: Amount,
    chunks: u64,
    grant: Grant,
}

impl SendCredit {
    /// Applies the peer's grant, or returns why it is invalid.
    pub(super) fn granted(&mut self, grant: Grant) -> Result<(), String> {
        if !self.used.covers(grant.taken) || grant.chunks > self.chunks {
            return Err(format!(
                "{grant:?} has taken more than {:?} and {} chunks",
                self.used, self.chunks
            ));
        }
        if !grant.taken.covers(self.grant.taken) || grant.chunks < self.grant.chunks {
            return Err(format!("{grant:?} revokes {:?}", self.grant));
        }
        self.grant = grant;
        Ok(())
    }

    /// Bytes and envelopes in flight.
    pub(super) fn outstanding(&self) -> Amount {
        self.used.minus(self.grant.taken)
    }

    /// Chunks in flight.
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
            "more than {window} chunks in flight"
        );
    }
}

/// The receiver's side. Invariant: the amount received covers the amount taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReceiveCredit {
    received: Amount,
    grant: Grant,
    announced: Option<Grant>,
}

impl ReceiveCredit {
    pub(super) fn new(window_bytes: u64, window_count: u64) -> Self {
        ReceiveCredit {
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

    /// An envelope begins to arrive; returns whether there was credit for it.
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

    /// The amount that arrived and was not taken by roles yet.
    pub(super) fn untaken(&self) -> Amount {
        self.received.minus(self.grant.taken)
    }

    /// The grant to send now, if one is due: at first, after chunks, after a quarter of the window.
    pub(super) fn due(&self) -> Option<Grant> {
        let Some(announced) = self.announced else {
            return Some(self.grant);
        };
        let taken = self.grant.taken.minus(announced.taken);
        let due = self.grant.chunks > announced.chunks
            || taken.bytes > self.grant.window.bytes / 4
            || taken.count > self.grant.window.count / 4;
        due.then_some(self.grant)
    }

    /// The grant to add to a batch that is sent anyway, if it has changed.
    pub(super) fn changed(&self) -> Option<Grant> {
        (self.announced != Some(self.grant)).then_some(self.grant)
    }

    /// The grant has been sent.
    pub(super) fn announce(&mut self) {
        self.announced = Some(self.grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(bytes: u64, count: u64) -> SendCredit {
        let mut send_credit = SendCredit::default();
        send_credit
            .granted(Grant {
                window: Amount { bytes, count },
                ..Grant::default()
            })
            .unwrap();
        send_credit
    }

    #[test]
    fn nothing_may_be_sent_before_the_first_grant() {
        assert!(!SendCredit::default().allows(1));
    }

    #[test]
    fn an_envelope_larger_than_the_window_is_sent_alone() {
        let mut send_credit = granted(100, 10);
        assert!(send_credit.allows(1000));
        send_credit.spend(60);
        assert!(send_credit.allows(40) && !send_credit.allows(41) && !send_credit.allows(1000));
    }

    #[test]
    fn the_count_is_bounded_too() {
        let mut send_credit = granted(100, 2);
        send_credit.spend(0);
        assert!(send_credit.allows(1));
        send_credit.spend(1);
        assert!(!send_credit.allows(1));
    }

    #[test]
    fn an_invalid_grant_is_rejected() {
        let mut send_credit = granted(100, 10);
        send_credit.spend(10);
        let mut grant = Grant::from_fields([100, 10, 10, 1, 0]);
        assert_eq!(send_credit.granted(grant), Ok(()));
        assert_eq!(send_credit.outstanding(), Amount::default());
        grant.taken.bytes = 9;
        assert!(send_credit.granted(grant).is_err());
        grant.taken.bytes = 11;
        assert!(send_credit.granted(grant).is_err());
    }

    #[test]
    fn both_ends_agree_on_what_fits() {
        let mut receive_credit = ReceiveCredit::new(100, 3);
        assert!(receive_credit.receive(1000));
        assert!(!receive_credit.receive(1));
    }

    #[test]
    fn credit_is_sent_at_first_then_after_a_quarter_of_the_window() {
        let mut receive_credit = ReceiveCredit::new(100, 100);
        assert!(receive_credit.due().is_some());
        receive_credit.announce();
        assert!(receive_credit.receive(50));
        receive_credit.take(25, 1);
        assert!(receive_credit.due().is_none() && receive_credit.changed().is_some());
        receive_credit.take(1, 0);
        assert!(receive_credit.due().is_some());
        receive_credit.announce();
        assert!(receive_credit.due().is_none() && receive_credit.changed().is_none());
        receive_credit.receive_chunk();
        assert!(receive_credit.due().is_some());
    }

    #[test]
    #[should_panic(expected = "more was taken than was delivered")]
    fn taking_more_than_received_violates_an_invariant() {
        ReceiveCredit::new(100, 100).take(1, 0);
    }
}
