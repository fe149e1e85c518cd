//! The oracle. A register is a secret whose value has its version: each write reads it, and writes the next version in a
//! transaction, so that a version is written once. A read is linearizable if it returns no version before one that was
//! acknowledged, or returned to another reader, before the read began, and none after the last one that was sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};

/// What is known of all registers.
#[derive(Default)]
pub(super) struct Oracle {
    registers: Vec<Register>,
    /// The writes whose versions were returned or acknowledged.
    writers: BTreeMap<(usize, u64), u64>,
    /// Writes that were reported as not written.
    unwritten: BTreeSet<u64>,
    next_write: u64,
    pub(super) broken: Option<String>,
    pub(super) writes: u64,
    pub(super) reads: u64,
}

#[derive(Clone, Copy, Default)]
struct Register {
    /// The newest version that was acknowledged, or returned by a read.
    visible: u64,
    /// The newest version that was sent.
    sent: u64,
}

/// A version and the write that has written it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: u64,
    write: u64,
}

impl Version {
    /// The value of this version, with so many more bytes.
    pub(super) fn value(self, more: usize) -> Bytes {
        let mut value = Vec::with_capacity(16 + more);
        value.put_u64(self.number);
        value.put_u64(self.write);
        value.resize(16 + more, 0);
        value.into()
    }

    /// The version of a value; a register without one has the version 0.
    pub(super) fn of(value: Option<Bytes>) -> Self {
        let Some(mut value) = value else { return Self::default() };
        let mut number = || value.try_get_u64().unwrap_or(u64::MAX);
        Self { number: number(), write: number() }
    }
}

impl Oracle {
    pub(super) fn new(registers: usize) -> Self {
        Self { registers: vec![Register::default(); registers], ..Self::default() }
    }

    /// What a call that begins now must see.
    pub(super) fn oldest(&self, register: usize) -> u64 {
        self.registers[register].visible
    }

    /// The next version is about to be written.
    pub(super) fn sends(&mut self, register: usize, after: Version) -> Version {
        self.next_write += 1;
        let version = Version { number: after.number + 1, write: self.next_write };
        let register = &mut self.registers[register];
        register.sent = register.sent.max(version.number);
        version
    }

    /// A read that began when `oldest` was visible has returned a version.
    pub(super) fn reads(&mut self, node: usize, register: usize, oldest: u64, version: Version) {
        self.reads += 1;
        let Register { sent, .. } = self.registers[register];
        if !(oldest..=sent).contains(&version.number) {
            let number = version.number;
            self.breaks(format!(
                "node {node} returns version {number} of register {register}: {oldest} was visible, {sent} was sent"
            ));
        }
        if self.unwritten.contains(&version.write) {
            self.breaks(format!("node {node} returns a write of register {register} that was reported as not written"));
        }
        self.sees(register, version);
    }

    /// A write was acknowledged.
    pub(super) fn acknowledges(&mut self, register: usize, version: Version) {
        self.writes += 1;
        self.sees(register, version);
    }

    /// A write was reported as not written, now and later.
    pub(super) fn refuses(&mut self, register: usize, version: Version) {
        if self.writers.get(&(register, version.number)) == Some(&version.write) {
            self.breaks(format!("a write of register {register} that was read is reported as not written"));
        }
        self.unwritten.insert(version.write);
    }

    fn sees(&mut self, register: usize, version: Version) {
        if version.number == 0 {
            return;
        }
        let writer = *self.writers.entry((register, version.number)).or_insert(version.write);
        if writer != version.write {
            self.breaks(format!("two writes have written version {} of register {register}", version.number));
        }
        let register = &mut self.registers[register];
        register.visible = register.visible.max(version.number);
    }

    /// Notes the first broken rule.
    pub(super) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, write: u64) -> Version {
        Version { number, write }
    }

    #[test]
    fn an_older_and_a_later_version_is_no_result_of_a_read() {
        let broken = |number| {
            let mut oracle = Oracle::new(1);
            for write in 1..=3 {
                let sent = oracle.sends(0, version(write - 1, 0));
                if write < 3 {
                    oracle.acknowledges(0, sent);
                }
            }
            let oldest = oracle.oldest(0);
            oracle.reads(0, 0, oldest, version(number, number));
            oracle.broken.is_some()
        };
        assert_eq!((0..6).map(broken).collect::<Vec<_>>(), [true, true, false, false, true, true]);
    }

    #[test]
    fn a_version_is_written_once_and_not_by_a_write_that_was_refused() {
        let mut oracle = Oracle::new(1);
        let (one, other) = (oracle.sends(0, version(0, 0)), oracle.sends(0, version(0, 0)));
        oracle.acknowledges(0, one);
        assert_eq!(oracle.broken, None);
        oracle.acknowledges(0, other);
        assert!(oracle.broken.take().unwrap().contains("two writes"));
        let refused = oracle.sends(0, one);
        oracle.refuses(0, refused);
        assert_eq!(oracle.broken, None);
        oracle.reads(0, 0, 1, refused);
        assert!(oracle.broken.take().unwrap().contains("not written"));
    }

    #[test]
    fn a_value_has_its_version() {
        assert_eq!(Version::of(Some(version(7, 9).value(3))), version(7, 9));
        assert_eq!(Version::of(None), version(0, 0));
        assert_ne!(Version::of(Some(Bytes::new())), version(0, 0));
    }
}
