//! Memory: `/proc/meminfo` (man 5 proc_meminfo), in bytes.

use std::collections::HashMap;

use serde::Serialize;

use super::reading::percent;

/// The machine's memory in bytes; huge pages as counts.
#[derive(Serialize)]
pub(super) struct Memory {
    pub(super) total: u64,
    available: u64,
    used: u64,
    #[serde(rename = "usedPercent")]
    used_percent: f64,
    free: u64,
    active: u64,
    inactive: u64,
    /// Of systems other than Linux, like `laundry`.
    wired: u64,
    laundry: u64,
    buffers: u64,
    cached: u64,
    writeback: u64,
    dirty: u64,
    writebacktmp: u64,
    shared: u64,
    slab: u64,
    sreclaimable: u64,
    sunreclaim: u64,
    pagetables: u64,
    swapcached: u64,
    commitlimit: u64,
    committedas: u64,
    hightotal: u64,
    highfree: u64,
    lowtotal: u64,
    lowfree: u64,
    swaptotal: u64,
    swapfree: u64,
    mapped: u64,
    vmalloctotal: u64,
    vmallocused: u64,
    vmallocchunk: u64,
    hugepagestotal: u64,
    hugepagesfree: u64,
    hugepagesize: u64,
}

impl Memory {
    /// Reads `/proc/meminfo`; `None` if it has no total.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let numbers: HashMap<&str, u64> = text.lines().filter_map(number).collect();
        let of = |name: &str| numbers.get(name).copied().unwrap_or(0);
        let total = *numbers.get("MemTotal")?;
        let reclaimable = of("Buffers").saturating_add(of("Cached"));
        // Kernels before 3.14 do not report the available memory.
        let available =
            numbers.get("MemAvailable").copied().unwrap_or_else(|| of("MemFree").saturating_add(reclaimable));
        let used = total.saturating_sub(available);
        Some(Memory {
            total,
            available,
            used,
            used_percent: percent(used, total),
            free: of("MemFree"),
            active: of("Active"),
            inactive: of("Inactive"),
            wired: 0,
            laundry: 0,
            buffers: of("Buffers"),
            cached: of("Cached").saturating_add(of("SReclaimable")),
            writeback: of("Writeback"),
            dirty: of("Dirty"),
            writebacktmp: of("WritebackTmp"),
            shared: of("Shmem"),
            slab: of("Slab"),
            sreclaimable: of("SReclaimable"),
            sunreclaim: of("SUnreclaim"),
            pagetables: of("PageTables"),
            swapcached: of("SwapCached"),
            commitlimit: of("CommitLimit"),
            committedas: of("Committed_AS"),
            hightotal: of("HighTotal"),
            highfree: of("HighFree"),
            lowtotal: of("LowTotal"),
            lowfree: of("LowFree"),
            swaptotal: of("SwapTotal"),
            swapfree: of("SwapFree"),
            mapped: of("Mapped"),
            vmalloctotal: of("VmallocTotal"),
            vmallocused: of("VmallocUsed"),
            vmallocchunk: of("VmallocChunk"),
            hugepagestotal: of("HugePages_Total"),
            hugepagesfree: of("HugePages_Free"),
            hugepagesize: of("Hugepagesize"),
        })
    }
}

/// `Name:  1 kB` in bytes, or `Name: 1` as a plain number.
fn number(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let mut words = rest.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let unit = if words.next() == Some("kB") { 1024 } else { 1 };
    Some((name, number.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_bytes_and_pages_are_numbers() {
        let text = "MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 60 kB\nCached: 20 kB\nSReclaimable: 5 kB\nHugePages_Total: 3\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.total, memory.used, memory.used_percent), (102_400, 40_960, 40.0));
        assert_eq!((memory.cached, memory.hugepagestotal, memory.slab), (25_600, 3, 0));
    }

    #[test]
    fn a_damaged_file_is_no_panic() {
        assert!(Memory::parse("MemTotal: many kB\n\u{0}:").is_none());
        let old = Memory::parse("MemTotal: 100 kB\nMemFree: 18446744073709551615 kB\nBuffers: 1 kB").unwrap();
        assert_eq!(old.used, 0);
    }
}
