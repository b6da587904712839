//! HTTP/1.1 (RFC 9112): one request and its answer a connection.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::super::{Error, Limits, Result};
use super::transport::{Connection, connect};
use super::url::Url;

/// The longest head of an answer.
const HEAD: u64 = 64 << 10;
/// The most headers of an answer.
const HEADERS: usize = 100;
/// The longest line that states the size of a chunk.
const CHUNK_LINE: u64 = 1024;

/// What is sent behind the head.
pub(super) enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// What this opens, and how much it is. It may be opened twice.
    Stream(&'a dyn Fn() -> Result<Box<dyn Read>>, u64),
}

/// A request.
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body<'a>,
}

/// An answer, whose body is still to be read.
pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    body: Incoming,
}

impl Response {
    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All headers of this name.
    pub(super) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self
            .headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn into_body(self) -> Incoming {
        self.body
    }

    /// The body, if it is no longer than a document may be.
    pub(super) fn document(self, url: &Url) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let failed = |why: &dyn std::fmt::Display| Error::Registry {
            host: url.authority.clone(),
            why: format!("{}: {why}", url.path),
        };
        let read = self.body.take(Limits::DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed(&error))?;
        if bytes.len() as u64 > Limits::DOCUMENT {
            return Err(failed(&"the answer is longer than a document may be, 4 MiB"));
        }
        Ok(bytes)
    }
}

/// Sends a request and reads the head of the answer.
pub(super) fn send(request: &Request<'_>) -> Result<Response> {
    let failed = |error: io::Error| Error::Registry {
        host: request.url.authority.clone(),
        why: format!(
            "{} {}: {error}",
            request.method,
            request.url.path.chars().take(200).collect::<String>()
        ),
    };
    let body: Option<(Box<dyn Read + '_>, u64)> = match &request.body {
        Body::Empty => None,
        Body::Bytes(bytes) => Some((Box::new(*bytes), bytes.len() as u64)),
        Body::Stream(open, length) => Some((open()?, *length)),
    };
    let mut connection = BufReader::new(connect(&request.url)?);
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\n",
        request.method, request.url.path, request.url.authority
    );
    head += concat!(
        "User-Agent: chiton/",
        env!("CARGO_PKG_VERSION"),
        "\r\nConnection: close\r\n"
    );
    for (name, value) in &request.headers {
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(failed(io::Error::other(format!(
                "the value of {name} has a control character"
            ))));
        }
        head += &format!("{name}: {value}\r\n");
    }
    if let Some((_, length)) = &body {
        head += &format!("Content-Length: {length}\r\n");
    } else if matches!(request.method, "POST" | "PUT" | "PATCH") {
        head += "Content-Length: 0\r\n";
    }
    head += "\r\n";
    let to = connection.get_mut();
    let sent = to.write_all(head.as_bytes()).and_then(|()| match body {
        None => Ok(()),
        Some((mut body, length)) => match io::copy(&mut body, to)? {
            all if all == length => Ok(()),
            less => Err(io::Error::other(format!(
                "there are {less} bytes to send instead of {length}"
            ))),
        },
    });
    let sent = sent.and_then(|()| to.flush());
    // A server that refuses may answer before all is sent, and read no further.
    match (sent, receive(connection, request.method == "HEAD")) {
        (_, Ok(response)) => Ok(response),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(failed(error)),
    }
}

fn receive(mut connection: BufReader<Box<dyn Connection>>, is_head: bool) -> io::Result<Response> {
    loop {
        let (status, headers) = parse(&read_head(&mut connection)?)?;
        if (100..200).contains(&status) {
            continue;
        }
        let header = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let left = if is_head || status == 204 || status == 304 {
            Left::Bytes(0)
        } else if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            Left::Chunks(0)
        } else if let Some(length) = header("content-length") {
            Left::Bytes(
                length
                    .trim()
                    .parse()
                    .map_err(|_| invalid("Content-Length is no number"))?,
            )
        } else {
            Left::All
        };
        let body = Incoming { connection, left };
        return Ok(Response { status, headers, body });
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Everything to the empty line.
fn read_head(connection: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut bounded = connection.take(HEAD);
    loop {
        let count = bounded.read_until(b'\n', &mut head)?;
        if count == 0 {
            return Err(invalid("the head of the answer is cut short, or too long"));
        }
        if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(head);
        }
    }
}

/// Status and headers.
pub(super) fn parse(head: &[u8]) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(invalid("the answer is no HTTP")),
    }
    let status = response.code.ok_or_else(|| invalid("the answer has no status"))?;
    let text = |header: &httparse::Header<'_>| {
        (
            header.name.to_owned(),
            String::from_utf8_lossy(header.value).into_owned(),
        )
    };
    Ok((status, response.headers.iter().map(text).collect()))
}

/// What is left of a body.
enum Left {
    Bytes(u64),
    /// So many bytes of a chunk, and further chunks.
    Chunks(u64),
    /// Up to the end of the connection.
    All,
}

/// A body that is read; one that is cut short is an error.
pub(super) struct Incoming {
    connection: BufReader<Box<dyn Connection>>,
    left: Left,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Left::Chunks(0) = self.left {
            match next_chunk(&mut self.connection)? {
                0 => self.left = Left::Bytes(0),
                length => self.left = Left::Chunks(length),
            }
        }
        let room = match self.left {
            Left::All => return self.connection.read(buffer),
            Left::Bytes(left) | Left::Chunks(left) => usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()),
        };
        if room == 0 {
            return Ok(0);
        }
        let count = self.connection.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut short"));
        }
        match &mut self.left {
            Left::Bytes(left) => *left -= count as u64,
            Left::Chunks(left) => {
                *left -= count as u64;
                if *left == 0 {
                    let mut end = [0; 2];
                    self.connection.read_exact(&mut end)?;
                    if end != *b"\r\n" {
                        return Err(invalid("a chunk has no end"));
                    }
                }
            }
            Left::All => {}
        }
        Ok(count)
    }
}

/// The size of the next chunk; 0 at the end, trailers passed over.
fn next_chunk(connection: &mut impl BufRead) -> io::Result<u64> {
    let mut line = Vec::new();
    (&mut *connection).take(CHUNK_LINE).read_until(b'\n', &mut line)?;
    match httparse::parse_chunk_size(&line) {
        Ok(httparse::Status::Complete((_, 0))) => loop {
            line.clear();
            (&mut *connection).take(HEAD).read_until(b'\n', &mut line)?;
            if matches!(&line[..], b"\r\n" | b"\n" | b"") {
                return Ok(0);
            }
        },
        Ok(httparse::Status::Complete((_, size))) => Ok(size),
        _ => Err(invalid("the size of a chunk is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &'static str) -> io::Result<String> {
        let connection: Box<dyn Connection> = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        let mut read = String::new();
        receive(BufReader::new(connection), false)?
            .into_body()
            .read_to_string(&mut read)?;
        Ok(read)
    }

    #[test]
    fn bodies_have_a_length_or_chunks_or_end_with_the_connection() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\nmore",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            assert_eq!(body(text).unwrap(), "hello", "{text}");
        }
        assert_eq!(body("HTTP/1.1 204 No\r\n\r\nx").unwrap(), "");
    }

    #[test]
    fn what_is_cut_short_or_no_http_is_an_error() {
        for text in [
            "",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nA: b",
        ] {
            assert!(body(text).is_err(), "{text}");
        }
    }
}
