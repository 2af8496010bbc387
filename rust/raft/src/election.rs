//! Elections: who can lead (section 5.2), who can be voted for (5.4.1), and how disruptive servers are
//! contained (thesis, 9.6 and 4.2.3).
//!
//! ```text
//!             silence                a majority would            a majority did
//!  Follower ───────────▶ pre-vote ──────────────────▶ candidate ────────────────▶ Leader
//!      ▲                    │  (no new term yet)      (term + 1, own vote)           │
//!      └────────────────────┴───────────── a leader, a later term ───────────────────┘
//! ```
//! * **Pre-vote.** A server that times out first asks whether it would be elected. A server that was
//!   partitioned and reconnects learns that it would not, and disturbs no leader.
//! * **Stickiness.** A server that has heard from a leader within the minimum election timeout does not
//!   answer vote requests, nor adopt their term.
//! * **The link hint.** The links of a killed leader break at once, long before the timeouts. A voter whose
//!   *own* link to the leader is down is no longer sticky, and campaigns after a short random pause; messages
//!   that the leader sent earlier do not stop it. This makes failover fast and cannot make it unsafe: it
//!   changes when votes are requested and answered, never which answers count.
//! * A vote is durable before it is sent; the candidate's own, before it counts.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::bugs::Bug;
use quorate_core::contract::Rng;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use rand_core::Rng as _;

use crate::action::Notice;
use crate::entry::EntryKind;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::message::Body;
use crate::quorum::Ballot;
use crate::server::{Raft, State, Turn};
use crate::settings::Timing;
use crate::types::{HardState, LogPosition, Term};
use crate::validation::REPORT_EVERY;

/// A server that runs an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    /// Whether this is a pre-vote: the term has not been incremented.
    pub(super) pre: bool,
    /// The answers so far.
    pub(super) votes: BTreeMap<NodeId, bool>,
    /// When it starts over.
    pub(super) deadline: Instant,
}

/// A random time below `bound`.
fn below(bound: Duration, rng: &mut Rng) -> Duration {
    let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.next_u64() % micros.max(1))
}

/// A random election timeout.
pub(super) fn election_timeout(timing: Timing, rng: &mut Rng) -> Duration {
    timing.election_min + below(timing.election_max.saturating_sub(timing.election_min), rng)
}

impl Raft {
    /// Whether it takes no part in elections because it has a leader.
    pub(super) fn sticks_to_leader(&self, candidate: NodeId, now: Instant) -> bool {
        match &self.state {
            // A leader that had lost its quorum would have stepped down.
            State::Leader(_) => true,
            State::Candidate(_) => false,
            State::Follower(Follower {
                leader, last_contact, ..
            }) => {
                let recent = last_contact
                    .is_some_and(|contact| now.since(contact) < self.setup.settings.timing.election_min);
                // A leader that requests votes no longer leads.
                let lost = |leader: NodeId| leader == candidate || self.links_down.contains(&leader);
                recent && leader.is_some_and(|leader| !lost(leader))
            }
        }
    }

    /// Whether a leader's message was in flight when the link to it broke, and this server has already
    /// started a pre-vote: that message does not stop the pre-vote.
    pub(super) fn is_too_late(&self, leader: NodeId, term: Term) -> bool {
        let pre_voting = matches!(&self.state, State::Candidate(candidate) if candidate.pre);
        pre_voting && term == self.hard.term && self.links_down.contains(&leader)
    }

    /// A follower's link to a peer went down or came up.
    pub(super) fn leader_link(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        let stagger = self.setup.settings.timing.stagger;
        if let State::Follower(follower) = &mut self.state
            && follower.leader == Some(node)
        {
            let now = turn.now.instant;
            if up {
                follower.deadline = now + follower.timeout;
            } else {
                follower.deadline = follower.deadline.min(now + below(stagger, turn.rng));
            }
        }
    }

