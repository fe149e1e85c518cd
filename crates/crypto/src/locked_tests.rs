//! Tests of locked memory: disjoint slots, wiping, shared pages.

use super::*;
use proptest::prelude::*;

#[test]
fn holds_its_bytes() {
    let mut key = Key256::new([7; 32]);
    assert_eq!(key.expose(), &[7; 32]);
    let copy = key.clone();
    key.expose_mut()[0] = 1;
    assert_eq!(copy.expose(), &[7; 32]);
    assert_eq!(Key256::zeroed().expose(), &[0; 32]);
    assert!(Key256::from_slice(&[0; 31]).is_none());
    assert_eq!(Key256::from_slice(&[9; 32]).unwrap().expose(), &[9; 32]);
    assert_eq!(Locked::<0>::zeroed().expose(), &[0; 0]);
}

#[test]
fn is_wiped_when_dropped() {
    // Whatever other tests do at the same time, a slot of this rare size must come back zeroed.
    for _ in 0..200 {
        let mut slot = LockedBytes::zeroed(1000);
        assert!(slot.expose().iter().all(|byte| *byte == 0));
        slot.expose_mut().fill(0xee);
    }
    for _ in 0..3 {
        let mut large = LockedBytes::zeroed(200_000);
        assert!(large.expose().iter().all(|byte| *byte == 0));
        large.expose_mut().fill(0xee);
    }
}

#[test]
fn many_keys_share_pages() {
    // 8 MiB is the usual limit: with a page each, 3,000 keys would not fit.
    let keys: Vec<Key256> = (0..3_000_u32)
        .map(|i| {
            let mut key = Key256::zeroed();
            key.expose_mut()[..4].copy_from_slice(&i.to_le_bytes());
            key
        })
        .collect();
    assert!(keys.iter().zip(0_u32..).all(|(key, i)| key.expose()[..4] == i.to_le_bytes()));
    assert!(is_effective(), "the limit on locked memory is below 8 MiB");
}

/// The lines of the process's memory map that describe the mapping of `address`.
fn described(address: usize) -> String {
    let map = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = String::new();
    let mut inside = false;
    for line in map.lines() {
        if let Some((from, to)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-'))
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        }
        if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

#[test]
fn pages_are_locked_undumpable_and_fenced() {
    let key = LockedBytes::zeroed(REGION);
    let start = key.expose().as_ptr().addr();
    let own = described(start);
    let flags = own.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
    for flag in [" lo", " dd", " wf"] {
        assert!(flags.contains(flag), "{flag} is not in {flags}");
    }
    assert!(described(start - 1).contains("---p"));
    assert!(described(start + REGION).contains("---p"));
}

proptest! {
    #[test]
    fn slots_never_overlap(sizes in prop::collection::vec(0_usize..9000, 1..60), drops in any::<u64>()) {
        let mut held: Vec<(u8, LockedBytes)> = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            let mark = u8::try_from(i + 1).unwrap();
            let mut bytes = LockedBytes::zeroed(size);
            prop_assert!(bytes.expose().iter().all(|byte| *byte == 0));
            bytes.expose_mut().fill(mark);
            held.push((mark, bytes));
            if drops >> (i % 64) & 1 == 1 {
                held.swap_remove(i % held.len());
            }
            for (mark, bytes) in &held {
                prop_assert!(bytes.expose().iter().all(|byte| byte == mark));
            }
        }
    }
}
