//! Buffers that are used again.
//!
//! A fresh buffer costs a page fault every 4 KiB: reads of local files into fresh buffers gave 0.3 GB/s on a virtual machine
//! where reads into used ones gave 3.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers below this are not worth keeping.
const SMALLEST: usize = 16 * 1024;
/// Bytes of idle buffers that a store keeps. No reader's budget counts them.
const MOST_IDLE: usize = 16 << 20;
/// Sizes of buffers for each doubling: a buffer is at most so many parts of it too large.
const STEPS: usize = 16;

/// Idle buffers of one store.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    by_size: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

/// A buffer that goes back to its pool when the last view of it is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of this length. What is in it is left from before.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let size = size_of_buffer(length);
        let used = self.with(|idle| {
            let used = idle.by_size.get_mut(&size).and_then(Vec::pop);
            idle.bytes -= used.as_ref().map_or(0, Vec::len);
            used
        });
        Buffer {
            // Zeroed memory of this size comes from the system as it is, and is not written to.
            bytes: used.unwrap_or_else(|| vec![0; size]),
            length,
            pool: self.clone(),
        }
    }

    fn give(&self, bytes: Vec<u8>) {
        let size = bytes.len();
        if !(SMALLEST..=MOST_IDLE).contains(&size) {
            return;
        }
        let dropped = self.with(|idle| {
            let mut dropped = Vec::new();
            // Buffers of sizes that are no longer asked for make room for those that are.
            while idle.bytes + size > MOST_IDLE {
                let other = idle
                    .by_size
                    .iter_mut()
                    .max_by_key(|(size, buffers)| *size * buffers.len());
                match other.and_then(|(_, buffers)| buffers.pop()) {
                    Some(buffer) => {
                        idle.bytes -= buffer.len();
                        dropped.push(buffer);
                    }
                    None => break,
                }
            }
            idle.bytes += size;
            idle.by_size.entry(size).or_default().push(bytes);
            dropped
        });
        // Giving memory back to the system takes long: not under the lock.
        drop(dropped);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The least of the sizes that buffers have which is not below this length.
fn size_of_buffer(length: usize) -> usize {
    if length < SMALLEST {
        return length;
    }
    let step = (length.next_power_of_two() / 2 / STEPS).max(1);
    length.div_ceil(step) * step
}

impl Buffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The bytes, to be shared.
    pub(super) fn freeze(mut self) -> Bytes {
        match self.length < SMALLEST {
            true => Bytes::from(std::mem::take(&mut self.bytes)),
            false => Bytes::from_owner(self),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_little_too_large() {
        for length in (SMALLEST..SMALLEST * 5)
            .step_by(777)
            .chain([1 << 20, (1 << 20) + 1, 7_000_000])
        {
            let size = size_of_buffer(length);
            assert!(size >= length && size - length <= length / STEPS, "{length}: {size}");
            assert_eq!(size_of_buffer(size), size);
        }
        assert_eq!(size_of_buffer(5), 5);
    }

    #[test]
    fn a_buffer_is_used_again_when_its_last_view_is_gone() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(100_000);
        buffer.as_mut().fill(7);
        let place = buffer.as_ref().as_ptr();
        let bytes = buffer.freeze();
        let view = bytes.slice(99_000..);
        drop(bytes);
        assert_ne!(pool.take(100_000).as_ref().as_ptr(), place);
        assert!(view.iter().all(|byte| *byte == 7) && view.len() == 1_000);
        drop(view);
        let again = [pool.take(99_999), pool.take(99_999)];
        assert!(again.iter().any(|buffer| buffer.as_ref().as_ptr() == place));
    }

    #[test]
    fn idle_buffers_are_few() {
        let pool = Arc::new(Pool::default());
        for length in [1 << 20, 3 << 20, 5 << 20] {
            let buffers: Vec<_> = (0..40).map(|_| pool.take(length)).collect();
            drop(buffers);
            assert!(pool.with(|idle| idle.bytes) <= MOST_IDLE);
        }
        // The last size that was asked for is there.
        assert!(
            pool.with(|idle| !idle.by_size[&(5 << 20)].is_empty()),
            "{:?}",
            pool.with(|idle| idle.bytes)
        );
        drop(pool.take(MOST_IDLE + 1));
        assert!(pool.with(|idle| idle.bytes) <= MOST_IDLE);
    }
}
