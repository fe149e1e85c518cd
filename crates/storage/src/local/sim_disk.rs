//! A simulated disk that loses unsynced data, tears writes, and injects faults.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, Room};

/// The unit of an atomic write.
const SECTOR: usize = 512;

/// How an operation that changes the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO, once. A failed sync loses some of the data to write, as on Linux.
    Error,
    /// EIO for this and every later operation: the machine has crashed.
    Crash,
    /// ENOSPC after a partial write, for this and every later write that extends a file.
    Full,
    /// ENOSPC once.
    FullOnce,
    /// A partial write, then EIO.
    Short,
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Current directory entries, followed by the entries after a crash.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    operations: usize,
    fault: Option<(usize, Fault)>,
    seed: u64,
    /// Counts what was left to chance.
    chances: u64,
    /// Free bytes, if limited.
    free: Option<u64>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Remove(String),
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.0.lock().seed = seed;
        disk
    }

    /// Makes the operation with this number fail. Operations are counted from 0 since the creation of the disk.
    pub(crate) fn fail_at(&self, operation: usize, fault: Fault) {
        self.0.lock().fault = Some((operation, fault));
    }

    /// Sets the free space that [`Disk::room`] returns.
    #[cfg(test)]
    pub(crate) fn set_free(&self, free: u64) {
        self.0.lock().free = Some(free);
    }

    /// Number of operations that changed the disk.
    pub(crate) fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// Simulates a power loss: any part of any unsynced write may be present or not. Clears faults.
    pub(crate) fn lose_power(&self) {
        let inner = &mut *self.0.lock();
        inner.fault = None;
        let chance = inner.chance();
        let kept = chance.of(0, 0) as usize % (inner.name_changes.len() + 1);
        for change in inner.name_changes.drain(..).take(kept) {
            apply_name(&mut inner.durable_names, change);
        }
        inner.names = inner.durable_names.clone();
        for (id, content) in &mut inner.files {
            content.keep_some(Chance(chance.of(1, *id)));
            content.seen = content.durable.clone();
        }
    }

    /// Clears faults and keeps the unsynced data that the operating system holds.
    pub(crate) fn heal(&self) {
        self.0.lock().fault = None;
    }

    /// The bytes of a file.
    #[cfg(test)]
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let inner = self.0.lock();
        inner.files[&inner.names[name]].seen.clone()
    }

    /// Changes a bit of a file, as a device may.
    pub(crate) fn flip(&self, name: &str, bit: u64) {
        let inner = &mut *self.0.lock();
        let Some(content) = inner.names.get(name).and_then(|id| inner.files.get_mut(id)) else { return };
        for bytes in [&mut content.seen, &mut content.durable] {
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Replaces the bytes of a file, durably.
    #[cfg(test)]
    pub(crate) fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let inner = &mut *self.0.lock();
        let id = inner.names[name];
        inner.files.insert(id, Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() });
    }

    /// Returns a disk with the content that the operating system sees.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        let inner = self.0.lock();
        let copy = Self::new(inner.seed ^ inner.chances);
        {
            let mut to = copy.0.lock();
            to.names = inner.names.clone();
            to.durable_names = inner.names.clone();
            to.next_file = inner.next_file;
            for (id, content) in &inner.files {
                let bytes = content.seen.clone();
                to.files.insert(*id, Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() });
            }
        }
        copy
    }
}

