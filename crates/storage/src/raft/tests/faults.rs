//! Disks that fail under members.
