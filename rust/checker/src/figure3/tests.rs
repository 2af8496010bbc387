//! Each property against servers that satisfy it, and against servers that violate only it.

use super::*;

/// A log of entries, each a term and a letter.
#[derive(Clone, Debug, Default)]
struct Plain {
    node: u8,
    term: u64,
    leads: bool,
    base: u64,
    base_term: u64,
    commit: u64,
    entries: Vec<(u64, char)>,
}

impl Server for Plain {
    type Node = u8;
    type Entry = (u64, char);

    fn node(&self) -> u8 {
        self.node
    }
    fn term(&self) -> u64 {
        self.term
    }
    fn leads(&self) -> bool {
        self.leads
    }
    fn base(&self) -> u64 {
        self.base
    }
    fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }
    fn commit(&self) -> u64 {
        self.commit
    }
    fn entry(&self, index: u64) -> Option<&(u64, char)> {
        self.entries.get(index.checked_sub(self.base + 1)? as usize)
    }
    fn term_at(&self, index: u64) -> Option<u64> {
        match index == self.base {
            true => Some(self.base_term),
            false => self.entry(index).map(|(term, _)| *term),
        }
    }
}

fn server(node: u8, term: u64, entries: &[(u64, char)]) -> Plain {
    Plain {
        node,
        term,
        entries: entries.to_vec(),
        ..Plain::default()
    }
}

fn leader(node: u8, term: u64, entries: &[(u64, char)]) -> Plain {
    Plain {
        leads: true,
        ..server(node, term, entries)
    }
}

fn committed(mut server: Plain, commit: u64) -> Plain {
    server.commit = commit;
    server
}

/// A log whose first entry is compacted.
fn compacted(mut server: Plain) -> Plain {
    server.base += 1;
    server.base_term = server.entries.remove(0).0;
    server
}

/// The result of checking these servers one after the other.
fn check(servers: &[Plain]) -> Verdict {
    let mut figure3 = Figure3::default();
    servers.iter().try_for_each(|server| figure3.check(server))
}

/// The same, followed by a thorough check of all.
fn check_thoroughly(servers: &[Plain]) -> Verdict {
    let mut figure3 = Figure3::default();
    for server in servers {
        figure3.check(server)?;
    }
    figure3.check_thoroughly(servers)
}

fn breaks(verdict: Verdict, property: &str) {
    let broken = verdict.expect_err(property);
    assert!(broken.starts_with(property), "{broken}");
}

const ABC: [(u64, char); 3] = [(1, 'a'), (1, 'b'), (2, 'c')];

#[test]
fn valid_histories_satisfy_all_properties() {
    let story = [
        leader(1, 1, &ABC[..2]),
        committed(leader(1, 1, &ABC[..2]), 1),
        server(2, 1, &ABC[..1]),
        committed(leader(2, 2, &[(1, 'a'), (2, 'x')]), 2),
        compacted(committed(leader(2, 2, &[(1, 'a'), (2, 'x'), (2, 'y')]), 3)),
        server(1, 2, &[(1, 'a'), (2, 'x')]),
    ];
    assert_eq!(check(&story), Ok(()));
    assert_eq!(check_thoroughly(&story[4..]), Ok(()));
}

#[test]
fn two_leaders_of_a_term_are_detected() {
    breaks(check(&[leader(1, 1, &[]), leader(2, 1, &[])]), "election safety");
    let mut few = [None; 4];
    assert_eq!(election_safety(&leader(1, 3, &[]), &mut few), Ok(()));
    breaks(election_safety(&leader(2, 3, &[]), &mut few), "election safety");
}

