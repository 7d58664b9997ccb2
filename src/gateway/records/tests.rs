//! The record layer as a web server sees it: what was sent, what came back.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::wire::*;
use super::*;

const NO_FLAGS: &[u8] = b"\0\x01\0\0\0\0\0\0";
const KEEP: &[u8] = b"\0\x01\x01\0\0\0\0\0";

const END_COMPLETE: &str = "END id=1 app=0 status=0";

fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_record(&mut out, kind, id, content);
    out
}

/// A pair with four-byte lengths.
fn long_pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u32 | 0x8000_0000).to_be_bytes();
    [&length(name)[..], &length(value), name, value].concat()
}

/// A whole request with FCGI_KEEP_CONN.
fn request(id: u16, params: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = record(BEGIN_REQUEST, id, KEEP);
    for (kind, stream) in [(PARAMS, params), (STDIN, body)] {
        stream.chunks(MAX_CONTENT_BYTES).for_each(|content| out.extend(record(kind, id, content)));
        out.extend(record(kind, id, b""));
    }
    out
}

fn connection() -> Connection {
    Connection::new(2048, Instant::now())
}

/// What came back, one line each: events, then records.
fn show(received: &Received) -> Vec<String> {
    let mut lines: Vec<String> = received.events.iter().map(show_event).collect();
    let mut rest = &received.send[..];
    while let Some(header) = rest.first_chunk().map(Header::parse) {
        lines.push(show_record(header, &rest[HEADER_LEN..][..header.content_len]));
        rest = &rest[header.record_len()..];
    }
    lines
}

fn show_event(event: &Event) -> String {
    match event {
        Event::Request { id, request } => {
            // Of a repeated name the last value is left.
            let vars: BTreeMap<_, _> = request.vars.iter().collect();
            let vars: Vec<String> =
                vars.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect();
            let excess = request.excess.map(|excess| format!(" excess={excess:?}")).unwrap_or_default();
            format!("REQUEST id={id} [{}] body={}{excess}", vars.join(" "), request.body.escape_ascii())
        }
        Event::Aborted { id } => format!("ABORTED id={id}"),
        Event::Broken(violation) => format!("BROKEN {violation:?}"),
    }
}

fn show_record(header: Header, content: &[u8]) -> String {
    let id = header.id;
    match (header.kind, content) {
        (END_REQUEST, [a, b, c, d, status, 0, 0, 0]) => {
            format!("END id={id} app={} status={status}", u32::from_be_bytes([*a, *b, *c, *d]))
        }
        (UNKNOWN_TYPE, [kind, 0, 0, 0, 0, 0, 0, 0]) if id == 0 => format!("UNKNOWN_TYPE {kind}"),
        (GET_VALUES_RESULT, content) if id == 0 => format!("VALUES {}", content.escape_ascii()),
        (kind, content) => format!("kind={kind} id={id} {}", content.escape_ascii()),
    }
}

/// One conversation: some bytes to a fresh connection, and all that came back.
#[track_caller]
fn check(sent: &[&[u8]], expected: &[&str]) {
    assert_eq!(show(&connection().receive(&sent.concat(), Instant::now())), expected);
}

#[test]
fn a_request_is_complete_when_both_streams_have_ended() {
    let begin = record(BEGIN_REQUEST, 1, NO_FLAGS);
    let params = record(PARAMS, 1, b"\x01\x01Av\x02\0BC");
    let (params_end, stdin, stdin_end) = (record(PARAMS, 1, b""), record(STDIN, 1, b"body"), record(STDIN, 1, b""));
    let whole = "REQUEST id=1 [A=v BC=] body=body";
    check(&[&begin, &params, &params_end, &stdin], &[]);
    check(&[&begin, &params, &params_end, &stdin, &stdin_end], &[whole]);
    check(&[&begin, &params, &stdin, &stdin_end], &[]);
    check(&[&begin, &stdin, &stdin_end, &params, &params_end], &[whole]);
    check(&[&begin, &params_end, &stdin_end], &["REQUEST id=1 [] body="]);
}

