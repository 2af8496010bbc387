//! The arithmetic of majorities against its definition, for all small cases.

use quorate_core::ids::NodeId;

use super::*;
use crate::configuration::Configuration;

/// Every list of `length` values below `values`.
fn every(length: usize, values: u64) -> Vec<Vec<u64>> {
    (0..length).fold(vec![Vec::new()], |lists, _| {
        let longer = |list: &Vec<u64>| {
            (0..values)
                .map(|value| list.iter().copied().chain([value]).collect())
                .collect::<Vec<_>>()
        };
        lists.iter().flat_map(longer).collect()
    })
}

#[test]
fn a_majority_is_more_than_half_and_the_least_such_number() {
    for voters in 1..100 {
        assert!(majority(voters) * 2 > voters && (majority(voters) - 1) * 2 <= voters);
    }
}

#[test]
fn agreed_is_the_highest_value_that_a_majority_has_reached() {
    for voters in 0..=5 {
        for reached in every(voters, 4) {
            let by_definition = (0..4u64)
                .filter(|value| reached.iter().filter(|other| *other >= value).count() * 2 > voters)
                .max();
            assert_eq!(agreed(reached.iter().copied()), by_definition, "{reached:?}");
        }
    }
}

#[test]
fn a_ballot_is_decided_exactly_when_the_missing_votes_cannot_change_it() {
    let vote = |value: &u64| [None, Some(false), Some(true)][*value as usize];
    let granted = |votes: &[u64]| votes.iter().filter(|value| **value == 2).count() * 2 > votes.len();
    for voters in 1..=5 {
        for votes in every(voters, 3) {
            // All possible answers of the remaining voters.
            let missing: Vec<usize> = (0..voters).filter(|place| votes[*place] == 0).collect();
            let outcomes: Vec<bool> = every(missing.len(), 2)
                .iter()
                .map(|answers| {
                    let mut all = votes.clone();
                    missing
                        .iter()
                        .zip(answers)
                        .for_each(|(place, answer)| all[*place] = answer + 1);
                    granted(&all)
                })
                .collect();
            let expected = match (outcomes.contains(&true), outcomes.contains(&false)) {
                (true, false) => Ballot::Won,
                (false, _) => Ballot::Lost,
                (true, true) => Ballot::Open,
            };
            assert_eq!(ballot(votes.iter().map(vote)), expected, "{votes:?}");
        }
    }
    assert_eq!(ballot(std::iter::empty()), Ballot::Won);
}

/// Every subset of three or four nodes.
fn subsets(nodes: u16) -> Vec<Vec<NodeId>> {
    let of = |bits: u16| {
        (0..nodes)
            .filter(|node| bits >> node & 1 == 1)
            .map(|node| NodeId(node + 1))
            .collect()
    };
    (0..1 << nodes).map(of).collect()
}

#[test]
fn a_joint_configuration_takes_a_majority_of_each_half() {
    for voters in subsets(4) {
        for outgoing in subsets(4) {
            let configuration = Configuration {
                voters: voters.iter().copied().collect(),
                outgoing: outgoing.iter().copied().collect(),
                learners: [NodeId(9)].into(),
            };
            for yes in subsets(4) {
                let consents = |half: &[NodeId]| {
                    half.is_empty() || half.iter().filter(|node| yes.contains(node)).count() * 2 > half.len()
                };
                let expected = !voters.is_empty() && consents(&voters) && consents(&outgoing);
                let ballot = configuration.ballot(|node| Some(yes.contains(&node)));
                assert_eq!(
                    ballot == Ballot::Won,
                    expected,
                    "{configuration}, granted by {yes:?}"
                );
                assert_ne!(ballot, Ballot::Open, "all have answered");
                let reached = configuration.agreed(|node| u64::from(yes.contains(&node)));
                assert_eq!(
                    reached == Some(1),
                    expected,
                    "{configuration}, reached by {yes:?}"
                );
            }
        }
    }
}

#[test]
fn two_quorums_of_a_configuration_or_of_its_change_share_a_voter() {
    for voters in subsets(3) {
        for outgoing in subsets(3) {
            let joint = Configuration {
                voters: voters.iter().copied().collect(),
                outgoing: outgoing.iter().copied().collect(),
                ..Configuration::default()
            };
            let wins = |who: &[NodeId]| joint.ballot(|node| Some(who.contains(&node))) == Ballot::Won;
            let winners: Vec<_> = subsets(3).into_iter().filter(|who| wins(who)).collect();
            for one in &winners {
                for other in &winners {
                    assert!(
                        one.iter().any(|node| other.contains(node)),
                        "{joint}: {one:?} and {other:?}"
                    );
                }
            }
        }
    }
}
