//! One request to a running machine, and its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Longer than any command takes but a dump, and than the silence between two events.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;
const MAX_FIELDS: usize = 64;
/// Longest line of an event stream, in bytes.
const MAX_LINE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot ask the machine at {}; it has to be started with --api and this path", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the machine did not answer")]
    Io(#[from] io::Error),
    #[error("what answered at {} is not a machine's control API", path.display())]
    NotTheApi { path: PathBuf },
    #[error("{0}")]
    Refused(String),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

fn not_the_api(path: &Path) -> Error {
    Error::NotTheApi {
        path: path.to_owned(),
    }
}

pub fn ask(path: &Path, method: &str, target: &str) -> Result<Value, Error> {
    ask_within(Some(DEADLINE), path, method, target)
}

/// `None` waits as long as it takes.
pub fn ask_within(
    deadline: Option<Duration>,
    path: &Path,
    method: &str,
    target: &str,
) -> Result<Value, Error> {
    let bytes = exchange(deadline, path, method, target)?;
    let (code, body) = parse(&bytes).ok_or_else(|| not_the_api(path))?;
    let body = json(path, body)?;
    match code {
        200 => Ok(body),
        _ => Err(refused(path, &body)),
    }
}

/// An answer that is no JSON.
pub fn ask_text(path: &Path, target: &str) -> Result<String, Error> {
    let bytes = exchange(Some(DEADLINE), path, "GET", target)?;
    let (code, body) = parse(&bytes).ok_or_else(|| not_the_api(path))?;
    if code != 200 {
        return Err(refused(path, &json(path, body)?));
    }
    String::from_utf8(body.to_vec()).map_err(|_| not_the_api(path))
}

/// The data of server-sent events, one by one, until the machine ends.
pub fn follow(
    path: &Path,
    target: &str,
    mut each: impl FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let stream = send(Some(DEADLINE), path, "GET", target)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut is_head = true;
    loop {
        line.clear();
        (&mut stream).take(MAX_LINE).read_line(&mut line)?;
        match line.trim_end() {
            _ if line.is_empty() => return Ok(()),
            first if is_head => {
                is_head = false;
                if first.split(' ').nth(1) != Some("200") {
                    let mut rest = line.clone().into_bytes();
                    stream.take(MAX_ANSWER).read_to_end(&mut rest)?;
                    let (_, body) = parse(&rest).ok_or_else(|| not_the_api(path))?;
                    return Err(refused(path, &json(path, body)?));
                }
            }
            line => {
                if let Some(data) = line.strip_prefix("data: ") {
                    each(data)?;
                }
            }
        }
    }
}

fn json(path: &Path, body: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(body).map_err(|_| not_the_api(path))
}

fn refused(path: &Path, body: &Value) -> Error {
    match body["error"].as_str() {
        Some(text) => Error::Refused(text.to_owned()),
        None => not_the_api(path),
    }
}

/// Sends a request, and returns all that comes back.
fn exchange(
    deadline: Option<Duration>,
    path: &Path,
    method: &str,
    target: &str,
) -> Result<Vec<u8>, Error> {
    let stream = send(deadline, path, method, target)?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn send(
    deadline: Option<Duration>,
    path: &Path,
    method: &str,
    target: &str,
) -> Result<UnixStream, Error> {
    let mut stream = UnixStream::connect(path).map_err(|source| Error::Connect {
        path: path.to_owned(),
        source,
    })?;
    stream.set_read_timeout(deadline)?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: outboard\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// The code of an answer, and its body.
fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else {
        return None;
    };
    Some((response.code?, &bytes[head..]))
}