#[test]
fn everything_is_the_same_cut_at_every_byte_and_byte_by_byte() {
    let conversation = [
        record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS"),
        record(BEGIN_REQUEST, 1, KEEP),
        record(BEGIN_REQUEST, 2, KEEP),
        record(PARAMS, 1, b"\x01\x01Av"),
        record(PARAMS, 2, &long_pair(b"LONG", &[b'v'; 130])),
        record(77, 0, b"x"),
        record(PARAMS, 1, b""),
        record(PARAMS, 2, b""),
        record(STDIN, 2, b"two"),
        record(STDIN, 1, b""),
        record(STDIN, 2, b""),
        record(ABORT_REQUEST, 2, b""),
        record(BEGIN_REQUEST, 3, b"\0\x02\0\0\0\0\0\0"),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ]
    .concat();
    let now = Instant::now();
    let whole = connection().receive(&conversation, now);
    assert_eq!(whole.events.len(), 4, "{:?}", show(&whole));

    for cut in 0..=conversation.len() {
        let mut connection = connection();
        let mut both = connection.receive(&conversation[..cut], now);
        let rest = connection.receive(&conversation[cut..], now);
        both.events.extend(rest.events);
        both.send.extend(rest.send);
        assert_eq!(show(&both), show(&whole), "cut at {cut}");
    }
    let mut slowly = Received::default();
    let mut connection = connection();
    for byte in &conversation {
        let more = connection.receive(&[*byte], now);
        slowly.events.extend(more.events);
        slowly.send.extend(more.send);
    }
    assert_eq!(show(&slowly), show(&whole));
}

#[test]
fn interleaved_requests_are_kept_apart() {
    let params = |id: u16, content: &[u8]| record(PARAMS, id, content);
    check(
        &[
            &record(BEGIN_REQUEST, 1, KEEP),
            &record(BEGIN_REQUEST, 0xffff, KEEP),
            &params(1, b"\x01\x01"),
            &params(0xffff, b"\x01\x05B"),
            &params(1, b"A1"),
            &params(0xffff, b"other"),
            &record(STDIN, 0xffff, b"other body"),
            &params(0xffff, b""),
            &record(STDIN, 0xffff, b""),
            &params(1, b""),
            &record(STDIN, 1, b""),
        ],
        &["REQUEST id=65535 [B=other] body=other body", "REQUEST id=1 [A=1] body="],
    );
}

#[test]
fn a_pair_may_straddle_records_at_every_byte() {
    let pairs = [b"\x01\x01Av".to_vec(), long_pair(b"NAME", b"value"), b"\x01\x01Bw".to_vec()].concat();
    for cut in 1..pairs.len() {
        check(
            &[
                &record(BEGIN_REQUEST, 1, KEEP),
                &record(PARAMS, 1, &pairs[..cut]),
                &record(PARAMS, 1, &pairs[cut..]),
                &record(PARAMS, 1, b""),
                &record(STDIN, 1, b""),
            ],
            &["REQUEST id=1 [A=v B=w NAME=value] body="],
        );
    }
}

#[test]
fn a_stream_that_ends_inside_a_pair_breaks_the_connection() {
    let whole = [b"\x01\x01Av".to_vec(), long_pair(b"NAME", b"value")].concat();
    for end in (1..whole.len()).filter(|end| *end != 4) {
        check(&[&request(1, &whole[..end], b"")], &["BROKEN CutOffPair(1)"]);
    }
    check(&[&request(1, b"\xff\xff\xff\xff\xff\xff\xff\xffA", b"")], &["BROKEN CutOffPair(1)"]);
}

#[test]
fn values_stay_bytes_and_a_header_that_is_not_utf8_loses_nothing_else() {
    let pairs = b"\x0c\x05QUERY_STRINGjid=a\x0b\x03HTTP_X_JUNK\xff\xfe\0\x02\x01\xc3\x28x\0\x01?\x01\x01Av";
    check(
        &[&request(1, pairs, b"\xff")],
        &["REQUEST id=1 [A=v HTTP_X_JUNK=\\xff\\xfe\\x00 QUERY_STRING=jid=a] body=\\xff"],
    );
}

