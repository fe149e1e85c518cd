//! Memory for keys: never swapped out, never in a core dump, wiped when dropped.
//!
//! This file and `keys/evp.rs`, which calls C, hold the only `unsafe` code of Keepfast. Keys are in an arena of
//! pages that are `mlock`ed, excluded from dumps (`MADV_DONTDUMP`), empty in a forked child (`MADV_WIPEONFORK`) and
//! fenced by inaccessible guard pages. A page holds slots of one power-of-two size, so a thousand
//! keys of 32 bytes take eight pages of the locked-memory limit (`RLIMIT_MEMLOCK`, often 8 MiB)
//! instead of a thousand. Keys work without locking too; [`is_effective`] returns whether locking succeeds.
//!
//! ```compile_fail,E0277
//! fn print<T: std::fmt::Debug>(_: &T) {}
//! print(&keepfast_crypto::locked::Key256::zeroed());
//! ```
//! ```compile_fail,E0369
//! let key = keepfast_crypto::locked::Key256::zeroed();
//! let _ = key == key.clone();
//! ```
//! ```
//! let key = keepfast_crypto::locked::Key256::zeroed();
//! assert!(keepfast_crypto::compare::equal(key.expose(), key.clone().expose()));
//! ```
#![allow(unsafe_code)]

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, MlockAllFlags, MprotectFlags, ProtFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroize;

/// `N` bytes in locked memory, wiped when dropped.
pub struct Locked<const N: usize>(Slot);

/// A key of 256 bits in locked memory.
pub type Key256 = Locked<32>;

/// Bytes in locked memory whose length is known at run time, wiped when dropped.
pub struct LockedBytes(Slot);

/// Whether all pages of the arena are locked. False where `RLIMIT_MEMLOCK` is too low: keys may then
/// reach the swap space.
#[must_use]
pub fn is_effective() -> bool {
    drop(Key256::zeroed());
    EFFECTIVE.load(Ordering::Relaxed)
}

/// Locks all current and future memory of the process, as pages are touched (`mlockall`).
///
/// # Errors
/// When the limit on locked memory is too low and the process lacks `CAP_IPC_LOCK`.
pub fn lock_all() -> io::Result<()> {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(rustix::mm::mlockall(flags)?)
}

/// Forbids core dumps and debuggers of the same user, as far as the system permits.
pub fn forbid_dumps() {
    // Both may fail in sandboxes; `MADV_DONTDUMP` still keeps keys out of dumps.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

impl<const N: usize> Locked<N> {
    /// `N` zero bytes, to be filled in place.
    #[must_use]
    pub fn zeroed() -> Self {
        Self(Slot::take(N))
    }

    /// Moves `bytes` into locked memory and wipes the argument. The caller wipes copies that its own
    /// moves left on the stack: prefer [`zeroed`](Self::zeroed) and fill in place.
    #[must_use]
    pub fn new(mut bytes: [u8; N]) -> Self {
        let mut locked = Self::zeroed();
        locked.expose_mut().copy_from_slice(&bytes);
        bytes.zeroize();
        locked
    }

    /// Copies `bytes`, or returns `None` when there are not exactly `N`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut locked = (bytes.len() == N).then(Self::zeroed)?;
        locked.expose_mut().copy_from_slice(bytes);
        Some(locked)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        // SAFETY: the slot has `N` initialised bytes that live and stay put as long as `self`;
        // `[u8; N]` has alignment 1.
        unsafe { self.0.start.cast::<[u8; N]>().as_ref() }
    }

    /// The bytes, to change in place.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        // SAFETY: as for `expose`; `&mut self` makes the reference unique.
        unsafe { self.0.start.cast::<[u8; N]>().as_mut() }
    }
}

impl<const N: usize> Clone for Locked<N> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed();
        copy.expose_mut().copy_from_slice(self.expose());
        copy
    }
}

impl<const N: usize> Zeroize for Locked<N> {
    fn zeroize(&mut self) {
        self.expose_mut().zeroize();
    }
}

impl LockedBytes {
    /// Zero bytes, to be filled in place.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        Self(Slot::take(length))
    }

    /// Copies `bytes` into locked memory.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut locked = Self::zeroed(bytes.len());
        locked.expose_mut().copy_from_slice(bytes);
        locked
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The bytes, to change in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

impl Clone for LockedBytes {
    fn clone(&self) -> Self {
        Self::new(self.expose())
    }
}

impl Zeroize for LockedBytes {
    fn zeroize(&mut self) {
        self.expose_mut().zeroize();
    }
}

