//! How ranks send each other bytes: whoever can send and receive a message is a transport.

use super::Place;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// To all ranks that take part, from parent to child in the tree.
    Request = 1,
    /// What one rank needs beside.
    Part,
    /// From child to parent.
    Reply,
    /// Rows of one rank, to the first.
    Rows,
    /// The operation of this number is not wanted any more.
    Cancel,
}

/// A way to send messages between ranks. Those of one tag between two ranks arrive in their order.
pub trait Transport: Debug + Send + Sync {
    fn rank(&self) -> usize;
    fn count(&self) -> usize;
    fn place(&self) -> Place;
    fn send(&self, to: usize, tag: Tag, bytes: &[u8]);
    fn receive(&self, from: usize, tag: Tag) -> Vec<u8>;
    /// Whether there is a message to receive.
    fn waits(&self, from: usize, tag: Tag) -> bool;
}

/// A transport that counts what goes over it.
#[derive(Debug)]
pub struct Channel {
    transport: Box<dyn Transport>,
    /// Requests so far.
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Channel {
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, requests: AtomicU64::new(0), sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    pub fn count(&self) -> usize {
        self.transport.count()
    }

    pub fn place(&self) -> Place {
        self.transport.place()
    }

    /// Whether the first rank has said that a request's operation is not wanted any more.
    pub fn is_cancelled(&self, request: u64) -> bool {
        while self.transport.waits(0, Tag::Cancel) {
            if self.receive(0, Tag::Cancel) == request.to_le_bytes() {
                return true;
            }
        }
        false
    }

    /// Bytes sent and received.
    pub fn bytes(&self) -> [u64; 2] {
        [&self.sent, &self.received].map(|count| count.load(Ordering::Relaxed))
    }

    pub fn send(&self, to: usize, tag: Tag, bytes: &[u8]) {
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.transport.send(to, tag, bytes);
    }

    pub fn receive(&self, from: usize, tag: Tag) -> Vec<u8> {
        let bytes = self.transport.receive(from, tag);
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        bytes
    }

    /// Sends a request to this rank's children among the first `active` ranks, which pass it on, and returns its number.
    pub fn tell(&self, active: usize, request: &[u8]) -> u64 {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let message = [&(active as u64).to_le_bytes(), &number.to_le_bytes(), request].concat();
        self.pass_on(active, &message);
        number
    }

    /// Waits for a request, passes it on, and returns it behind the number of ranks that take part and its own.
    pub fn listen(&self) -> (usize, u64, Vec<u8>) {
        let mut message = self.receive(parent(self.rank()), Tag::Request);
        let word = |k: usize| u64::from_le_bytes(message[8 * k..8 * k + 8].try_into().expect("eight bytes"));
        let (active, number) = (word(0) as usize, word(1));
        self.pass_on(active, &message);
        (active, number, message.split_off(16))
    }

    fn pass_on(&self, active: usize, message: &[u8]) {
        // The child with most ranks behind it first.
        let children: Vec<_> = children(self.rank(), active).collect();
        children.into_iter().rev().for_each(|child| self.send(child, Tag::Request, message));
    }
}

/// Of a binomial tree over the ranks: rank r has the ranks behind it up to the next multiple of its lowest bit.
pub fn parent(rank: usize) -> usize {
    rank & (rank - 1)
}

/// A rank's children among the first `active` ranks: what a child has behind it follows what those before it have.
pub fn children(rank: usize, active: usize) -> impl Iterator<Item = usize> {
    let bits = if rank == 0 { usize::BITS } else { rank.trailing_zeros() };
    (0..bits).map(move |bit| rank + (1 << bit)).take_while(move |child| *child < active)
}

/// Numbers as bytes.
pub fn numbers_to(numbers: &[f64]) -> Vec<u8> {
    bytemuck::cast_slice(numbers).to_vec()
}

/// Numbers from bytes.
pub fn numbers_from(bytes: &[u8]) -> Vec<f64> {
    bytemuck::pod_collect_to_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_one_parent_and_comes_after_those_before_it() {
        for active in 1..40 {
            let mut order = Vec::new();
            let mut visit = vec![0];
            while let Some(rank) = visit.pop() {
                order.push(rank);
                let children: Vec<_> = children(rank, active).collect();
                assert!(children.iter().all(|child| parent(*child) == rank));
                visit.extend(children.into_iter().rev());
            }
            assert_eq!(order, (0..active).collect::<Vec<_>>());
        }
    }
}