#[test]
fn the_last_of_a_repeated_variable_counts() {
    check(&[&request(1, b"\x01\x01A1\x01\x01B2\x01\x01A3", b"")], &["REQUEST id=1 [A=3 B=2] body="]);
}

#[test]
fn params_limit_counts_on_both_sides() {
    let fitting = |size: usize| long_pair(b"NAME", &vec![b'v'; size - 12]);
    let mut within = connection();
    let received = within.receive(&request(1, &fitting(MAX_PARAMS_BYTES), b"body"), Instant::now());
    let [Event::Request { request: whole, .. }] = &received.events[..] else { panic!("{received:?}") };
    assert_eq!((whole.vars.get("NAME").map(<[u8]>::len), whole.excess), (Some(MAX_PARAMS_BYTES - 12), None));

    check(&[&request(1, &fitting(MAX_PARAMS_BYTES + 1), b"body")], &["REQUEST id=1 [] body= excess=Params"]);
}

#[test]
fn body_limit_counts_on_both_sides() {
    let body = vec![b'b'; MAX_BODY_BYTES + 1];
    let received = connection().receive(&request(1, b"\x01\x01Av", &body[1..]), Instant::now());
    let [Event::Request { request: whole, .. }] = &received.events[..] else { panic!("{received:?}") };
    assert_eq!((whole.body.len(), whole.excess), (MAX_BODY_BYTES, None));

    let post = b"\x0e\x04REQUEST_METHODPOST";
    check(&[&request(1, post, &body)], &["REQUEST id=1 [REQUEST_METHOD=POST] body= excess=Body"]);
    check(&[&request(1, b"\x01\x01Av", &body)], &["REQUEST id=1 [A=v] body="]);
    check(&[&request(1, &vec![0; MAX_PARAMS_BYTES + 2], &body)], &["REQUEST id=1 [] body= excess=Params"]);
}

#[test]
fn a_body_shorter_than_its_content_length_is_no_body() {
    for (length, body) in [("4", "jid="), ("5", ""), ("0", "jid="), ("3", "jid="), ("", "jid="), ("five", "jid=")] {
        let params = [&[14, length.len() as u8], &b"CONTENT_LENGTH"[..], length.as_bytes()].concat();
        let expected = format!("REQUEST id=1 [CONTENT_LENGTH={length}] body={body}");
        check(&[&request(1, &params, b"jid=")], &[&expected]);
    }
}

#[test]
fn a_hundred_thousand_parameters_do_not_grow_memory() {
    let now = Instant::now();
    let mut connection = connection();
    connection.receive(&record(BEGIN_REQUEST, 1, KEEP), now);
    let mut most = 0;
    for group in 0..1000 {
        let pairs: String = (0..100).map(|i| format!("\x0b\x05NAME_{:06}value", group * 100 + i)).collect();
        connection.receive(&record(PARAMS, 1, pairs.as_bytes()), now);
        most = most.max(connection.stored_bytes());
    }
    assert!(most <= 2 * MAX_PARAMS_BYTES + IDLE_RECORD_BYTES, "{most} bytes were stored");
    assert!(connection.stored_bytes() <= IDLE_RECORD_BYTES, "what was stored is freed");
    let ends = [record(PARAMS, 1, b""), record(STDIN, 1, b"")].concat();
    assert_eq!(show(&connection.receive(&ends, now)), ["REQUEST id=1 [] body= excess=Params"]);
}

