//! The commands that transcripts of every cluster understand.

use crate::cluster::Cluster;
use crate::disk::Crash;
use crate::protocol::{EnvelopeOf, Protocol};
use crate::transcript::{Call, Outcome, Script, Verb, duration};

/// A script that plays with a cluster.
pub trait OnCluster: Script {
    /// Of which protocol.
    type Protocol: Protocol;

    /// The cluster, once there is one.
    fn cluster(&mut self) -> Option<&mut Cluster<Self::Protocol>>;

    /// A message as people see it.
    fn show(envelope: &EnvelopeOf<Self::Protocol>) -> String;
}

/// The script's cluster.
///
/// # Errors
/// There is none.
pub fn cluster_of<S: OnCluster>(
    script: &mut S,
) -> Result<&mut Cluster<S::Protocol>, Box<dyn std::error::Error>> {
    script
        .cluster()
        .ok_or_else(|| "begin with: cluster nodes=3".into())
}

/// A table of verbs: for each its name, its arguments, what it does, and the function that does it.
#[macro_export]
macro_rules! verbs {
    ($($name:literal $usage:literal $meaning:literal $run:expr;)*) => {
        vec![$($crate::transcript::Verb { name: $name, usage: $usage, meaning: $meaning, run: $run },)*]
    };
}

/// What all clusters understand: of the network, of links, of disks, of processes, of time.
pub fn cluster_verbs<S: OnCluster>() -> Vec<Verb<S>> {
    let mut all = by_hand();
    all.extend(links());
    all.extend(disks());
    all.extend(processes());
    all
}

fn by_hand<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "wire" "" "what is on its way between nodes" |script, _| {
            let wire = cluster_of(script)?.wire.iter().map(S::show);
            Ok(wire.collect::<Vec<_>>().join("\n"))
        };
        "deliver" "[n1 n2] [count=1]" "deliver what is on the wire now (from n1 to n2): one hop" |script, call| {
            let between = call.pair()?;
            let count = call.parsed("count")?.unwrap_or(usize::MAX);
            cluster_of(script)?.deliver_round(between, count);
            done()
        };
        "run" "" "deliver until nothing moves any more" |script, _| {
            cluster_of(script)?.run();
            done()
        };
        "drop" "[n1 n2]" "lose what is on the wire (from n1 to n2)" |script, call| {
            let cluster = cluster_of(script)?;
            for place in cluster.places(call.pair()?).into_iter().rev() {
                cluster.wire.remove(place);
            }
            done()
        };
        "duplicate" "[n1 n2]" "put a second copy of it on the wire" |script, call| {
            let cluster = cluster_of(script)?;
            for place in cluster.places(call.pair()?) {
                cluster.wire.push(cluster.wire[place].clone());
            }
            done()
        };
        "reorder" "n1 n2" "the last message from n1 to n2 overtakes the others" |script, call| {
            let cluster = cluster_of(script)?;
            let places = cluster.places(call.pair()?);
            let (first, last) = (places.first(), places.last());
            let (first, last) = first.zip(last).ok_or("there is nothing to reorder")?;
            cluster.wire[*first..=*last].rotate_right(1);
            done()
        };
        "block" "n1 n2" "what n1 sends to n2 stays on the wire until: unblock n1 n2" |script, call| {
            let pair = call.pair()?.ok_or("between which nodes?")?;
            cluster_of(script)?.blocked.insert(pair);
            done()
        };
        "unblock" "n1 n2" "it may be delivered again" |script, call| {
            let pair = call.pair()?.ok_or("between which nodes?")?;
            cluster_of(script)?.blocked.remove(&pair);
            done()
        };
    }
}

