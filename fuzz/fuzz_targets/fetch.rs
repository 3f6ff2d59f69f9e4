//! A hub's answer to a request for a file. The input's first line has the status, the first byte that was asked for,
//! and the file's size; then come the headers, an empty line, and the body.
#![no_main]

use std::io::{self, Read};
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use ornstein::weights::fetch::answer::{Answer, Head, Span, answer};
use ornstein::weights::fetch::body::{Size, receive};

fuzz_target!(|data: &[u8]| {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = data.split_at(end.unwrap_or(data.len()));
    let head = String::from_utf8_lossy(head);
    let (first, headers) = head.split_once('\n').unwrap_or((&head, ""));
    let numbers: Vec<u64> = first.split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[status, from, size, ..] = &numbers[..] else { return };
    let value = |name: &str| {
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        headers.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect::<Vec<_>>().join(", ")
    };
    let head = Head::new(status as u16, value("content-length").parse().ok(), value);
    match answer(&head, from, SystemTime::UNIX_EPOCH) {
        Answer::Body(span) => {
            assert!(span.from == from || span.from == 0 && head.status == 200);
            let body = body.get(2..).unwrap_or_default();
            take(body, span, Size::Exactly(size), size);
            take(body, span, Size::AtMost(size), size);
        }
        Answer::Anew => assert!(from > 0),
        Answer::Later(why, _) | Answer::Refused(why) => assert!(why.len() < 1000),
    }
});

/// What is written is what came, and not more than the file has.
fn take(body: &[u8], span: Span, size: Size, most: u64) {
    let mut written = Vec::new();
    let mut drops = Drops(body);
    let result = receive(&mut drops, span, size, || Ok(&mut written), &mut |_| {});
    assert!(body.starts_with(&written));
    assert!(written.len() as u64 <= span.end.map_or(most, |end| end.min(most)).saturating_sub(span.from));
    if let Ok(done) = result {
        assert_eq!(done, span.from + written.len() as u64);
        assert!(span.end.is_none_or(|end| done == end));
    }
}

/// A body that comes in pieces of many lengths.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1 + self.0.len() % 13);
        self.0.read(&mut buffer[..most])
    }
}