#[test]
fn a_leader_that_changes_its_log_is_detected() {
    let shorter = [leader(1, 2, &ABC), leader(1, 2, &ABC[..2])];
    breaks(check(&shorter), "leader append-only");
    breaks(leader_append_only(&shorter[0], &shorter[1]), "leader append-only");
    // Its last entry is the same. No other server has its former entries, so log matching does not detect it.
    let changed = leader(1, 2, &[(1, 'a'), (2, 'z'), (2, 'c')]);
    let mut append_only = LeaderAppendOnly::default();
    assert_eq!(append_only.check(&leader(1, 2, &ABC)), Ok(()));
    assert_eq!(append_only.check(&changed), Ok(()));
    breaks(append_only.check_thoroughly(&changed), "leader append-only");
    breaks(
        leader_append_only(&leader(1, 2, &ABC), &changed),
        "leader append-only",
    );
    let longer = leader(1, 2, &[&ABC[..], &[(2, 'd')]].concat());
    for after in [longer.clone(), compacted(longer), leader(1, 3, &ABC[..1])] {
        assert_eq!(leader_append_only(&leader(1, 2, &ABC), &after), Ok(()));
    }
}

#[test]
fn logs_that_differ_before_a_shared_entry_are_detected() {
    let other = server(2, 2, &[(1, 'a'), (1, 'x'), (2, 'c')]);
    let both = [server(1, 2, &ABC), other];
    breaks(log_matching(&both), "log matching");
    assert_eq!(check(&both), Ok(()), "only the thorough check detects it");
    breaks(check_thoroughly(&both), "log matching");
    let another = [server(1, 2, &ABC), server(2, 2, &[(1, 'a'), (1, 'b'), (2, 'x')])];
    breaks(check(&another), "log matching");
    let behind_another = [server(1, 2, &ABC), server(2, 2, &[(1, 'a'), (2, 'b'), (2, 'c')])];
    breaks(check(&behind_another), "log matching");
}

#[test]
fn two_entries_committed_at_one_index_are_detected() {
    let both = [
        committed(server(1, 2, &ABC), 3),
        committed(server(2, 3, &[(1, 'a'), (1, 'b'), (3, 'x')]), 3),
    ];
    breaks(check(&both), "state machine safety");
    let mut figure3 = Figure3::default();
    assert_eq!(figure3.check(&both[0]), Ok(()));
    assert_eq!(figure3.commits().last(), 3);
    // Compared entries are not compared again until the server restarts.
    let changed = committed(server(1, 3, &both[1].entries), 3);
    assert_eq!(figure3.check(&changed), Ok(()));
    figure3.restarted(1);
    breaks(figure3.check(&changed), "state machine safety");
}

#[test]
fn a_leader_without_a_committed_entry_is_detected() {
    let first = committed(leader(1, 2, &ABC), 2);
    breaks(
        check(&[first.clone(), leader(2, 3, &ABC[..1])]),
        "leader completeness",
    );
    let later = leader(2, 1, &ABC[..1]);
    assert_eq!(check(&[first.clone(), later]), Ok(()), "of an earlier term");
    // It is committed in an earlier term, after the leader was checked.
    let found_out = [leader(2, 3, &ABC[..1]), first];
    assert_eq!(check(&found_out), Ok(()));
    breaks(check_thoroughly(&found_out), "leader completeness");
}

#[test]
fn a_replaced_committed_entry_is_detected() {
    let mut figure3 = Figure3::default();
    figure3.check(&committed(server(1, 1, &[(1, 'a')]), 1)).unwrap();
    let changed = committed(server(1, 2, &[(2, 'b')]), 1);
    figure3.check(&changed).unwrap();
    breaks(figure3.check_thoroughly(&[changed]), "state machine safety");
}

#[test]
fn a_late_committed_entry_is_compared() {
    let mut figure3 = Figure3::default();
    figure3
        .check(&committed(server(1, 1, &[(1, 'a'), (1, 'b')]), 2))
        .unwrap();
    figure3.check(&committed(server(2, 1, &[(1, 'a')]), 2)).unwrap();
    let other = committed(server(2, 2, &[(1, 'a'), (2, 'c')]), 2);
    breaks(figure3.check(&other), "state machine safety");
}
