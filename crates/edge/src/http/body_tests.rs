//! The memory of bodies, and the conversion of forms and JSON to fields.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::connections::{Connections, Source};

#[test]
fn a_form_becomes_an_object_or_is_refused() {
    let json = |text: &str| {
        let body =
            parse_form(Bytes::copy_from_slice(text.as_bytes()), JsonLimits::default(), &mut authenticated_share());
        body.map(|b| String::from_utf8(b.raw().to_vec()).unwrap()).map_err(|a| a.status.as_u16())
    };
    assert_eq!(json("a=b&c=d+e%21&a=f&x"), Ok("{\"a\":\"b,f\",\"c\":\"d e!\",\"x\":\"\"}".into()));
    assert_eq!(json(""), Ok(String::new()));
    for bad in ["a=b;c=d", "%zz=1", "a=%ff"] {
        assert_eq!(json(bad), Err(400), "{bad}");
    }
}

#[test]
fn sec_ds02_a_form_is_limited_before_it_is_built() {
    let status = |text: &str| bounded_parameters(text.as_bytes()).map(drop).map_err(|a| a.status.as_u16());
    let distinct = |n: usize| (0..n).map(|at| format!("{at}=")).collect::<Vec<_>>().join("&");
    assert_eq!((status(&distinct(10_000)), status(&distinct(10_001))), (Ok(()), Err(400)));
    assert_eq!((status(&vec!["a="; 10_000].join("&")), status(&vec!["a="; 10_001].join("&"))), (Ok(()), Err(400)));
    let long = |n: usize| format!("a={}", "x".repeat(n - 2));
    assert_eq!((status(&long(10 << 20)), status(&long((10 << 20) + 1))), (Ok(()), Err(400)));
}

fn authenticated_share() -> Share {
    BodyMemory::new(64 << 20).share(Sender::Authenticated, place(true).peer())
}

#[test]
fn sec_kf50_an_unauthenticated_form_has_the_limits_of_json() {
    let status = |form: &str, sender: Sender| {
        let mut share = BodyMemory::new(64 << 20).share(sender, place(false).peer());
        let body = parse_form(Bytes::copy_from_slice(form.as_bytes()), JsonLimits::default(), &mut share);
        body.map(drop).map_err(|a| a.status.as_u16())
    };
    let distinct = |n: usize| (0..n).map(|at| format!("{at}=")).collect::<Vec<_>>().join("&");
    assert_eq!(
        (status(&distinct(500), Sender::Unauthenticated), status(&distinct(501), Sender::Unauthenticated)),
        (Ok(()), Err(400))
    );
    assert_eq!(status(&vec!["a=b"; 501].join("&"), Sender::Unauthenticated), Err(400), "before names are compared");
    assert_eq!(status(&distinct(10_000), Sender::Authenticated), Ok(()));
}

#[test]
fn sec_kf50_the_object_of_a_form_is_counted_before_it_is_built() {
    let refused = |form: &str, bytes: usize| {
        let mut share = BodyMemory::new(bytes).share(Sender::Authenticated, place(true).peer());
        parse_form(Bytes::copy_from_slice(form.as_bytes()), JsonLimits::default(), &mut share)
            .is_err_and(|a| a.status == 503)
    };
    let many = vec!["a"; 9_000].join("&");
    let needed = 2 * many.len() + 9_000 * PARAMETER - FREE;
    assert!(refused(&many, needed - 1) && !refused(&many, needed));
    // One byte becomes six.
    let controls = format!("a={}", "\u{1}".repeat(100_000));
    assert!(refused(&controls, 600_000) && !refused(&controls, 700_000));
}

#[test]
fn the_length_of_an_object_is_that_of_its_text() {
    let every: String = (0..=0x7f_u8).map(char::from).collect();
    for text in ["", "ä€😀", every.as_str()] {
        for object in [
            serde_json::Map::from_iter([(text.to_owned(), text.into())]),
            serde_json::Map::from_iter([("a".to_owned(), text.into()), ("b".to_owned(), text.into())]),
        ] {
            let length = json_length(&object);
            assert_eq!(serde_json::Value::Object(object).to_string().len(), length);
        }
    }
}

#[test]
fn sec_kf56_the_fields_of_a_json_object_count_before_they_are_built() {
    let all = Connections::new(1);
    let (memory, place) = (BodyMemory::new(1 << 20), all.admit(Source::default()).unwrap());
    let text = Bytes::from(format!("{{{}}}", (0..900).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",")));
    let mut share = memory.share(Sender::Unauthenticated, place.peer());
    let before = all.held_unauthenticated();
    let body = parse_json(text.clone(), JsonLimits::default(), &mut share).unwrap();
    let held = all.held_unauthenticated() - before;
    assert_eq!((body.fields().count(), held), (900, text.len() + 900 * PARAMETER));
    let refused = parse_json(
        text,
        JsonLimits::default(),
        &mut BodyMemory::new(100_000).share(Sender::Authenticated, place.peer()),
    );
    assert!(refused.is_err_and(|response| response.status == 503));
}

#[test]
fn sec_ds02_bytes_that_are_not_utf8_count_as_their_replacement() {
    let text = || Bytes::from([b"{\"a\":\"".to_vec(), vec![0xff; FREE], b"\"}".to_vec()].concat());
    let body = parse_json(
        text(),
        JsonLimits::default(),
        &mut BodyMemory::new(1 << 20).share(Sender::Authenticated, place(true).peer()),
    )
    .unwrap();
    assert_eq!(body.raw().len(), 3 * FREE + 8);
    let refusal = parse_json(
        text(),
        JsonLimits::default(),
        &mut BodyMemory::new(2 * FREE).share(Sender::Authenticated, place(true).peer()),
    )
    .err()
    .unwrap();
    assert_eq!(refusal.status, 503);
}