#[test]
fn get_values_is_answered_and_other_management_records_are_named_unknown() {
    check(
        &[&record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x03\0FOO")],
        &[r"VALUES \x0e\x04FCGI_MAX_CONNS2048\r\x06FCGI_MAX_REQS131072\x0f\x01FCGI_MPXS_CONNS1"],
    );
    for kind in [0, BEGIN_REQUEST, PARAMS, GET_VALUES_RESULT, UNKNOWN_TYPE, 12, 255] {
        check(&[&record(kind, 0, KEEP)], &[&format!("UNKNOWN_TYPE {kind}")]);
    }
}

#[test]
fn records_of_inactive_ids_are_passed_over() {
    let mut stray = Vec::new();
    for kind in (0..=255).filter(|kind| *kind != BEGIN_REQUEST) {
        stray.extend(record(kind, 9, b"\x01\x01Av"));
        stray.extend(record(kind, 9, b""));
    }
    check(&[&stray, &request(1, b"", b""), &stray], &["REQUEST id=1 [] body="]);
}

#[test]
fn records_without_a_meaning_for_an_active_request_are_passed_over() {
    let begin = record(BEGIN_REQUEST, 1, KEEP);
    let rest = &request(1, b"\x01\x01Av", b"")[begin.len()..];
    let kinds = (0..=255).filter(|kind| ![BEGIN_REQUEST, ABORT_REQUEST, PARAMS, STDIN].contains(kind));
    let stray: Vec<u8> = kinds.flat_map(|kind| record(kind, 1, b"\x01\x01Bw")).collect();
    check(&[&begin, &stray, rest], &["REQUEST id=1 [A=v] body="]);
}

#[test]
fn a_doubled_end_of_stdin_is_no_second_request() {
    let again = [record(STDIN, 1, b""), record(PARAMS, 1, b"\x01\x01Bw"), record(PARAMS, 1, b"")].concat();
    check(&[&request(1, b"\x01\x01Av", b""), &again, &record(STDIN, 1, b"")], &["REQUEST id=1 [A=v] body="]);
}

#[test]
fn what_follows_the_end_of_a_stream_does_not_count() {
    check(
        &[
            &record(BEGIN_REQUEST, 1, KEEP),
            &record(PARAMS, 1, b"\x01\x01Av"),
            &record(PARAMS, 1, b""),
            &record(PARAMS, 1, b"\x01\x01Bw"),
            &record(STDIN, 1, b""),
        ],
        &["REQUEST id=1 [A=v] body="],
    );
}

#[test]
fn only_responders_are_played() {
    for role in [0u16, 2, 3, 0x0101, 0xffff] {
        let begin = [&role.to_be_bytes()[..], &[KEEP_CONN, 0, 0, 0, 0, 0]].concat();
        let rest = [record(PARAMS, 1, b"\x01"), record(PARAMS, 1, b""), record(STDIN, 1, b"")].concat();
        check(&[&record(BEGIN_REQUEST, 1, &begin), &rest], &["END id=1 app=0 status=3"]);
    }
}

#[test]
fn one_request_over_the_limit_is_refused_and_the_others_live() {
    let mut connection = connection();
    let begins: Vec<u8> = (1..=MAX_REQUESTS as u16).flat_map(|id| record(BEGIN_REQUEST, id, KEEP)).collect();
    assert_eq!(show(&connection.receive(&begins, Instant::now())), [""; 0]);
    let one_more = request(999, b"", b"");
    assert_eq!(show(&connection.receive(&one_more, Instant::now())), ["END id=999 app=0 status=2"]);

    let rest = &request(1, b"", b"")[16..];
    assert_eq!(show(&connection.receive(rest, Instant::now())), ["REQUEST id=1 [] body="]);
    assert!(connection.respond(1, b"").is_some());
    assert_eq!(show(&connection.receive(&one_more, Instant::now())), ["REQUEST id=999 [] body="]);
}

#[test]
fn an_abort_is_answered_at_once_whatever_has_come() {
    let whole = request(1, b"\x01\x01Av", b"b");
    let abort = record(ABORT_REQUEST, 1, b"");
    check(&[&whole[..16], &abort, &whole[16..]], &["ABORTED id=1", END_COMPLETE]);
    check(&[&whole, &abort, &abort], &["REQUEST id=1 [A=v] body=b", "ABORTED id=1", END_COMPLETE]);
    check(&[&abort], &[]);

    let mut connection = connection();
    connection.receive(&[whole, abort].concat(), Instant::now());
    assert_eq!(connection.respond(1, b"too late"), None);
    assert!(connection.is_idle());
}

#[test]
fn an_answer_ends_its_request_once_and_frees_its_id() {
    let mut connection = connection();
    assert_eq!(connection.respond(1, b"nobody asked"), None);
    let whole = request(1, b"", b"");
    connection.receive(&whole[..16], Instant::now());
    assert_eq!(connection.respond(1, b"before the end of STDIN"), None);
    connection.receive(&whole[16..], Instant::now());
    assert_eq!(connection.respond(1, b"hello"), Some(wire::response(1, b"hello")));
    assert_eq!(connection.respond(1, b"again"), None);
    assert_eq!(show(&connection.receive(&whole, Instant::now())), ["REQUEST id=1 [] body="]);
}

#[test]
fn keep_conn_decides_who_closes() {
    let whole = |id: u16, flags: &[u8]| {
        [record(BEGIN_REQUEST, id, flags), record(PARAMS, id, b""), record(STDIN, id, b"")].concat()
    };
    let mut kept = connection();
    kept.receive(&whole(1, KEEP), Instant::now());
    kept.respond(1, b"");
    assert_eq!((kept.is_idle(), kept.is_finished()), (true, false));

    let mut single = connection();
    single.receive(&whole(1, NO_FLAGS), Instant::now());
    assert_eq!((single.is_idle(), single.is_finished()), (false, false));
    single.respond(1, b"");
    assert!(single.is_finished());

    let mut mixed = connection();
    mixed.receive(&[whole(1, NO_FLAGS), whole(2, KEEP)].concat(), Instant::now());
    mixed.respond(1, b"");
    assert!(!mixed.is_finished(), "request 2 is under way");
    mixed.respond(2, b"");
    assert!(mixed.is_finished());

    for refused in [record(BEGIN_REQUEST, 1, &[0; 8]), [whole(1, NO_FLAGS), record(ABORT_REQUEST, 1, b"")].concat()] {
        let mut connection = connection();
        connection.receive(&refused, Instant::now());
        assert!(connection.is_finished());
    }
}

#[test]
fn a_connection_that_finishes_answers_what_it_has_and_refuses_more() {
    let mut connection = connection();
    connection.receive(&request(1, b"", b"")[..16], Instant::now());
    connection.finish();
    assert!(!connection.is_finished());
    assert_eq!(show(&connection.receive(&request(2, b"", b""), Instant::now())), ["END id=2 app=0 status=2"]);
    let rest = &request(1, b"", b"")[16..];
    assert_eq!(show(&connection.receive(rest, Instant::now())), ["REQUEST id=1 [] body="]);
    assert!(connection.respond(1, b"").is_some());
    assert!(connection.is_finished());
}

#[test]
fn violations_break_the_connection_and_what_came_before_counts() {
    let good = request(1, b"", b"");
    let good_shown = "REQUEST id=1 [] body=";
    let table: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.1\r\n", "BROKEN Version(71)"),
        (b"\0", "BROKEN Version(0)"),
        (b"\x02\x01\0\x01\0\0\0\0", "BROKEN Version(2)"),
        (&record(BEGIN_REQUEST, 2, b""), "BROKEN ShortBegin"),
        (&record(BEGIN_REQUEST, 2, &KEEP[..7]), "BROKEN ShortBegin"),
        (&record(BEGIN_REQUEST, 1, KEEP), "BROKEN SecondBegin(1)"),
    ];
    for (bad, expected) in table {
        check(&[&good, bad, &request(3, b"", b"")], &[good_shown, expected]);
    }
    let mut connection = connection();
    connection.receive(b"x", Instant::now());
    assert_eq!(show(&connection.receive(&good, Instant::now())), [""; 0], "a broken connection stays broken");
}

