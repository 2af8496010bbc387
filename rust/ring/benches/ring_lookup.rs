//! How many routing decisions per second one thread makes: hashes alone, look-ups alone, and both.
//!
//! `cargo bench -p quorate-ring --bench ring_lookup -- [NODES] [VNODES]` (5 and 150 by default).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark reads the clock; roles do not"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use quorate_core::ids::NodeId;
use quorate_ring::{HashKind, Ring, RingMember, RingSettings, Token};

/// The duration of each measurement.
const DURATION: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().filter(|argument| argument != "--bench").skip(1);
    let nodes: u16 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let vnodes: u16 = arguments.next().map_or(Ok(150), |text| text.parse())?;
    let members: Vec<RingMember> = (1..=nodes)
        .map(|number| RingMember::new(NodeId(number)))
        .collect();
    let replicas = nodes.min(3) as u8;

    let started = Instant::now();
    let settings = RingSettings {
        vnodes,
        ..RingSettings::default()
    };
    let ring = Ring::build(&settings, &members)?;
    let built = started.elapsed();
    let table = ring.replicas(replicas)?;
    let indexed = started.elapsed() - built;
    println!(
        "{nodes} nodes, {} tokens, {replicas} replicas: ring built in {built:.2?}, table in {indexed:.2?}",
        ring.tokens().len()
    );

    // Tokens without a pattern: hashes of numbers.
    let tokens: Vec<Token> = (0..1_u64 << 16)
        .map(|number| HashKind::Xxh3.token_of(&number.to_le_bytes()))
        .collect();
    let keys: Vec<String> = (0..1 << 16).map(|number| format!("user-{number:011}")).collect();
    report("look-up alone", &tokens, |token| table.lookup(*token)[0].0.into());
    for hash in HashKind::ALL {
        report(&format!("{hash} of 16 bytes"), &keys, |key| {
            hash.token_of(key.as_bytes()).0
        });
        report(&format!("{hash} and look-up"), &keys, |key| {
            table.lookup(hash.token_of(key.as_bytes()))[0].0.into()
        });
    }
    Ok(())
}

/// Calls `decide` with the inputs in turn and prints the rate.
fn report<T>(what: &str, inputs: &[T], decide: impl Fn(&T) -> u64) {
    let started = Instant::now();
    let mut rounds = 0_u32;
    while started.elapsed() < DURATION {
        let sum = inputs
            .iter()
            .fold(0_u64, |sum, input| sum.wrapping_add(decide(black_box(input))));
        black_box(sum);
        rounds += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let calls = f64::from(rounds) * inputs.len() as f64;
    println!(
        "{what:<22} {:>8.1} million/s  {:>6.1} ns",
        calls / seconds / 1e6,
        seconds / calls * 1e9
    );
}
