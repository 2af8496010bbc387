//! The properties of Figure 3, one function each, for every state and every step.

use super::server::View;
use super::world::History;

/// Why a state must not be.
pub(super) type Verdict = Result<(), String>;

/// At most one server ever leads in a term.
pub(super) fn election_safety(servers: &[&View; 3], history: &mut History) -> Verdict {
    for leader in servers.iter().filter(|server| server.leads) {
        let known = &mut history.leaders[leader.term.0 as usize];
        let first = *known.get_or_insert(leader.node);
        if first != leader.node {
            return Err(format!(
                "election safety: {first} and {} lead in {}",
                leader.node, leader.term
            ));
        }
    }
    Ok(())
}

/// While a server leads, it only adds to its log.
pub(super) fn leader_append_only(before: &View, after: &View) -> Verdict {
    let still = before.leads && after.leads && before.term == after.term;
    if still && !after.log.starts_with(&before.log) {
        return Err(format!(
            "leader append-only: {} has changed its log in {}",
            after.node, after.term
        ));
    }
    Ok(())
}

/// Logs that have an entry of the same index and term are the same up to there.
pub(super) fn log_matching(servers: &[&View; 3]) -> Verdict {
    for (place, one) in servers.iter().enumerate() {
        for other in &servers[place + 1..] {
            let same = one
                .log
                .iter()
                .zip(&other.log)
                .rposition(|(one, other)| one.position() == other.position());
            let end = same.map_or(0, |place| place + 1);
            if one.log[..end] != other.log[..end] {
                let position = one.log[end - 1].position();
                return Err(format!(
                    "log matching: {} and {} differ before {position}",
                    one.node, other.node
                ));
            }
        }
    }
    Ok(())
}

/// No two servers ever take different entries for committed at the same place.
pub(super) fn state_machine_safety(servers: &[&View; 3], history: &mut History) -> Verdict {
    for server in servers {
        for (place, entry) in server.log[..server.commit].iter().enumerate() {
            let found = entry.position();
            let (known, first) = history.committed[place].get_or_insert((found, server.term));
            *first = server.term.min(*first);
            if *known != found {
                return Err(format!(
                    "state machine safety: {} has committed {found}, another {known}",
                    server.node
                ));
            }
        }
    }
    Ok(())
}

/// What was committed in a term is in the log of every leader of a later one.
pub(super) fn leader_completeness(servers: &[&View; 3], history: &History) -> Verdict {
    for leader in servers.iter().filter(|server| server.leads) {
        for (place, committed) in history.committed.iter().enumerate() {
            let Some((position, committed_in)) = committed else {
                break;
            };
            let has = leader
                .log
                .get(place)
                .is_some_and(|entry| entry.position() == *position);
            if leader.term > *committed_in && !has {
                return Err(format!(
                    "leader completeness: {}, leader of {}, lacks {position}, committed in {committed_in}",
                    leader.node, leader.term
                ));
            }
        }
    }
    Ok(())
}