#[test]
fn a_longer_begin_and_any_padding_are_read() {
    let mut padded = record(BEGIN_REQUEST, 1, &[KEEP, b"more"].concat());
    for (kind, content) in [(PARAMS, &b"\x01\x01Av"[..]), (PARAMS, b""), (STDIN, b"")] {
        padded.extend([1, kind, 0, 1, 0, content.len() as u8, 255, 0]);
        padded.extend(content);
        padded.extend([1; 255]);
    }
    check(&[&padded], &["REQUEST id=1 [A=v] body="]);
}

#[test]
fn what_is_half_here_is_known_by_its_age_and_given_up() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut connection = connection();
    assert_eq!(connection.incomplete_since(), None);
    connection.receive(&record(BEGIN_REQUEST, 1, KEEP), at(1));
    connection.receive(&request(2, b"", b""), at(2));
    connection.receive(&record(BEGIN_REQUEST, 3, KEEP), at(3));
    assert_eq!(connection.incomplete_since(), Some(at(1)));
    assert_eq!(show(&connection.expire(start)), [""; 0]);
    assert_eq!(show(&connection.expire(at(1))), ["END id=1 app=1 status=0"]);
    assert_eq!(connection.incomplete_since(), Some(at(3)), "request 2 is complete and waits for its answer");

    connection.receive(&record(STDIN, 3, b"")[..5], at(4));
    assert_eq!(show(&connection.expire(at(3))), ["END id=3 app=1 status=0"]);
    assert_eq!(connection.incomplete_since(), Some(at(4)));
    assert_eq!(show(&connection.expire(at(4))), ["BROKEN Stalled"]);
}