    /// Starts an election: this server knows of no leader.
    pub(super) fn campaign(&mut self, turn: &mut Turn<'_>) {
        self.fail_forwarded(None, turn);
        if !self.log.configuration().is_voter(self.setup.me) {
            self.become_follower(self.hard.term, None, turn);
            self.wait_until(turn.now.instant + self.setup.settings.timing.election_max);
        } else if let Some(term) = self.hard.term.next() {
            match self.setup.bugs.has(Bug::NoPreVote) {
                true => self.request_votes(term, turn),
                false => self.request_pre_votes(turn),
            }
        } else {
            self.terms_exhausted(turn);
        }
    }

    /// No later term exists. The server still follows a leader of this last term.
    fn terms_exhausted(&mut self, turn: &mut Turn<'_>) {
        let term = self.hard.term;
        turn.notice(Notice::TermsExhausted { term });
        self.become_follower(term, None, turn);
        self.wait_until(turn.now.instant + REPORT_EVERY);
    }

    fn request_pre_votes(&mut self, turn: &mut Turn<'_>) {
        self.become_candidate(true, turn);
        self.send_to_voters(
            &Body::PreVote {
                last: self.log.last(),
            },
            turn,
        );
        // A pre-vote is not a promise: it need not be durable.
        self.on_ballot(self.setup.me, true, true, turn);
    }

    fn request_votes(&mut self, term: Term, turn: &mut Turn<'_>) {
        self.hard = HardState {
            term,
            vote: Some(self.setup.me),
        };
        self.become_candidate(false, turn);
        self.send_to_voters(
            &Body::Vote {
                last: self.log.last(),
            },
            turn,
        );
        self.count_own_vote(turn);
    }

    fn become_candidate(&mut self, pre: bool, turn: &mut Turn<'_>) {
        let timeout = election_timeout(self.setup.settings.timing, turn.rng);
        self.leaderless.get_or_insert(turn.now.instant);
        self.state = State::Candidate(Candidate {
            pre,
            votes: BTreeMap::new(),
            deadline: turn.now.instant + timeout,
        });
        turn.notice(Notice::Campaigning {
            term: self.hard.term,
            pre,
        });
    }

    fn send_to_voters(&mut self, request: &Body, turn: &mut Turn<'_>) {
        let me = self.setup.me;
        let others = self.log.configuration().all_voters().filter(|voter| *voter != me);
        for voter in others.collect::<Vec<NodeId>>() {
            self.send(voter, request.clone(), turn);
        }
    }

    /// Counts its own vote once that is durable.
    pub(super) fn count_own_vote(&mut self, turn: &mut Turn<'_>) {
        let open = matches!(&self.state, State::Candidate(candidate) if !candidate.pre);
        if open && (self.stable.has(self.hard) || self.setup.bugs.has(Bug::VoteNotDurable)) {
            self.on_ballot(self.setup.me, false, true, turn);
        }
    }

    // ---- voters ----

    pub(super) fn on_pre_vote(&mut self, from: NodeId, last: LogPosition, turn: &mut Turn<'_>) {
        let granted = last >= self.log.last();
        self.send(from, Body::PreVoteAnswer { granted }, turn);
    }

    /// Votes once per term, first come, first served, and only for a log that is at least as up to date.
    pub(super) fn on_vote(&mut self, from: NodeId, last: LogPosition, turn: &mut Turn<'_>) {
        let free = self.hard.vote.is_none_or(|voted| voted == from);
        let granted = free && last >= self.log.last();
        if granted {
            self.hard.vote = Some(from);
            self.become_follower(self.hard.term, None, turn);
            // A server that has just voted gives its candidate time to win.
            let timeout = election_timeout(self.setup.settings.timing, turn.rng);
            self.wait_until(turn.now.instant + timeout);
        }
        self.send(from, Body::VoteAnswer { granted }, turn);
    }

    // ---- candidates ----

