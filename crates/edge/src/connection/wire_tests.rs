//! Ambiguous heads and floods of frames, in every division into reads.

use proptest::prelude::*;

use super::*;

/// The verdict on all of these bytes.
fn verdict(wire: &mut Wire, bytes: &[u8], ticks: u32) -> Verdict {
    wire.received(bytes, ticks, u32::MAX).0
}

/// Whether all bytes pass in reads of this size.
fn passes(bytes: &[u8], size: usize) -> bool {
    let mut wire = Wire::default();
    bytes.chunks(size).all(|part| verdict(&mut wire, part, 0) == Verdict::Pass)
}

const HOST: &str = "Host: x\r\n";

fn requests(parts: &[&str]) -> Vec<u8> {
    parts.concat().replace("{HOST}", HOST).into_bytes()
}

#[test]
fn sec_kf15_heads_with_two_readings_are_refused() {
    let bare = "GET /v1/a HTTP/1.1\r\n{HOST}\r\n";
    for malformed in [
        "GET /v1/a HTTP/1.1\n{HOST}\r\n",
        "GET /v1/a HTTP/1.1\r\nHost: x\n\r\n",
        "GET /v1/a HTTP/1.1\r\n{HOST}\n",
        "GET /v1/a HTTP/1.1\r\n{HOST}X-A: 1\r\n folded\r\n\r\n",
        "GET /v1/a HTTP/1.1\r\n\tfolded: x\r\n{HOST}\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length: 1, 1\r\n\r\nx",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length: +1\r\n\r\nx",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length:\r\n\r\nx",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1g\r\nx\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n",
    ] {
        // Also after other requests in the same read.
        let chunked = "POST /v1/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n2;x=\n".replace('\n', "\r\n");
        let chunked = chunked.replace("\r\r\n", "\r\n") + "\n\n\r\n0\r\n\r\n";
        let length = "PUT /v1/a HTTP/1.1\r\n{HOST}content-length: 3\r\n\r\n\n\n\n";
        for before in [&[][..], &[bare], &[length, bare], &[chunked.as_str()]] {
            let good = requests(before);
            let whole = requests(&[before, &[malformed]].concat());
            for size in [1, 2, 7, usize::MAX] {
                assert!(passes(&good, size), "{before:?}");
                assert!(!passes(&whole, size), "{malformed:?} behind {before:?} in reads of {size}");
            }
        }
    }
}

#[test]
fn bodies_and_ordinary_heads_pass() {
    for good in [
        "\r\nGET /v1/a HTTP/1.1\r\n{HOST}\r\n",
        "PRI * HTTP/1.1\r\n{HOST}\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}Content-Length:  5 \r\n\r\na\nb\n\nGET / HTTP/1.1\r\n{HOST}\r\n",
        "POST /v1/a HTTP/1.1\r\n{HOST}TRANSFER-ENCODING: Chunked\r\n\r\nA ;x\r\n0123\n56789\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET /v1/a HTTP/1.1\r\nContent-Length-X: a\r\n{HOST}\r\n",
    ] {
        for size in [1, 3, usize::MAX] {
            assert!(passes(&requests(&[good]), size), "{good:?} in reads of {size}");
        }
    }
}

#[test]
fn the_length_of_a_head_is_known_until_it_is_complete() {
    let mut wire = Wire::default();
    verdict(&mut wire, b"GET / HTTP/1.1\r\nX: ", 0);
    assert_eq!(wire.pending_head(), 19);
    verdict(&mut wire, b"1\r\n\r\n", 0);
    assert_eq!(wire.pending_head(), 0);
}

