//! What a server's answer says before its body: whether the file comes, and which bytes of it. Pure, so that it can be
//! fuzzed.

use std::time::{Duration, SystemTime};

/// An answer's status and those of its headers that count.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// Bytes of the body, where they are known before it.
    pub length: Option<u64>,
    content_type: String,
    content_encoding: String,
    content_range: String,
    retry_after: String,
}

impl Head {
    /// `header` gives the value of a header by its name; the empty one stands for none.
    pub fn new(status: u16, length: Option<u64>, header: impl Fn(&str) -> String) -> Self {
        let value = |name| header(name).trim().to_ascii_lowercase();
        Self {
            status,
            length,
            content_type: value("content-type"),
            content_encoding: value("content-encoding"),
            content_range: value("content-range"),
            // Dates are written in mixed case.
            retry_after: header("retry-after").trim().to_string(),
        }
    }
}

/// Which bytes of the file a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub from: u64,
    /// Behind its last byte, where that is known before.
    pub end: Option<u64>,
    /// The length of the whole file, where the server tells it.
    pub all: Option<u64>,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The body holds this part of the file.
    Body(Span),
    /// The rest of the file cannot be had: ask for the whole.
    Anew,
    /// Ask again, after this time if the server says it. The text says why.
    Later(String, Option<Duration>),
    /// There is nothing to be had, and this is why.
    Refused(String),
}

/// What follows from an answer to a request for all bytes after the first `from`.
pub fn answer(head: &Head, from: u64, now: SystemTime) -> Answer {
    match head.status {
        200 | 206 => file(head, from),
        416 if from > 0 => Answer::Anew,
        status @ (401 | 403) => Answer::Refused(format!(
            "may not be downloaded ({status}): its page may ask for an agreement; set HF_TOKEN to a token of your \
             account (https://huggingface.co/settings/tokens) that has agreed"
        )),
        404 => Answer::Refused("is not there (404): it has moved or was taken away; look for a copy".into()),
        status @ 300..=399 => Answer::Refused(format!("is redirected without a place ({status}); try again later")),
        status => {
            let why = format!("is not given ({status})");
            match status {
                408 | 425 | 429 | 500 | 502..=504 => Answer::Later(why, retry_after(&head.retry_after, now)),
                _ => Answer::Refused(format!("{why}; try again later")),
            }
        }
    }
}

/// What an answer with a body holds.
fn file(head: &Head, from: u64) -> Answer {
    let encoding = head.content_encoding.as_str();
    if !matches!(encoding, "" | "identity") {
        let name: String = encoding.chars().take(40).collect();
        return Answer::Refused(format!(
            "is sent packed ({name}), though it was asked for as it is: something between here and the hub changes it; \
             set HF_ENDPOINT to another mirror, or use another network"
        ));
    }
    if ["text/html", "application/xhtml"].iter().any(|page| head.content_type.starts_with(page)) {
        return Answer::Refused(format!("is {WEB_PAGE}"));
    }
    if head.status == 200 {
        return Answer::Body(Span { from: 0, end: head.length, all: head.length });
    }
    match range(head).filter(|span| span.from == from) {
        Some(span) => Answer::Body(span),
        None if from > 0 => Answer::Anew,
        None => Answer::Refused("is answered with a part that was not asked for (206); try another mirror".into()),
    }
}

/// What is said of a page in a file's place.
pub(super) const WEB_PAGE: &str = "a web page instead of the file: this network or the mirror may ask you to sign in; \
     open it in a browser, then run this again";

/// The bytes that a 206 says it holds: `bytes FIRST-LAST/ALL`, where ALL may be `*`. `None` unless it is one range of
/// bytes that fits the body's length.
fn range(head: &Head) -> Option<Span> {
    if head.content_type.starts_with("multipart/") {
        return None;
    }
    let (range, all) = head.content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (from, end) = (number(first)?, number(last)?.checked_add(1)?);
    let all = if all.trim() == "*" { None } else { Some(number(all)?) };
    let fits = from < end
        && all.is_none_or(|all| end <= all)
        && head.length.is_none_or(|length| from.checked_add(length) == Some(end));
    fits.then_some(Span { from, end: Some(end), all })
}

