//! The events of a simulation in the order of their times.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// What is to happen. Events of one time happen in the order in which they were added.
pub struct Schedule<E> {
    queue: BinaryHeap<Reverse<Scheduled<E>>>,
    order: u64,
}

struct Scheduled<E> {
    time: u64,
    order: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl<E> Eq for Scheduled<E> {}
impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { queue: BinaryHeap::new(), order: 0 }
    }
}

impl<E> Schedule<E> {
    /// Adds an event at a time in microseconds.
    pub fn add(&mut self, time: u64, event: E) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { time, order: self.order, event }));
    }

    /// Removes the next event; returns its time and it.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.queue.pop().map(|Reverse(Scheduled { time, event, .. })| (time, event))
    }
}