/// Bytes of one page of the arena. The machine's pages may be larger; regions are multiples of both.
const PAGE: usize = 4096;
/// Bytes of the smallest slot.
const SMALLEST: usize = 16;
/// Number of slot sizes, from 16 to 4096 bytes; a longer value has its own region.
const CLASSES: usize = 9;
/// Bytes that the arena maps at a time, between two guards.
const REGION: usize = 64 * 1024;
/// Bytes of each guard: the largest page size of the supported machines.
const GUARD: usize = 64 * 1024;

static ARENA: Mutex<Arena> = Mutex::new(Arena { free: [const { Vec::new() }; CLASSES], fresh: Vec::new() });
static EFFECTIVE: AtomicBool = AtomicBool::new(true);

/// Free slots by class, and pages without a class yet. Addresses, since pointers are not `Send`; all are
/// non-zero. All free slots are zeroed.
struct Arena {
    free: [Vec<usize>; CLASSES],
    fresh: Vec<usize>,
}

/// A piece of locked memory: `start` is valid for `length` initialised bytes until it is dropped.
struct Slot {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a slot owns its bytes alone; shared access only reads.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    fn take(length: usize) -> Self {
        let start = match class_of(length) {
            Some(class) => ARENA.lock().take(class),
            None => map_region(region_size(length)),
        };
        Self { start, length }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant of the type.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: by the invariant of the type; `&mut self` makes the slice unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        match class_of(self.length) {
            Some(class) => ARENA.lock().free[class].push(self.start.as_ptr().expose_provenance()),
            None => unmap_region(self.start, region_size(self.length)),
        }
    }
}

impl Arena {
    fn take(&mut self, class: usize) -> NonNull<u8> {
        if self.free[class].is_empty() {
            let page = self.fresh_page();
            let size = SMALLEST << class;
            self.free[class].extend((0..PAGE / size).rev().map(|i| page + i * size));
        }
        let address = self.free[class].pop();
        let slot = address.and_then(|address| NonNull::new(std::ptr::with_exposed_provenance_mut(address)));
        slot.unwrap_or_else(|| unreachable!("a page was just cut into slots"))
    }

    fn fresh_page(&mut self) -> usize {
        if self.fresh.is_empty() {
            let start = map_region(REGION).as_ptr().expose_provenance();
            self.fresh.extend((0..REGION / PAGE).rev().map(|i| start + i * PAGE));
        }
        self.fresh.pop().unwrap_or_else(|| unreachable!("a region was just cut into pages"))
    }
}

/// The index of the slot size for `length`, or `None` when it needs its own region.
fn class_of(length: usize) -> Option<usize> {
    (0..CLASSES).find(|class| length <= SMALLEST << class)
}

fn region_size(length: usize) -> usize {
    length.next_multiple_of(REGION)
}

/// Maps `size` zero bytes between two guards, locked and out of dumps.
///
/// # Panics
/// When the system has no memory left, like any allocation.
fn map_region(size: usize) -> NonNull<u8> {
    let whole = size + 2 * GUARD;
    // SAFETY: a new private mapping at an address of the kernel's choice changes no existing mapping.
    let mapped =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE) };
    let Ok(base) = mapped else { panic!("no memory for {whole} bytes of keys") };
    let start = base.wrapping_byte_add(GUARD);
    // SAFETY: all within the new mapping, which nothing else refers to yet.
    unsafe {
        let opened = rustix::mm::mprotect(start, size, MprotectFlags::READ | MprotectFlags::WRITE);
        assert!(opened.is_ok(), "no memory for {size} bytes of keys");
        if rustix::mm::mlock(start, size).is_err() {
            EFFECTIVE.store(false, Ordering::Relaxed);
        }
        // Old kernels may lack these advices; the page is usable without them.
        let _ = rustix::mm::madvise(start, size, Advice::LinuxDontDump);
        let _ = rustix::mm::madvise(start, size, Advice::LinuxWipeOnFork);
    }
    NonNull::new(start.cast()).unwrap_or_else(|| unreachable!("a mapping is never at address 0"))
}

/// Unmaps a region of [`map_region`], which also unlocks its pages.
fn unmap_region(start: NonNull<u8>, size: usize) {
    let base = start.as_ptr().wrapping_byte_sub(GUARD).cast();
    // SAFETY: exactly the mapping that `map_region` returned; its one owner is being dropped.
    let _ = unsafe { rustix::mm::munmap(base, size + 2 * GUARD) };
}

#[cfg(test)]
#[path = "locked_tests.rs"]
mod tests;