    /// A voter has answered.
    pub(super) fn on_ballot(&mut self, from: NodeId, pre: bool, granted: bool, turn: &mut Turn<'_>) {
        let State::Candidate(candidate) = &mut self.state else {
            return;
        };
        if candidate.pre != pre {
            return;
        }
        candidate.votes.insert(from, granted);
        let votes = &candidate.votes;
        // A voter whose link is down will not answer: count it as a refusal, so that a split vote is detected
        // early.
        let unreachable = |voter: &NodeId| self.links_down.contains(voter).then_some(false);
        let vote = |voter: NodeId| votes.get(&voter).copied().or_else(|| unreachable(&voter));
        match self.log.configuration().ballot(vote) {
            Ballot::Open => {}
            Ballot::Won if pre => match self.hard.term.next() {
                Some(term) => self.request_votes(term, turn),
                None => self.terms_exhausted(turn),
            },
            Ballot::Won => self.become_leader(turn),
            Ballot::Lost if pre => self.become_follower(self.hard.term, None, turn),
            Ballot::Lost => {
                // A rival took votes. If it does not win soon, the next attempt need not wait for a whole
                // timeout.
                let stagger = self.setup.settings.timing.stagger;
                let soon = turn.now.instant + stagger + below(2 * stagger, turn.rng);
                self.become_follower(self.hard.term, None, turn);
                self.wait_until(soon);
            }
        }
    }

    /// A follower starts the next election at `deadline`, unless a leader appears first.
    fn wait_until(&mut self, deadline: Instant) {
        if let State::Follower(follower) = &mut self.state {
            follower.deadline = deadline;
        }
    }

    // ---- state transitions ----

    /// A leader has sent a message in `term`, which is this server's or a later one.
    pub(super) fn follow(&mut self, term: Term, leader: NodeId, turn: &mut Turn<'_>) {
        assert!(
            !(self.is_leader() && term == self.hard.term),
            "{leader} and {} both lead in {term}",
            self.setup.me
        );
        if term > self.hard.term || self.leader() != Some(leader) {
            self.become_follower(term, Some(leader), turn);
        }
        self.leaderless = None;
        let linked = !self.links_down.contains(&leader);
        if let State::Follower(follower) = &mut self.state {
            follower.leader_contact(turn.now.instant, linked);
        }
    }

    /// Follows `leader`, or none, in `term`. Only a leader's message (or a granted vote) extends the election
    /// timeout.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        assert!(term >= self.hard.term, "terms never decrease");
        let before = (self.hard.term, self.leader());
        if term > self.hard.term {
            self.hard = HardState { term, vote: None };
        }
        let mut follower = Follower::new(leader, self.setup.settings.timing, turn);
        if let State::Follower(Follower { deadline, .. }) | State::Candidate(Candidate { deadline, .. }) =
            &self.state
        {
            follower.deadline = *deadline;
        }
        let old = std::mem::replace(&mut self.state, State::Follower(follower));
        if let State::Leader(old) = old {
            old.fail_reads(leader, turn);
        }
        self.fail_forwarded(leader, turn);
        self.staleness.reset_probe();
        if before != (term, leader) {
            turn.notice(Notice::Following { term, leader });
        }
    }

    fn become_leader(&mut self, turn: &mut Turn<'_>) {
        assert!(
            self.stable.has(self.hard) || self.setup.bugs.has(Bug::VoteNotDurable),
            "a leader's own vote is durable"
        );
        let me = self.setup.me;
        let others = self.log.configuration().members().filter(|node| *node != me);
        let leader = Leader::new(
            others,
            self.log.last().index,
            &self.setup.settings,
            &self.links_down,
            turn.now.instant,
        );
        self.state = State::Leader(Box::new(leader));
        self.incoming = None;
        let since = self.leaderless.take().unwrap_or(turn.now.instant);
        self.activity.elections_won += 1;
        self.activity.election_micros = turn.now.instant.0.saturating_sub(since.0);
        turn.notice(Notice::Leading { term: self.hard.term });
        // Only entries of its own term are committed by counting: it appends one, which commits all earlier
        // entries.
        self.append_own(EntryKind::Empty);
    }
}
