//! The commands of the transcripts of all clusters.

use crate::cluster::Cluster;
use crate::disk::Crash;
use crate::protocol::{EnvelopeOf, Protocol};
use crate::transcript::{Call, Outcome, Script, Verb, duration};

/// A script on a cluster.
pub trait OnCluster: Script {
    /// The protocol.
    type Protocol: Protocol;

    /// The cluster, once it is created.
    fn cluster(&mut self) -> Option<&mut Cluster<Self::Protocol>>;

    /// A readable form of a message.
    fn show(envelope: &EnvelopeOf<Self::Protocol>) -> String;
}

/// The script's cluster.
///
/// # Errors
/// If it is not created yet.
pub fn cluster_of<S: OnCluster>(
    script: &mut S,
) -> Result<&mut Cluster<S::Protocol>, Box<dyn std::error::Error>> {
    script
        .cluster()
        .ok_or_else(|| "begin with: cluster nodes=3".into())
}

/// A table of verbs: name, arguments, description, and implementation of each.
#[macro_export]
macro_rules! verbs {
    ($($name:literal $usage:literal $meaning:literal $run:expr;)*) => {
        vec![$($crate::transcript::Verb { name: $name, usage: $usage, meaning: $meaning, run: $run },)*]
    };
}

/// The verbs of all clusters: network, links, disks, processes, time.
pub fn cluster_verbs<S: OnCluster>() -> Vec<Verb<S>> {
    let mut all = by_hand();
    all.extend(links());
    all.extend(disks());
    all.extend(processes());
    all
}

fn by_hand<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "wire" "" "list messages in flight between nodes" |script, _| {
            let wire = cluster_of(script)?.wire.iter().map(S::show);
            Ok(wire.collect::<Vec<_>>().join("\n"))
        };
        "deliver" "[n1 n2] [count=1]" "deliver the messages now on the wire (from n1 to n2): one hop" |script, call| {
            let between = call.pair()?;
            let count = call.parsed("count")?.unwrap_or(usize::MAX);
            cluster_of(script)?.deliver_round(between, count);
            done()
        };
        "run" "" "deliver messages until the wire is empty" |script, _| {
            cluster_of(script)?.run();
            done()
        };
        "drop" "[n1 n2]" "drop the messages on the wire (from n1 to n2)" |script, call| {
            let cluster = cluster_of(script)?;
            for place in cluster.places(call.pair()?).into_iter().rev() {
                cluster.wire.remove(place);
            }
            done()
        };
        "duplicate" "[n1 n2]" "duplicate the messages on the wire" |script, call| {
            let cluster = cluster_of(script)?;
            for place in cluster.places(call.pair()?) {
                cluster.wire.push(cluster.wire[place].clone());
            }
            done()
        };
        "reorder" "n1 n2" "move the last message from n1 to n2 before the others" |script, call| {
            let cluster = cluster_of(script)?;
            let places = cluster.places(call.pair()?);
            let (first, last) = (places.first(), places.last());
            let (first, last) = first.zip(last).ok_or("there is nothing to reorder")?;
            cluster.wire[*first..=*last].rotate_right(1);
            done()
        };
        "block" "n1 n2" "hold messages from n1 to n2 on the wire until: unblock n1 n2" |script, call| {
            let pair = call.pair()?.ok_or("between which nodes?")?;
            cluster_of(script)?.blocked.insert(pair);
            done()
        };
        "unblock" "n1 n2" "allow their delivery again" |script, call| {
            let pair = call.pair()?.ok_or("between which nodes?")?;
            cluster_of(script)?.blocked.remove(&pair);
            done()
        };
    }
}

fn links<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "peer-down" "n1 n2" "break n1's link to n2" |script, call| link(script, call, false);
        "peer-up" "n1 n2" "restore n1's link to n2" |script, call| link(script, call, true);
        "cut" "n1 n2 [noticed]" "partition two nodes in both directions; detected immediately or not" |script, call| {
            let (one, other) = call.pair()?.ok_or("between which nodes?")?;
            let noticed = call.word() == Some("noticed");
            cluster_of(script)?.part(one, other, true, noticed);
            done()
        };
        "heal" "[n1 n2]" "heal the partition of two nodes, or all partitions" |script, call| {
            let cluster = cluster_of(script)?;
            match call.pair()? {
                Some((one, other)) => cluster.part(one, other, false, true),
                None => cluster.cut.clear(),
            }
            done()
        };
        "isolate" "n1 [noticed]" "partition a node from all others" |script, call| with_others(script, call, true);
        "rejoin" "n1" "heal its partition from all others" |script, call| with_others(script, call, false);
        "repeat" "100ms" "duplicate messages over connections after this time; repeat off" |script, call| {
            let time = call.word().filter(|word| *word != "off");
            cluster_of(script)?.repeat = time.map(duration).transpose()?;
            done()
        };
    }
}

fn disks<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "hold" "n1" "hold writes of its disk until: persist n1 [COUNT], or release n1" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.node(node).disk.held = true;
            done()
        };
        "persist" "n1 [COUNT]" "make COUNT pending writes durable, or all" |script, call| {
            let node = call.node()?;
            let count = call.word().map_or(Ok(usize::MAX), str::parse)?;
            cluster_of(script)?.persist(node, count);
            done()
        };
        "release" "n1" "complete all pending requests of its disk, and resume it" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.release(node);
            done()
        };
        "full" "n1" "fill its disk until: space n1" |script, call| full(script, call, true);
        "space" "n1" "free space on its disk" |script, call| full(script, call, false);
        "refuse" "n1" "reject the newest pending write of its disk" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.refuse_newest(node);
            done()
        };
        "stall" "n1 [slices=2]" "limit the background writes of its disk; without a number no limit" |script, call| {
            let node = call.node()?;
            cluster_of(script)?.node(node).disk.background = call.parsed("slices")?;
            done()
        };
    }
}

fn processes<S: OnCluster>() -> Vec<Verb<S>> {
    verbs! {
        "crash" "n1 [synced=0] [torn=0] [flushed=0]" "crash a node; this much of its pending writes is durable" |script, call| {
            let node = call.node()?;
            let crash = Crash {
                synced: call.parsed("synced")?.unwrap_or(0),
                torn: call.parsed("torn")?.unwrap_or(0),
                flushed: call.parsed("flushed")?.unwrap_or(0),
            };
            cluster_of(script)?.crash(node, crash);
            done()
        };
        "start" "n1" "start or restart a node from its disk" |script, call| start(script, call);
        "restart" "n1" "same as start" |script, call| start(script, call);
        "advance" "50ms" "advance time" |script, call| {
            let by = call.duration()?;
            cluster_of(script)?.advance(by);
            done()
        };
        "live" "500ms" "advance time while messages are delivered" |script, call| {
            let by = call.duration()?;
            cluster_of(script)?.live(by);
            done()
        };
        "skew" "n1 2s" "skew its wall clock" |script, call| {
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