#[test]
fn a_read_is_short_or_the_rest_of_a_body() {
    let mut wire = Wire::default();
    assert_eq!((wire.longest_read(), wire.requests()), (READ, 0));
    verdict(&mut wire, b"POST / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n12", 0);
    assert_eq!((wire.longest_read(), wire.requests()), (8998, 1));
    verdict(&mut wire, &[b'x'; 8998], 0);
    verdict(&mut wire, b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", 0);
    assert_eq!((wire.longest_read(), wire.requests()), (READ, 2));
    let mut wire = Wire::default();
    verdict(&mut wire, PREFACE, 0);
    verdict(&mut wire, &[frame(1, 5, 30), frame(1, 5, 30), frame(0, 0, 9000)[..100].to_vec()].concat(), 0);
    assert_eq!((wire.longest_read(), wire.requests()), (9000 - 91, 2));
}

/// How many bytes each call checks of the rest, with `most` requests per call and reads of `size` bytes.
fn cuts(bytes: &[u8], most: u32, size: usize) -> Vec<usize> {
    let (mut wire, mut left, mut cuts) = (Wire::default(), bytes, Vec::new());
    while !left.is_empty() {
        let (verdict, checked) = wire.received(&left[..left.len().min(size)], 0, most);
        assert!(verdict == Verdict::Pass && checked > 0);
        cuts.push(checked);
        left = &left[checked..];
    }
    cuts
}

#[test]
fn a_turn_ends_behind_a_request_and_its_body() {
    let get = "GET / HTTP/1.1\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let whole = [get, post, chunked, get].concat();
    assert_eq!(cuts(whole.as_bytes(), 1, 1000), [get.len(), post.len(), chunked.len(), get.len()]);
    assert_eq!(cuts(whole.as_bytes(), 2, 1000), [get.len() + post.len(), chunked.len() + get.len()]);
    assert_eq!(cuts(whole.as_bytes(), u32::MAX, 1000), [whole.len()]);
    let started = format!("{get}GET / HT");
    assert_eq!(cuts(started.as_bytes(), 1, 1000), [get.len(), 8]);
    let (request, ping) = (frame(1, 5, 30), frame(6, 0, 8));
    let whole = [&PREFACE[..], &request, &ping, &request, &request].concat();
    let (first, one) = (24 + request.len(), request.len());
    assert_eq!(cuts(&whole, 1, 1000), [first, ping.len() + one, one]);
    assert_eq!(cuts(&whole, 2, 1000), [first + ping.len() + one, one]);
}

fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    let length = (payload as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.resize(9 + payload, 0xff);
    frame
}

/// How many copies of these frames pass before the connection is closed, of at most 100,000.
fn taken(frames: &[u8], size: usize, ticks: impl Fn(usize) -> u32) -> usize {
    let mut wire = Wire::default();
    verdict(&mut wire, PREFACE, 0);
    (0..100_000)
        .find(|n| frames.chunks(size).any(|part| verdict(&mut wire, part, ticks(*n)) == Verdict::Flood))
        .unwrap_or(100_000)
}

#[test]
fn sec_kf03_floods_of_frames_without_a_request_are_cut_off() {
    for (kind, flags, payload) in
        [(2, 0, 5), (4, 0, 0), (4, 1, 0), (6, 0, 8), (8, 0, 4), (0, 0, 0), (9, 0, 0), (0xbe, 0, 300)]
    {
        for size in [1, 5, 4096] {
            assert_eq!(taken(&frame(kind, flags, payload), size, |_| 0), 1000, "{kind}");
        }
        // Time returns some credit.
        assert!(taken(&frame(kind, flags, payload), 4096, |n| n as u32 / 2000) < 2000, "{kind}");
    }
}

#[test]
fn sec_kf03_requests_that_are_reset_are_cut_off() {
    let reset = [frame(1, 5, 30), frame(3, 0, 4)].concat();
    for size in [1, 5, 4096] {
        assert_eq!(taken(&frame(3, 0, 4), size, |_| 0), 90);
        assert_eq!(taken(&reset, size, |_| 0), 1000);
    }
    // A single reset among answered requests is no flood.
    let some = [frame(1, 5, 30), frame(1, 5, 30), reset].concat();
    assert_eq!(taken(&some, 4096, |_| 0), 100_000);
}

/// A header block with `count` fields: in a frame with and without padding and priority, and in CONTINUATION.
fn lists(count: usize) -> [Vec<u8>; 3] {
    let plain = |kind: u8, flags: u8, payload: &[u8]| {
        let mut whole = frame(kind, flags, payload.len());
        whole.truncate(9);
        [&whole[..], payload].concat()
    };
    let block = vec![0xbe; count];
    let padded = [&[3, 0, 0, 0, 0, 16][..], &block, &[0xbe; 3]].concat();
    let (first, second) = block.split_at(count / 2);
    [plain(1, 4, &block), plain(1, 4 | 8 | 32, &padded), [plain(1, 0, first), plain(9, 4, second)].concat()]
}

#[test]
fn sec_kf03_header_lists_of_very_many_fields_are_cut_off() {
    for size in [1, 5, 4096] {
        assert!(lists(80).iter().all(|list| taken(list, size, |_| 0) > 100));
        assert!(lists(1900).iter().all(|list| taken(list, size, |_| 0) == 0));
        assert!(lists(74).iter().all(|list| taken(list, size.max(100), |_| 0) == 100_000));
    }
}

#[test]
fn frames_of_requests_and_of_data_are_never_cut_off() {
    let request = [frame(1, 4, 30), frame(0, 0, 100), frame(0, 1, 0), frame(8, 0, 4), frame(2, 0, 5)].concat();
    assert_eq!(taken(&request, 4096, |_| 0), 100_000);
    // A client that reads a large response opens its window often.
    let mut wire = Wire::default();
    verdict(&mut wire, PREFACE, 0);
    for _ in 0..20_000 {
        wire.sent(4096);
        assert_eq!(verdict(&mut wire, &[frame(8, 0, 4), frame(8, 0, 4)].concat(), 0), Verdict::Pass);
    }
}

proptest! {
    #[test]
    fn the_division_into_reads_does_not_matter(
        body in proptest::collection::vec(any::<u8>(), 0..40),
        tail in "(GET / HTTP/1.1\r?\n(A: b\r?\n)?\r?\n)?",
        size in 1usize..50,
    ) {
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), &body, tail.as_bytes()].concat();
        let bare = tail.replace("\r\n", "").contains('\n');
        prop_assert_eq!(passes(&whole, size), !bare);
    }
}
