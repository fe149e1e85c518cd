//! Entry points for fuzz targets to the log.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, RwLock};

use super::{
    disk::{Disk, DiskFile, Room},
    entry::{FOUNDING, HardState, RaftId, Vote},
    log::{Log, ReadLog},
    segment::{Frame, Head},
    segment_files::{name, path},
    segmented_log::{SegmentedLog, Segments},
};

/// The most segments of an input.
const MAX_SEGMENTS: u64 = 4;

/// What a log holds after it was opened: the index before the first entry, that of the last one, and the payloads of
/// all; `None` for a payload that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenedLog {
    /// The index before the first entry.
    pub base: u64,
    /// The index of the last entry.
    pub last: u64,
    /// The committed index.
    pub committed: u64,
    /// The payloads from `base` + 1 to `last`.
    pub entries: Option<Vec<Bytes>>,
}

/// Opens a log whose segments are described by `script` three times: the second time nothing was changed, before the
/// third an entry was added. `None` when it is refused.
pub fn open_log(script: Bytes) -> Option<[OpenedLog; 3]> {
    let disk = Arc::new(MemoryDisk::default());
    write_segments(&disk, script);
    let open = || SegmentedLog::open(Segments { disk: disk.clone(), bytes: 1 << 20, ahead: 64 }, FOUNDING).ok();
    let first = shown(&open()?);
    let mut log = open()?;
    let second = shown(&log);
    let (last, hard) = (log.reader().last(), log.reader().hard_state());
    let mut frame = Frame::new();
    frame.begin(last.index + 1, hard);
    frame.push(last.term, b"\x02added");
    log.append(&mut frame).ok()?;
    drop(log);
    Some([first, second, shown(&open()?)])
}

fn shown(log: &SegmentedLog) -> OpenedLog {
    let reader = log.reader();
    let (base, last) = (reader.base().index, reader.last().index);
    let mut entries = Some(Vec::new());
    for index in base + 1..=last {
        let read = reader.entries(index..index + 1, 0);
        let payload = read.ok().and_then(|mut read| read.pop()).map(|entry| entry.payload);
        match (&mut entries, payload) {
            (Some(entries), Some(payload)) => entries.push(payload),
            _ => entries = None,
        }
    }
    OpenedLog { base, last, committed: reader.hard_state().committed, entries }
}

/// Writes segments with frames whose checksums are right, and with bytes that are none.
fn write_segments(disk: &MemoryDisk, mut script: Bytes) {
    let mut byte = move || script.try_get_u8().ok();
    for number in 1..=MAX_SEGMENTS {
        let Some(head) = head(&mut byte) else { return };
        let mut bytes = head.encode().to_vec();
        while let Some(kind) = byte().filter(|kind| *kind != b'|') {
            match kind {
                // Entries.
                b'f' => bytes.extend_from_slice(&frame(&mut byte, head.salt)),
                // A frame that is cut.
                b'c' => {
                    let frame = frame(&mut byte, head.salt);
                    let cut = usize::from(byte().unwrap_or_default()) % frame.len();
                    bytes.extend_from_slice(&frame[..cut]);
                }
                other => bytes.push(other),
            }
        }
        disk.0.lock().insert(path(&name(number)), Arc::new(MemoryFile(RwLock::new(bytes))));
    }
}

fn head(byte: &mut impl FnMut() -> Option<u8>) -> Option<Head> {
    let mut number = || byte().map(u64::from);
    let (salt, first, before_term) = (number()? as u32, number()?, number()?);
    Some(Head { salt, first, before_term, hard: hard(byte) })
}

fn hard(byte: &mut impl FnMut() -> Option<u8>) -> HardState {
    let mut number = || u64::from(byte().unwrap_or_default());
    HardState { committed: number(), vote: Vote { term: number(), candidate: RaftId(number()) } }
}

fn frame(byte: &mut impl FnMut() -> Option<u8>, salt: u32) -> Vec<u8> {
    let first = u64::from(byte().unwrap_or_default());
    let mut frame = Frame::new();
    frame.begin(first, hard(byte));
    for _ in 0..byte().unwrap_or_default() % 8 {
        let term = u64::from(byte().unwrap_or_default());
        let length = byte().unwrap_or_default() % 16;
        let payload: Vec<u8> = (0..length).map_while(|_| byte()).collect();
        frame.push(term, &payload);
    }
    frame.finish(salt).to_vec()
}

#[derive(Default)]
struct MemoryDisk(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

#[derive(Debug)]
struct MemoryFile(RwLock<Vec<u8>>);

impl Disk for MemoryDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut files = self.0.lock();
        if create && !files.contains_key(name) {
            files.insert(name.to_owned(), Arc::new(MemoryFile(RwLock::default())));
        }
        Ok(files.get(name).map(|file| file.clone() as Arc<dyn DiskFile>))
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let names = |name: &String| name.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        Ok(self.0.lock().keys().filter_map(names).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: 1 << 40, total: 1 << 40 })
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read();
        let found = bytes.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_log_is_opened_and_keeps_an_added_entry() {
        // A segment from entry 2 on with a frame of two entries, of which the second is replaced.
        let script =
            b"s\x02\x01\x01\x01\x01f\x02\x01\x01\x01\x02\x01\x02\x02a\x01\x02\x02bf\x03\x01\x02\x01\x01\x02\x02\x02c";
        let [first, second, third] = open_log(Bytes::from_static(script)).unwrap();
        assert_eq!((first.base, first.last, &first), (1, 3, &second));
        assert_eq!(first.entries.unwrap(), [&b"\x02a"[..], b"\x02c"]);
        assert_eq!((third.last, third.entries.unwrap().len()), (4, 3));
        assert!(open_log(Bytes::from_static(b"s\x09\x01\x01\x01\x01")).is_none(), "entries are missing");
    }
}