#[test]
fn a_request_arrives_with_its_first_byte() {
    let (first, last) = (Instant::now(), Instant::now() + Duration::from_secs(9));
    let whole = request(1, b"", b"");
    let mut connection = connection();
    connection.receive(&whole[..1], first);
    let received = connection.receive(&whole[1..], last);
    let [Event::Request { request, .. }] = &received.events[..] else { panic!("{received:?}") };
    assert_eq!(request.arrived, first);
}

/// What a hostile peer may keep us holding: the record that comes in and MAX_REQUESTS requests, with the spare room
/// that growing vectors take.
const MOST_STORED: usize = 2 * 66 * 1024 + MAX_REQUESTS * 2 * (MAX_PARAMS_BYTES + MAX_BODY_BYTES);

#[test]
fn a_full_house_stays_within_the_bound() {
    let mut connection = connection();
    for id in 1..=MAX_REQUESTS as u16 + 9 {
        let half = [
            record(BEGIN_REQUEST, id, KEEP),
            record(PARAMS, id, &[0; MAX_CONTENT_BYTES]),
            record(STDIN, id, &[0; MAX_BODY_BYTES]),
        ];
        connection.receive(&half.concat(), Instant::now());
    }
    let stored = connection.stored_bytes();
    assert!((MAX_REQUESTS * MAX_CONTENT_BYTES..=MOST_STORED).contains(&stored), "{stored}");
}

/// Records as a confused peer might send them: few ids, all types, contents that may be pairs.
fn some_record() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(BEGIN_REQUEST), Just(PARAMS), Just(STDIN), Just(ABORT_REQUEST), any::<u8>()];
    let content = prop_oneof![
        Just(KEEP.to_vec()),
        Just(Vec::new()),
        Just(b"\x01\x01Av".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    (kind, 0u16..4, content).prop_map(|(kind, id, content)| record(kind, id, &content))
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_memory_stays_bounded(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..20),
    ) {
        let mut connection = connection();
        for chunk in chunks {
            connection.receive(&chunk, Instant::now());
            prop_assert!(connection.stored_bytes() <= MOST_STORED);
        }
    }

    #[test]
    fn random_records_never_panic_and_mean_the_same_however_they_are_cut(
        records in proptest::collection::vec(some_record(), 0..60),
        chunk_len in 1usize..50,
    ) {
        let bytes = records.concat();
        let now = Instant::now();
        let whole = connection().receive(&bytes, now);
        let mut in_chunks = Received::default();
        let mut cut = connection();
        for chunk in bytes.chunks(chunk_len) {
            let more = cut.receive(chunk, now);
            in_chunks.events.extend(more.events);
            in_chunks.send.extend(more.send);
        }
        prop_assert_eq!(show(&in_chunks), show(&whole));
        prop_assert!(cut.stored_bytes() <= MOST_STORED);
    }
}
