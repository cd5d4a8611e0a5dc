//! As much of HTTP/1.1 (RFC 9112) as the control API needs: one request a
//! connection, whose body means nothing.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest request line and header fields, in bytes.
const MAX_HEAD: usize = 8192;
const MAX_FIELDS: usize = 64;

/// A request's first line.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As it came, percent-encoded.
    pub path: String,
    /// What is behind a question mark, likewise.
    pub query: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    /// With the right ones, as the field Allow has them.
    WrongMethod(String),
    Late,
    Conflict,
    TooLong,
    Failed,
    NoBackend,
    Busy,
}

impl Status {
    fn line(&self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::WrongMethod(_) => "405 Method Not Allowed",
            Self::Late => "408 Request Timeout",
            Self::Conflict => "409 Conflict",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Failed => "500 Internal Server Error",
            Self::NoBackend => "502 Bad Gateway",
            Self::Busy => "503 Service Unavailable",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no whole request came within {0:?}")]
    Late(Duration),
    #[error("the request's head is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("the request is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    #[error("the client left")]
    Left,
}

impl Error {
    /// `None` when nobody is left to get an answer.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Late(_) => Some(Status::Late),
            Self::TooLong => Some(Status::TooLong),
            Self::Syntax(_) => Some(Status::BadRequest),
            Self::Left => None,
        }
    }
}

/// Reads up to the end of the head.
pub fn receive(mut stream: &UnixStream, deadline: Duration) -> Result<Request, Error> {
    let end = Instant::now() + deadline;
    let mut head = Vec::new();
    loop {
        if let Some(request) = parse(&head)? {
            return Ok(request);
        }
        if head.len() >= MAX_HEAD {
            return Err(Error::TooLong);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Late(deadline));
        }
        stream
            .set_read_timeout(Some(left))
            .map_err(|_| Error::Left)?;
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes) {
            Ok(0) => return Err(Error::Left),
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            Err(error) if is_passing(&error) => {}
            Err(_) => return Err(Error::Left),
        }
    }
}

fn parse(head: &[u8]) -> Result<Option<Request>, Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let status = request.parse(head).map_err(|error| match error {
        httparse::Error::TooManyHeaders => Error::TooLong,
        error => Error::Syntax(error),
    })?;
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Ok(None);
    };
    if status.is_partial() {
        return Ok(None);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    }))
}

/// The answer's body that tells an error.
pub fn problem(text: impl Into<String>) -> Value {
    json!({ "error": text.into() })
}

/// What is behind an answer's head.
pub enum Body {
    Json(Value),
    Text {
        content_type: &'static str,
        text: String,
    },
}

impl Body {
    fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Text { content_type, .. } => content_type,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Json(value) => format!("{value:#}\n"),
            Self::Text { text, .. } => text,
        }
    }
}

/// Sends the answer and closes the connection.
pub fn answer(
    mut stream: &UnixStream,
    status: Status,
    body: Body,
    deadline: Duration,
) -> io::Result<()> {
    let content_type = body.content_type();
    let body = body.text();
    let allow = match &status {
        Status::WrongMethod(right) => format!("Allow: {right}\r\n"),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        status.line(),
        body.len()
    );
    if deadline.is_zero() {
        stream.set_nonblocking(true)?;
    } else {
        stream.set_write_timeout(Some(deadline))?;
    }
    stream.write_all((head + &body).as_bytes())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_from(bytes: &[u8], keep_open: bool) -> Result<Request, Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        let kept = keep_open.then_some(theirs);
        let result = receive(&ours, Duration::from_millis(20));
        drop(kept);
        result
    }

    #[test]
    fn the_first_line_is_what_counts() {
        let request = receive_from(b"GET /v1/status?x HTTP/1.1\r\nHost: y\r\n\r\n", true).unwrap();
        assert_eq!((&*request.method, &*request.path), ("GET", "/v1/status"));
        assert_eq!(request.query, "x");
    }

    #[test]
    fn whoever_says_too_little_too_much_or_nonsense_is_told_so() {
        let status = |bytes: &[u8], open| receive_from(bytes, open).unwrap_err().status();
        assert_eq!(status(b"GET /", true), Some(Status::Late));
        assert_eq!(status(b"", true), Some(Status::Late));
        assert_eq!(status(b"GET /", false), None);
        assert_eq!(status(b"\xff\xfe\r\n\r\n", true), Some(Status::BadRequest));
        assert_eq!(
            status(b"GET / SPDY/9\r\n\r\n", true),
            Some(Status::BadRequest)
        );
        let long = [b"GET / HTTP/1.1\r\nx: ", &[b'y'; 2 * MAX_HEAD][..]].concat();
        assert_eq!(status(&long, true), Some(Status::TooLong));
        let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100)].concat();
        assert_eq!(status(&many, true), Some(Status::TooLong));
    }

    #[test]
    fn an_answer_is_whole() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let body = Body::Json(json!({"a": 1}));
        answer(
            &ours,
            Status::WrongMethod("GET".into()),
            body,
            Duration::from_secs(1),
        )
        .unwrap();
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("\r\nAllow: GET\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(body, "{\n  \"a\": 1\n}\n");
    }
}
