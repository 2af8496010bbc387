//! The timeline: the latest state changes of this node, numbered from 1 within its boot.

use std::collections::VecDeque;
use std::sync::Mutex;

use quorate_core::ids::NodeId;
use quorate_core::time::WallTime;
use quorate_protocol::telemetry::{Occurrence, TimelineEvent};

/// A bounded timeline: when it is full, the oldest event is removed.
#[derive(Debug)]
pub struct Timeline {
    capacity: usize,
    events: Mutex<(u64, VecDeque<Occurrence>)>,
}

impl Timeline {
    /// A timeline of at most `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Timeline {
            capacity,
            events: Mutex::default(),
        }
    }

    /// Adds an event with the next number.
    pub fn push(&self, at: WallTime, node: NodeId, generation: u64, event: TimelineEvent) {
        let mut guard = self.events.lock().expect("timeline");
        let (last, events) = &mut *guard;
        *last += 1;
        if events.len() == self.capacity {
            events.pop_front();
        }
        events.push_back(Occurrence {
            sequence: *last,
            at,
            node,
            generation,
            event,
        });
    }

    /// The events with a greater number, in order.
    pub fn after(&self, sequence: u64) -> Vec<Occurrence> {
        let guard = self.events.lock().expect("timeline");
        let events = &guard.1;
        let from = events.partition_point(|occurrence| occurrence.sequence <= sequence);
        events.range(from..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_removed_and_numbers_continue() {
        let timeline = Timeline::new(3);
        for generation in 1..=5 {
            timeline.push(WallTime(0), NodeId(1), generation, TimelineEvent::NodeStarted);
        }
        let numbers = |after| {
            timeline
                .after(after)
                .iter()
                .map(|event| event.sequence)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(0), [3, 4, 5]);
        assert_eq!(numbers(4), [5]);
        assert_eq!(numbers(5), [0u64; 0]);
    }
}
