//! Counts batches in a stream of ractor_cluster's frames, with minimal parsing.
//!
//! A frame is a length of eight bytes (big-endian) and a protobuf message whose first byte names its kind: a cast or a
//! call to an actor is field 2 of `NetworkMessage`. The only actor that is ever cast to is the gateway, so those frames
//! are batches; the others are ractor_cluster's own (authentication, pings, lists of actors).

/// The first byte of a frame that is a message to an actor: field 2, length-delimited.
const NODE_MESSAGE: u8 = 2 << 3 | 2;

const LENGTH_BYTES: usize = 8;

/// The meter of one direction of one stream.
#[derive(Debug, Default)]
pub(super) struct FrameMeter {
    /// Bytes of the current frame's length that have been seen.
    length_seen: usize,
    length: u64,
    /// Bytes of the current frame's contents that are still to come; meaningful once its length is known.
    left: u64,
    is_batch: bool,
}

impl FrameMeter {
    /// Feeds the next bytes of the stream, in chunks of any size; returns how many batches end in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut batches = 0;
        while let Some(first) = bytes.first() {
            if self.length_seen < LENGTH_BYTES {
                self.length = self.length << 8 | u64::from(*first);
                self.length_seen += 1;
                bytes = &bytes[1..];
                if self.length_seen == LENGTH_BYTES {
                    self.left = self.length;
                    if self.left == 0 {
                        *self = FrameMeter::default();
                    }
                }
                continue;
            }
            if self.left == self.length {
                self.is_batch = *first == NODE_MESSAGE;
            }
            let step = self.left.min(bytes.len() as u64);
            self.left -= step;
            bytes = &bytes[step as usize..];
            if self.left == 0 {
                batches += u64::from(self.is_batch);
                *self = FrameMeter::default();
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(contents: &[u8]) -> Vec<u8> {
        let mut frame = (contents.len() as u64).to_be_bytes().to_vec();
        frame.extend_from_slice(contents);
        frame
    }

    #[test]
    fn batches_are_counted_in_chunks_of_any_size() {
        let long = [&[NODE_MESSAGE][..], &[0x12; 3000]].concat();
        let frames = [
            frame(&[0x0a, 1, 2, 3]),
            frame(&[NODE_MESSAGE]),
            frame(&[]),
            frame(&[0x1a, 0x12, 0x12]),
            frame(&long),
            frame(&[NODE_MESSAGE, 0]),
        ];
        let stream = frames.concat();
        for size in 1..stream.len() + 1 {
            let mut meter = FrameMeter::default();
            let batches: u64 = stream.chunks(size).map(|cut| meter.feed(cut)).sum();
            assert_eq!(batches, 3, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_batch_counts_when_its_last_byte_arrives() {
        let mut meter = FrameMeter::default();
        let frame = frame(&[NODE_MESSAGE, 1, 2]);
        assert_eq!(meter.feed(&frame[..frame.len() - 1]), 0);
        assert_eq!(meter.feed(&frame[frame.len() - 1..]), 1);
    }

    #[test]
    fn a_huge_length_is_harmless() {
        let mut meter = FrameMeter::default();
        assert_eq!(meter.feed(&[0xff; 100]), 0);
        assert_eq!(meter.feed(&[NODE_MESSAGE; 10_000]), 0);
    }
}