impl Inner {
    /// Counts an operation and returns its fault, if any.
    fn fault(&mut self, extends: bool) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        let (at, fault) = self.fault?;
        let hit = match fault {
            Fault::Crash => number >= at,
            Fault::Full => number >= at && extends,
            Fault::Error | Fault::Short | Fault::FullOnce => number == at,
        };
        hit.then_some(fault)
    }

    /// What the next thing that is left to chance draws from.
    fn chance(&mut self) -> Chance {
        self.chances += 1;
        Chance(Chance(self.seed).of(2, self.chances))
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        if let Some(fault) = self.fault(matches!(change, NameChange::Set(..))) {
            return Err(error(fault));
        }
        apply_name(&mut self.names, change.clone());
        self.name_changes.push(change);
        Ok(())
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        apply(&mut self.seen, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// Makes a random part of the pending changes durable and drops the rest.
    fn keep_some(&mut self, chance: Chance) {
        for (number, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let keeps = |place: usize| chance.of(number as u64, place as u64).is_multiple_of(2);
            match change {
                Change::Length(_) if keeps(0) => apply(&mut self.durable, &change),
                Change::Length(_) => {}
                Change::Write(offset, data) => {
                    for (place, sector) in data.chunks(SECTOR).enumerate() {
                        if keeps(place) {
                            apply(&mut self.durable, &Change::Write(offset + (place * SECTOR) as u64, sector.to_vec()));
                        }
                    }
                }
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut inner = self.0.lock();
        let id = match inner.names.get(name) {
            Some(id) => *id,
            None if !create => return Ok(None),
            None => {
                let id = inner.next_file;
                inner.next_file += 1;
                inner.change_name(NameChange::Set(name.to_owned(), id))?;
                inner.files.insert(id, Content::default());
                id
            }
        };
        Ok(Some(Arc::new(SimFile { disk: self.clone(), id })))
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let inner = self.0.lock();
        let inside = |name: &String| match name.split_once('/') {
            Some((parent, rest)) => (parent == directory).then(|| rest.to_owned()),
            None => directory.is_empty().then(|| name.clone()),
        };
        Ok(inner.names.keys().filter_map(inside).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        let id = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        // One operation, but a crash may leave both names; never neither.
        inner.change_name(NameChange::Set(to.to_owned(), id))?;
        apply_name(&mut inner.names, NameChange::Remove(from.to_owned()));
        inner.name_changes.push(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        if !inner.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync_directory(&self, _: &str) -> io::Result<()> {
        let inner = &mut *self.0.lock();
        if let Some(fault) = inner.fault(false) {
            return Err(error(fault));
        }
        for change in inner.name_changes.drain(..) {
            apply_name(&mut inner.durable_names, change);
        }
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: self.0.lock().free.unwrap_or(u64::MAX), total: 1 << 40 })
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[&self.id].seen.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.0.lock();
        let seen = &inner.files[&self.id].seen;
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let inner = &mut *self.disk.0.lock();
        let extends = offset as usize + data.len() > inner.files[&self.id].seen.len();
        let fault = inner.fault(extends);
        let written = match fault {
            None => data.len(),
            Some(Fault::Error) => 0,
            Some(_) => inner.chance().of(0, 0) as usize % (data.len() + 1),
        };
        if let Some(content) = inner.files.get_mut(&self.id).filter(|_| written > 0) {
            content.change(Change::Write(offset, data[..written].to_vec()));
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let inner = &mut *self.disk.0.lock();
        let extends = len as usize > inner.files[&self.id].seen.len();
        if let Some(fault) = inner.fault(extends) {
            return Err(error(fault));
        }
        if let Some(content) = inner.files.get_mut(&self.id) {
            content.change(Change::Length(len));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.disk.0.lock();
        let fault = inner.fault(false);
        let chance = inner.chance();
        if let Some(content) = inner.files.get_mut(&self.id) {
            match fault {
                None => content.sync(),
                Some(Fault::Crash) => {}
                Some(_) => content.keep_some(chance),
            }
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.id)
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: NameChange) {
    match change {
        NameChange::Set(name, id) => drop(names.insert(name, id)),
        NameChange::Remove(name) => drop(names.remove(&name)),
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(len) => bytes.resize(*len as usize, 0),
        Change::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full | Fault::FullOnce => io::ErrorKind::StorageFull.into(),
        Fault::Error | Fault::Crash | Fault::Short => {
            io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
        }
    }
}

/// Numbers that follow from a seed and from what they are for, so that a longer file changes no other decision.
#[derive(Clone, Copy)]
struct Chance(u64);

impl Chance {
    /// SplitMix64 over both.
    fn of(self, one: u64, two: u64) -> u64 {
        let mix = |z: u64| {
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        mix(mix(mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ one).wrapping_add(two)) >> 8
    }
}
