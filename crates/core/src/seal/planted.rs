//! Planted bugs of the seals: each leaves one obligation out, and a model or a rule has to find it. They exist in tests
//! only; elsewhere `planted!` is the constant `false`.

/// Whether the test of this thread has planted a bug.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        {
            $crate::seal::planted::is_planted($crate::seal::planted::Bug::$bug)
        }
        #[cfg(not(test))]
        {
            false
        }
    }};
}

pub(crate) use planted;

#[cfg(test)]
pub(crate) use of_tests::{Bug, is_planted, plant};

#[cfg(test)]
mod of_tests {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$text:meta])* $bug:ident,)*) => {
            /// A bug that a test plants.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(crate) enum Bug {
                $($(#[$text])* $bug,)*
            }

            impl Bug {
                /// Every bug.
                pub(crate) const ALL: &[Bug] = &[$(Bug::$bug),*];
            }
        };
    }

    bugs! {
        /// A wrapped KEK is not unwrapped again.
        ReadBackSkipped,
        /// The HMAC of the record is not checked.
        MacIgnored,
        /// The escrow of a slot is bound to something else.
        EscrowMisbound,
        /// A new root key leaves the first slot as it was.
        OldBlobKept,
        /// A new root key has the generation of the one before.
        GenerationKept,
        /// The id of a slot is used again.
        SlotIdReused,
        /// What alone opens the root key is removed.
        LastSlotRemoved,
        /// A seal gets a second slot.
        SealEnrolledTwice,
        /// An order without some seals is accepted.
        PartOfTheOrder,
        /// A new KEK of a slot leaves its root key under the old one.
        OldKekKept,
        /// A new KEK counts as old as the one before.
        KekGenerationKept,
        /// The slot of the former shares stays.
        OldSharesKept,
        /// New shares replace others than those that have authorized them.
        StaleSharesReplaced,
        /// Any shares turn break-glass on.
        BreakGlassByAnyShares,
        /// The slot of the shares stays when break-glass is turned off.
        BreakGlassSlotKept,
        /// Recovery shares open although break-glass is off.
        BreakGlassIgnored,
        /// A migration needs no quorum.
        MigrationByAnyShares,
        /// The seals before a migration keep their slots.
        SourceKeptByMigration,
        /// A seal unseals although a migration from it is pending.
        PendingMigrationIgnored,
        /// A seal that is disabled in the configuration wraps.
        DisabledSealWraps,
        /// A standby renews slots.
        StandbyHeals,
        /// A seal that unwraps another key than that of its slot counts as healthy.
        OtherKeyHealthy,
        /// No seal is tried beside one that hangs.
        NoHedge,
        /// A round ends at its first failure.
        RoundEndsAtFailure,
        /// The pause between rounds has no bound.
        PauseWithoutBound,
        /// Seals that refuse are tried again at once.
        RefusalsRepeatedAtOnce,
        /// The pause that a service demands does not count.
        DemandIgnored,
    }

    thread_local!(static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Plants a bug in this thread until the guard is dropped.
    pub(crate) fn plant(bug: Bug) -> impl Drop {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        PLANTED.set(Some(bug));
        Guard
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
