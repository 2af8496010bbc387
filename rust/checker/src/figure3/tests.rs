//! Each property against servers that keep it, and against ones that break it and nothing else.

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

/// A log whose first entry is gone.
fn compacted(mut server: Plain) -> Plain {
    server.base += 1;
    server.base_term = server.entries.remove(0).0;
    server
}

/// What looking at these servers, one after the other, comes to.
fn look(servers: &[Plain]) -> Verdict {
    let mut figure3 = Figure3::default();
    servers.iter().try_for_each(|server| figure3.look(server))
}

/// The same, and then all of them closely.
fn look_closely(servers: &[Plain]) -> Verdict {
    let mut figure3 = Figure3::default();
    for server in servers {
        figure3.look(server)?;
    }
    figure3.look_closely(servers)
}

fn breaks(verdict: Verdict, property: &str) {
    let broken = verdict.expect_err(property);
    assert!(broken.starts_with(property), "{broken}");
}

const ABC: [(u64, char); 3] = [(1, 'a'), (1, 'b'), (2, 'c')];

#[test]
fn what_keeps_them_keeps_them() {
    let story = [
        leader(1, 1, &ABC[..2]),
        committed(leader(1, 1, &ABC[..2]), 1),
        server(2, 1, &ABC[..1]),
        committed(leader(2, 2, &[(1, 'a'), (2, 'x')]), 2),
        compacted(committed(leader(2, 2, &[(1, 'a'), (2, 'x'), (2, 'y')]), 3)),
        server(1, 2, &[(1, 'a'), (2, 'x')]),
    ];
    assert_eq!(look(&story), Ok(()));
    assert_eq!(look_closely(&story[4..]), Ok(()));
}

#[test]
fn two_leaders_of_a_term_are_noticed() {
    breaks(look(&[leader(1, 1, &[]), leader(2, 1, &[])]), "election safety");
    let mut few = [None; 4];
    assert_eq!(election_safety(&leader(1, 3, &[]), &mut few), Ok(()));
    breaks(election_safety(&leader(2, 3, &[]), &mut few), "election safety");
}

#[test]
fn a_leader_that_changes_its_log_is_noticed() {
    let shorter = [leader(1, 2, &ABC), leader(1, 2, &ABC[..2])];
    breaks(look(&shorter), "leader append-only");
    breaks(leader_append_only(&shorter[0], &shorter[1]), "leader append-only");
    // Its last entry is the same. Nobody else has what it had, so that log matching does not tell.
    let changed = leader(1, 2, &[(1, 'a'), (2, 'z'), (2, 'c')]);
    let mut append_only = LeaderAppendOnly::default();
    assert_eq!(append_only.look(&leader(1, 2, &ABC)), Ok(()));
    assert_eq!(append_only.look(&changed), Ok(()));
    breaks(append_only.look_closely(&changed), "leader append-only");
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
fn logs_that_differ_before_what_they_have_in_common_are_noticed() {
    let other = server(2, 2, &[(1, 'a'), (1, 'x'), (2, 'c')]);
    let both = [server(1, 2, &ABC), other];
    breaks(log_matching(&both), "log matching");
    assert_eq!(look(&both), Ok(()), "only a close look finds it");
    breaks(look_closely(&both), "log matching");
    let another = [server(1, 2, &ABC), server(2, 2, &[(1, 'a'), (1, 'b'), (2, 'x')])];
    breaks(look(&another), "log matching");
    let behind_another = [server(1, 2, &ABC), server(2, 2, &[(1, 'a'), (2, 'b'), (2, 'c')])];
    breaks(look(&behind_another), "log matching");
}

#[test]
fn two_entries_committed_at_one_index_are_noticed() {
    let both = [
        committed(server(1, 2, &ABC), 3),
        committed(server(2, 3, &[(1, 'a'), (1, 'b'), (3, 'x')]), 3),
    ];
    breaks(look(&both), "state machine safety");
    let mut figure3 = Figure3::default();
    assert_eq!(figure3.look(&both[0]), Ok(()));
    assert_eq!(figure3.commits().last(), 3);
    // What was compared is not compared again, before the server starts anew.
    let changed = committed(server(1, 3, &both[1].entries), 3);
    assert_eq!(figure3.look(&changed), Ok(()));
    figure3.restarted(1);
    breaks(figure3.look(&changed), "state machine safety");
}

#[test]
fn a_leader_without_what_was_committed_before_is_noticed() {
    let first = committed(leader(1, 2, &ABC), 2);
    breaks(
        look(&[first.clone(), leader(2, 3, &ABC[..1])]),
        "leader completeness",
    );
    let later = leader(2, 1, &ABC[..1]);
    assert_eq!(look(&[first.clone(), later]), Ok(()), "of an earlier term");
    // It is committed, in an earlier term, when the leader has been seen already.
    let found_out = [leader(2, 3, &ABC[..1]), first];
    assert_eq!(look(&found_out), Ok(()));
    breaks(look_closely(&found_out), "leader completeness");
}

#[test]
fn a_committed_entry_that_is_replaced_is_noticed() {
    let mut figure3 = Figure3::default();
    figure3.look(&committed(server(1, 1, &[(1, 'a')]), 1)).unwrap();
    let changed = committed(server(1, 2, &[(2, 'b')]), 1);
    figure3.look(&changed).unwrap();
    breaks(figure3.look_closely(&[changed]), "state machine safety");
}

#[test]
fn a_committed_entry_that_comes_late_is_compared() {
    let mut figure3 = Figure3::default();
    figure3
        .look(&committed(server(1, 1, &[(1, 'a'), (1, 'b')]), 2))
        .unwrap();
    figure3.look(&committed(server(2, 1, &[(1, 'a')]), 2)).unwrap();
    let other = committed(server(2, 2, &[(1, 'a'), (2, 'c')]), 2);
    breaks(figure3.look(&other), "state machine safety");
}