fn links<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "peer-down" "n1 n2" "n1's link to n2 breaks" |script, call| link(script, call, false);
        "peer-up" "n1 n2" "n1's link to n2 comes back" |script, call| link(script, call, true);
        "cut" "n1 n2 [noticed]" "nothing passes between them, in either direction; both notice at once, or do not" |script, call| {
            let (one, other) = call.pair()?.ok_or("between which nodes?")?;
            let noticed = call.word() == Some("noticed");
            cluster_of(script)?.part(one, other, true, noticed);
            done()
        };
        "heal" "[n1 n2]" "everything passes between them again; between all" |script, call| {
            let cluster = cluster_of(script)?;
            match call.pair()? {
                Some((one, other)) => cluster.part(one, other, false, true),
                None => cluster.cut.clear(),
            }
            done()
        };
        "isolate" "n1 [noticed]" "cut it off from all others" |script, call| with_others(script, call, true);
        "rejoin" "n1" "heal it with all others" |script, call| with_others(script, call, false);
        "repeat" "100ms" "what goes over connections comes a second time, so much later; repeat off" |script, call| {
            let time = call.word().filter(|word| *word != "off");
            cluster_of(script)?.repeat = time.map(duration).transpose()?;
            done()
        };
    }
}

fn disks<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "hold" "n1" "its disk makes nothing durable until: persist n1 [COUNT], or release n1" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.node(node).disk.held = true;
            done()
        };
        "persist" "n1 [COUNT]" "so many of the writes in flight become durable, or all" |script, call| {
            let node = call.node()?;
            let count = call.word().map_or(Ok(usize::MAX), str::parse)?;
            cluster_of(script)?.persist(node, count);
            done()
        };
        "release" "n1" "its disk does all that it was asked for, and goes on" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.release(node);
            done()
        };
        "full" "n1" "its disk has no space until: space n1" |script, call| full(script, call, true);
        "space" "n1" "its disk has space again" |script, call| full(script, call, false);
        "refuse" "n1" "its disk has no space for the newest of the writes that it holds" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.refuse_newest(node);
            done()
        };
        "stall" "n1 [slices=2]" "its disk does only so many things in the background; without a number all" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.node(node).disk.background = call.parsed("slices")?;
            done()
        };
    }
}

fn processes<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "crash" "n1 [synced=0] [torn=0] [flushed=0]" "it ends at once; so much of what it asked its disk for is there" |script, call| {
            let node = call.node()?;
            let crash = Crash {
                synced: call.parsed("synced")?.unwrap_or(0),
                torn: call.parsed("torn")?.unwrap_or(0),
                flushed: call.parsed("flushed")?.unwrap_or(0),
            };
            cluster_of(script)?.crash(node, crash);
            done()
        };
        "start" "n1" "it starts (again) with what its disk has" |script, call| start(script, call);
        "restart" "n1" "the same" |script, call| start(script, call);
        "advance" "50ms" "let time pass" |script, call| {
            let by = call.duration()?;
            cluster_of(script)?.advance(by);
            done()
        };
        "live" "500ms" "let time pass while messages arrive" |script, call| {
            let by = call.duration()?;
            cluster_of(script)?.live(by);
            done()
        };
        "skew" "n1 2s" "set its wall clock ahead" |script, call| {
            let node = call.node()?;
            let ahead = call.duration()?;
            cluster_of(script)?.node(node).skew_micros = ahead.as_micros().try_into()?;
            done()
        };
    }
}

fn done() -> Outcome {
    Ok(String::new())
}

fn link<S: OnCluster>(script: &mut S, call: &mut Call<'_>, up: bool) -> Outcome {
    let (from, to) = call.pair()?.ok_or("between which nodes?")?;
    cluster_of(script)?.link(from, to, up);
    done()
}

fn with_others<S: OnCluster>(script: &mut S, call: &mut Call<'_>, apart: bool) -> Outcome {
    let node = call.node()?;
    let noticed = call.word() == Some("noticed") || !apart;
    let cluster = cluster_of(script)?;
    for other in cluster.names().into_iter().filter(|other| *other != node) {
        cluster.part(node, other, apart, noticed);
    }
    done()
}

fn full<S: OnCluster>(script: &mut S, call: &mut Call<'_>, full: bool) -> Outcome {
    let node = call.node()?;
    cluster_of(script)?.node(node).disk.full = full;
    done()
}

fn start<S: OnCluster>(script: &mut S, call: &mut Call<'_>) -> Outcome {
    let node = call.node()?;
    cluster_of(script)?.start(node);
    done()
}