fn place(authenticated: bool) -> crate::connections::Place {
    let place = Connections::new(1).admit(Source::default()).unwrap();
    if authenticated {
        place.peer().set_authenticated();
    }
    place
}

#[test]
fn sec_ds02_large_bodies_share_one_budget_and_release_it() {
    let (memory, place) = (BodyMemory::new(1 << 20), place(true));
    let share = || memory.share(Sender::Authenticated, place.peer());
    let (mut a, mut b) = (share(), share());
    assert!(a.reserve(FREE) && a.reserve(FREE + 700_000) && a.reserve(FREE + 700_000));
    assert!(b.reserve(FREE) && !b.reserve(FREE + 700_000));
    drop(a);
    assert!(b.reserve(FREE + 700_000));
    drop(b);
    assert_eq!(memory.left.available_permits(), 1 << 20);
}

#[test]
fn sec_kf09_a_body_has_a_minimum_rate() {
    let time = |length: usize| time_for(length, Duration::from_secs(30)).as_secs();
    assert_eq!([0, 1, 2048, 20 << 10, 50 << 10, 32 << 20].map(time), [5, 5, 6, 15, 30, 30]);
    assert_eq!(time_for(1 << 20, Duration::from_millis(40)), Duration::from_millis(40));
}

#[test]
fn sec_kf09_unauthenticated_bodies_use_no_authenticated_memory() {
    let (memory, authenticated, unauthenticated) = (BodyMemory::new(32 << 20), place(true), place(false));
    // On a connection of a proxy, which is authenticated, they have a part of their own.
    let mut behind: Vec<_> = (0..100).map(|_| memory.share(Sender::Unauthenticated, authenticated.peer())).collect();
    let covered = behind.iter_mut().filter_map(|share| share.reserve(MAX_UNAUTHENTICATED_BODY).then_some(())).count();
    assert_eq!(covered, (1 << 20) / (MAX_UNAUTHENTICATED_BODY - FREE));
    // On an unauthenticated connection all of their memory counts against it.
    let mut alone = memory.share(Sender::Unauthenticated, unauthenticated.peer());
    assert!(alone.reserve(MAX_UNAUTHENTICATED_BODY));
    assert_eq!(memory.left.available_permits(), 32 << 20);
    drop(behind);
    assert_eq!(memory.left_for_unauthenticated.available_permits(), 1 << 20);
}

#[test]
fn sec_kf09_bodies_with_unchecked_tokens_share_bounded_memory() {
    let (memory, place) = (BodyMemory::new(32 << 20), place(true));
    let of = |length: usize| memory.unchecked(Some(length as u64));
    assert!(memory.unchecked(None).is_none() && of(FREE + 1).is_none());
    let mut shares: Vec<_> = std::iter::from_fn(|| of(FREE)).map(|sender| memory.share(sender, place.peer())).collect();
    assert_eq!(shares.len(), (1 << 20) / FREE);
    assert!(shares.iter_mut().all(|share| share.reserve(FREE)));
    assert_eq!(memory.left.available_permits(), 32 << 20);
    // From here the token decides, except for very small bodies.
    assert!(of(MAX_UNCHECKED + 1).is_none() && of(MAX_UNCHECKED).is_some());
    drop(shares);
    assert_eq!(memory.left_for_unauthenticated.available_permits(), 1 << 20);
}

/// 3.6 KB of JSON whose 900 fields use more than the free memory.
fn many_fields() -> Bytes {
    format!("{{{}}}", (0..900).map(|n| format!("\"{n:x}\":1")).collect::<Vec<_>>().join(",")).into()
}

#[test]
fn sec_kf56_fields_with_an_unchecked_token_use_no_authenticated_memory() {
    let (memory, place, text) = (BodyMemory::new(32 << 20), place(true), many_fields());
    for length in [MAX_UNCHECKED, FREE] {
        let mut share = memory.share(memory.unchecked(Some(length as u64)).unwrap(), place.peer());
        parse_json(text.clone(), JsonLimits::default(), &mut share).unwrap();
        let used = text.len() + 900 * PARAMETER - FREE + if length == FREE { FREE } else { 0 };
        assert_eq!(memory.left.available_permits(), 32 << 20, "{length}");
        assert_eq!(memory.left_for_unauthenticated.available_permits(), (1 << 20) - used, "{length}");
    }
    assert_eq!(memory.left_for_unauthenticated.available_permits(), 1 << 20);
}

#[tokio::test]
async fn sec_kf56_a_live_token_keeps_its_memory_when_the_other_part_is_used() {
    let (memory, place) = (BodyMemory::new(32 << 20), place(true));
    let unchecked = || memory.share(memory.unchecked(Some(MAX_UNCHECKED as u64)).unwrap(), place.peer());
    let parsed = |share, live| parse(parse_json, many_fields(), JsonLimits::default(), share, async move { live });
    let mut full = memory.share(Sender::Unauthenticated, place.peer());
    assert!(full.reserve(FREE + (1 << 20)));
    assert_eq!(parsed(unchecked(), false).await.err().unwrap().status, 503);
    let (body, share) = parsed(unchecked(), true).await.unwrap();
    assert_eq!(body.fields().count(), 900);
    assert_eq!(memory.left.available_permits(), (32 << 20) - (many_fields().len() + 900 * PARAMETER - FREE));
    drop((share, full));
    assert_eq!(memory.left.available_permits(), 32 << 20);
    assert_eq!(memory.left_for_unauthenticated.available_permits(), 1 << 20);
}
