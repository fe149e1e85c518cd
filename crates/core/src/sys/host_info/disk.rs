//! Disks: the mounted file systems that have a device, and their usage.

use std::collections::BTreeSet;

use rustix::fs::{StatVfs, statvfs};
use serde::Serialize;

use super::reading::{percent, text};

/// A mounted file system; sizes are bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disk {
    pub(super) path: String,
    fstype: String,
    total: u64,
    free: u64,
    used: u64,
    used_percent: f64,
    inodes_total: u64,
    inodes_used: u64,
    inodes_free: u64,
    inodes_used_percent: f64,
}

/// All file systems on a device of this machine, and the root. Network file systems are left out: a call to one that
/// does not respond blocks forever.
pub(super) fn all() -> Option<Vec<Disk>> {
    let on_devices = text("/proc/filesystems").unwrap_or_default();
    let mounts = mounts(&text("/proc/self/mounts")?, &on_devices);
    Some(mounts.into_iter().filter_map(|(path, fstype)| Disk::read(path, fstype)).collect())
}

impl Disk {
    fn read(path: String, fstype: String) -> Option<Self> {
        let stat = statvfs(path.as_str()).ok()?;
        Some(Self::of(path, fstype, &stat))
    }

    fn of(path: String, fstype: String, stat: &StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let (free, used) = (bytes(stat.f_bavail), bytes(stat.f_blocks.saturating_sub(stat.f_bfree)));
        let inodes_used = stat.f_files.saturating_sub(stat.f_ffree);
        Disk {
            path,
            fstype,
            total: bytes(stat.f_blocks),
            free,
            used,
            // As in `df`: blocks reserved for root count neither as used nor as free.
            used_percent: percent(used, used.saturating_add(free)),
            inodes_total: stat.f_files,
            inodes_used,
            inodes_free: stat.f_ffree,
            inodes_used_percent: percent(inodes_used, stat.f_files),
        }
    }
}

/// Mount points with their types, each once, from `/proc/self/mounts` and `/proc/filesystems`.
fn mounts(mounts: &str, filesystems: &str) -> Vec<(String, String)> {
    let on_devices: BTreeSet<&str> =
        filesystems.lines().filter(|line| !line.starts_with("nodev")).map(str::trim).collect();
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(_device), Some(path), Some(fstype)) = (words.next(), words.next(), words.next()) else { continue };
        if (path == "/" || on_devices.contains(fstype)) && seen.insert(path) {
            out.push((unescaped(path), fstype.to_owned()));
        }
    }
    out
}

/// A path without the octal escapes of `/proc/self/mounts` (`\040` is a blank).
fn unescaped(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let digits = rest.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[3..];
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_a_device_are_left_out_but_for_the_root() {
        let table = "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\nhost:/x /nfs nfs rw 0 0\n\
                     /dev/a /my\\040data ext4 rw 0 0\n/dev/a /my\\040data ext4 rw 0 0\nshort";
        let found = mounts(table, "nodev\tproc\nnodev\toverlay\nnodev\tnfs\n\text4\n");
        let pair = |path: &str, fstype: &str| (path.to_owned(), fstype.to_owned());
        assert_eq!(found, [pair("/", "overlay"), pair("/my data", "ext4")]);
    }

    #[test]
    fn damaged_escapes_stay_as_they_are() {
        assert_eq!(
            (unescaped("a\\04"), unescaped("\\999é"), unescaped("\\")),
            ("a\\04".into(), "\\999é".into(), "\\".into())
        );
    }
}