/// Digits alone: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// How long a server wants us to wait: seconds, or the date when to come back.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Some(seconds) = number(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, length: Option<u64>, headers: &[(&str, &str)]) -> Head {
        let value = |name: &str| headers.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value).to_string();
        Head::new(status, length, value)
    }

    fn partial(range: &str, length: Option<u64>) -> Answer {
        answer(&head(206, length, &[("content-range", range)]), 10, SystemTime::UNIX_EPOCH)
    }

    fn later(value: &str, now: u64) -> Option<Duration> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        match answer(&head(429, None, &[("retry-after", value)]), 0, now) {
            Answer::Later(why, wait) => wait.filter(|_| why.contains("429")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_range_that_goes_on_where_it_should_is_taken() {
        let span = |end, all| Answer::Body(Span { from: 10, end: Some(end), all });
        assert_eq!(partial("bytes 10-32/33", Some(23)), span(33, Some(33)));
        assert_eq!(partial("Bytes 10-32/*", None), span(33, None));
        // Less than was asked for is allowed: the rest is asked for after it.
        assert_eq!(partial("bytes 10-19/33", Some(10)), span(20, Some(33)));
    }

    #[test]
    fn any_other_range_begins_anew() {
        for range in [
            "",
            "bytes",
            "bytes 0-32/33",
            "bytes 11-32/33",
            "bytes 10-9/33",
            "bytes 10-40/33",
            "bytes +10-32/33",
            "bytes 10-18446744073709551615/*",
            "bytes */33",
            "bytes 10-32",
            "items 10-32/33",
            "bytes 10-32/33, bytes 40-50/60",
        ] {
            assert_eq!(partial(range, None), Answer::Anew, "{range}");
        }
        assert_eq!(partial("bytes 10-32/33", Some(22)), Answer::Anew, "the body is shorter than the range");
        let parts = [("content-type", "multipart/byteranges; boundary=x"), ("content-range", "bytes 10-32/33")];
        assert_eq!(answer(&head(206, None, &parts), 10, SystemTime::UNIX_EPOCH), Answer::Anew);
        assert_eq!(answer(&head(416, None, &[]), 10, SystemTime::UNIX_EPOCH), Answer::Anew);
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_refused() {
        let unasked = answer(&head(206, None, &[("content-range", "bytes 5-32/33")]), 0, SystemTime::UNIX_EPOCH);
        assert!(matches!(unasked, Answer::Refused(_)), "{unasked:?}");
        assert!(matches!(answer(&head(416, None, &[]), 0, SystemTime::UNIX_EPOCH), Answer::Refused(_)));
    }

    #[test]
    fn what_is_packed_or_a_page_is_refused() {
        let refused =
            |name: &str, value: &str| match answer(&head(200, None, &[(name, value)]), 0, SystemTime::UNIX_EPOCH) {
                Answer::Refused(why) => why,
                other => panic!("{other:?}"),
            };
        for encoding in ["gzip", "GZIP", "br", "deflate", "identity, gzip", "x"] {
            assert!(refused("content-encoding", encoding).contains("is sent packed"), "{encoding}");
        }
        assert!(refused("content-encoding", &"x".repeat(9000)).len() < 500);
        assert!(refused("content-type", "Text/HTML; charset=utf-8").contains("a web page"));
        let plain = answer(&head(200, Some(3), &[("content-encoding", "identity")]), 0, SystemTime::UNIX_EPOCH);
        assert_eq!(plain, Answer::Body(Span { from: 0, end: Some(3), all: Some(3) }));
    }

    #[test]
    fn the_time_to_wait_is_seconds_or_a_date() {
        assert_eq!(later("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(later("Thu, 01 Jan 1970 00:01:40 GMT", 70), Some(Duration::from_secs(30)));
        assert_eq!(later("Thu, 01 Jan 1970 00:01:40 GMT", 170), Some(Duration::ZERO));
        for nothing in ["", "soon", "-5", "1.5", "99999999999999999999999"] {
            assert_eq!(later(nothing, 0), None, "{nothing}");
        }
    }
}
