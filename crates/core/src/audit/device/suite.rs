//! The tests that every audit device passes.

use std::io::ErrorKind;

use futures_util::future::join_all;
use parking_lot::MutexGuard;

use super::{Device, Ticket};
use crate::audit::line::Line;

/// The target of a device under test.
pub(crate) trait Target: Sized + Sync {
    /// An empty target with its device.
    fn new() -> Self;
    /// A target whose writes fail.
    fn failing() -> Self;
    fn device(&self) -> &dyn Device;
    /// Moves the output so far away, if the target supports it.
    fn rotate(&mut self) {}
    /// Stops the reader until the guard is dropped; `None` for a target without a reader.
    fn stall(&self) -> Option<MutexGuard<'_, ()>> {
        None
    }
    /// The whole output, also before a rotation.
    fn finish(self) -> Vec<u8>;
}

/// Generates one test of every case for a device: `device_suite!(name, TypeOfTarget);`
macro_rules! device_suite {
    ($name:ident, $target:ty) => {
        mod $name {
            use super::*;
            $crate::audit::device::suite::device_suite!(@cases $target;
                writes_whole_lines_of_concurrent_requests, writes_in_the_order_of_submission,
                writes_to_the_new_target_after_a_reopen, reports_a_failed_write, a_slow_reader_does_not_delay_a_submit,
                a_dropped_ticket_leaves_whole_lines);
        }
    };
    (@cases $target:ty; $($case:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::audit::device::suite::$case::<$target>().await;
        }
    )*};
}
pub(crate) use device_suite;

/// A line of this length, line feed included, with its writer and number.
fn line(writer: usize, number: usize, length: usize) -> Line {
    let mut line = format!("{writer} {number} ").into_bytes();
    line.resize(length.max(line.len() + 1) - 1, b'x');
    line.push(b'\n');
    Line::new(line, number.is_multiple_of(2))
}

/// The arguments of each [`line`] in order; fails for a line that is torn or mixed.
fn parsed(text: &[u8]) -> Vec<(usize, usize)> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let parse = |line: &str| {
        let (writer, rest) = line.split_once(' ').unwrap();
        let (number, rest) = rest.split_once(' ').unwrap();
        assert!(rest.bytes().all(|byte| byte == b'x'), "{line}");
        (writer.parse().unwrap(), number.parse().unwrap())
    };
    text.lines().map(parse).collect()
}

/// Some are short, some join no batch, some are longer than a pipe takes at once.
const LENGTHS: [usize; 5] = [10, 1500, 20_000, 300, 100_000];

pub(crate) async fn writes_whole_lines_of_concurrent_requests<T: Target>() {
    const WRITERS: usize = 8;
    const LINES: usize = 40;
    let target = T::new();
    let write = async |writer: usize| {
        for number in 0..LINES {
            let line = line(writer, number, LENGTHS[(writer + number) % LENGTHS.len()]);
            target.device().submit(line).written().await.unwrap();
        }
    };
    join_all((0..WRITERS).map(write)).await;
    let written = parsed(&target.finish());
    assert_eq!(written.len(), WRITERS * LINES);
    for writer in 0..WRITERS {
        let numbers = written.iter().filter(|(by, _)| *by == writer).map(|(_, number)| *number);
        assert!(numbers.eq(0..LINES), "writer {writer}");
    }
}

pub(crate) async fn writes_in_the_order_of_submission<T: Target>() {
    let target = T::new();
    let mut tickets: Vec<_> = (0..20).map(|n| target.device().submit(line(0, n, LENGTHS[n % LENGTHS.len()]))).collect();
    while let Some(ticket) = tickets.pop() {
        ticket.written().await.unwrap();
    }
    drop(tickets);
    assert_eq!(parsed(&target.finish()), Vec::from_iter((0..20).map(|n| (0, n))));
}

pub(crate) async fn writes_to_the_new_target_after_a_reopen<T: Target>() {
    let mut target = T::new();
    for number in 0..3 {
        target.device().submit(line(0, number, 50)).written().await.unwrap();
        target.rotate();
        target.device().reopen().unwrap();
    }
    target.device().submit(line(0, 3, 50)).written().await.unwrap();
    assert_eq!(parsed(&target.finish()), [(0, 0), (0, 1), (0, 2), (0, 3)]);
}

pub(crate) async fn reports_a_failed_write<T: Target>() {
    let target = T::failing();
    for number in 0..3 {
        // A batch of two: both requests must receive the outcome.
        let tickets = [50, 60].map(|length| target.device().submit(line(0, number, length)));
        for ticket in tickets {
            assert!(ticket.written().await.is_err(), "line {number}");
        }
        assert!(target.device().submit(line(1, number, 20_000)).written().await.is_err());
    }
}

pub(crate) async fn a_slow_reader_does_not_delay_a_submit<T: Target>() {
    // More than any queue and any pipe holds.
    const LINES: usize = super::stream::QUEUE + 200;
    let target = T::new();
    let mut accepted = Vec::new();
    let stalled = target.stall();
    for number in 0..LINES {
        match target.device().submit(line(0, number, 1000)) {
            Ticket::Done(outcome) => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::WouldBlock),
            ticket => accepted.push((number, ticket)),
        }
    }
    assert_eq!(accepted.len() < LINES, stalled.is_some(), "a full queue refuses");
    assert_eq!(target.device().can_block(), stalled.is_some());
    drop(stalled);
    let mut numbers = Vec::new();
    for (number, ticket) in accepted {
        ticket.written().await.unwrap();
        numbers.push((0, number));
    }
    assert_eq!(parsed(&target.finish()), numbers, "what was accepted is written, and nothing else");
}

pub(crate) async fn a_dropped_ticket_leaves_whole_lines<T: Target>() {
    let target = T::new();
    for number in 0..20 {
        let ticket = target.device().submit(line(0, number, LENGTHS[number % LENGTHS.len()]));
        if number % 2 == 0 {
            // A request that is dropped while it waits for the write.
            let mut waiting = Box::pin(ticket.written());
            let _ = futures_util::poll!(&mut waiting);
        }
    }
    assert_eq!(parsed(&target.finish()), Vec::from_iter((0..20).map(|n| (0, n))));
}
