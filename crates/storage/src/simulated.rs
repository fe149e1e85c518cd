//! What the simulation of nodes ([`sim`](crate::sim)) replaces in the code of a node while it runs on a thread: clocks,
//! chance, threads for work that blocks, the size of what followers may need, and what a planted bug leaves out.
//!
//! It exists in tests and in the feature `suite` only. Elsewhere each function returns a constant.

/// Whether the simulation has planted this bug.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(any(test, feature = "suite"))]
        {
            $crate::simulated::plants($crate::sim::Bug::$bug)
        }
        #[cfg(not(any(test, feature = "suite")))]
        {
            false
        }
    }};
}

/// The clocks of a simulated node.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    /// The time since the start of the machine, in microseconds.
    pub(crate) now: u64,
    /// The wall clock minus the other one, in microseconds.
    pub(crate) offset: i64,
}

#[cfg(any(test, feature = "suite"))]
pub(crate) use self::replaced::{Setting, below, clocks, is_on, plants, seed, set, uuid, window};

#[cfg(any(test, feature = "suite"))]
mod replaced {
    use std::cell::{Cell, RefCell};

    use keepfast_consensus::{Chance, sim::Rng};

    use super::Clocks;
    use crate::sim::Bug;

    /// What holds for the node that runs.
    #[derive(Clone, Copy)]
    pub(crate) struct Setting {
        pub(crate) clocks: Clocks,
        pub(crate) window: u64,
        pub(crate) planted: Option<Bug>,
    }

    thread_local! {
        static SETTING: Cell<Option<Setting>> = const { Cell::new(None) };
        static CHANCE: RefCell<Rng> = RefCell::new(Rng::new(0));
    }

    /// Sets what holds on this thread; `None` ends the simulation.
    pub(crate) fn set(setting: Option<Setting>) {
        SETTING.set(setting);
    }

    /// Seeds the chance of all nodes.
    pub(crate) fn seed(seed: u64) {
        CHANCE.replace(Rng::new(seed));
    }

    pub(crate) fn is_on() -> bool {
        SETTING.get().is_some()
    }

    pub(crate) fn clocks() -> Option<Clocks> {
        SETTING.get().map(|setting| setting.clocks)
    }

    pub(crate) fn below(bound: u64) -> Option<u64> {
        is_on().then(|| CHANCE.with_borrow_mut(|rng| rng.below(bound)))
    }

    /// A name of a directory. A random one would have files of other lengths in each run.
    pub(crate) fn uuid() -> Option<String> {
        let digits = below(1 << 48)?;
        Some(format!("00000000-0000-4000-8000-{digits:012x}"))
    }

    pub(crate) fn window() -> Option<u64> {
        SETTING.get().map(|setting| setting.window)
    }

    pub(crate) fn plants(bug: Bug) -> bool {
        SETTING.get().is_some_and(|setting| setting.planted == Some(bug))
    }
}

#[cfg(not(any(test, feature = "suite")))]
pub(crate) use self::real::{below, clocks, is_on, uuid, window};

#[cfg(not(any(test, feature = "suite")))]
mod real {
    use super::Clocks;

    pub(crate) const fn is_on() -> bool {
        false
    }

    pub(crate) const fn clocks() -> Option<Clocks> {
        None
    }

    pub(crate) const fn below(_: u64) -> Option<u64> {
        None
    }

    pub(crate) const fn uuid() -> Option<String> {
        None
    }

    pub(crate) const fn window() -> Option<u64> {
        None
    }
}
