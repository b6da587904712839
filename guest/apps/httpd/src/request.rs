//! Requests, as far as a server of files has to understand them.

/// The most bytes of a request that are looked at.
pub(crate) const MAX: usize = 8 << 10;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    /// Only the head of the answer is wanted.
    pub(crate) head: bool,
    /// The connection stays for more requests.
    pub(crate) keep_alive: bool,
    /// How many bytes the request has.
    pub(crate) len: usize,
}

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// It is not complete yet.
    Incomplete,
    /// It is none that this server understands: the status of the answer.
    Wrong(&'static str),
}

/// Reads the request at the start of these bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Request<'_>, NoRequest> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Err(if bytes.len() >= MAX {
            NoRequest::Wrong("431 Request Header Fields Too Large")
        } else {
            NoRequest::Incomplete
        });
    };
    let wrong = NoRequest::Wrong("400 Bad Request");
    let Ok(text) = core::str::from_utf8(&bytes[..end]) else {
        return Err(wrong);
    };
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong);
    };
    let head = method == "HEAD";
    if !head && method != "GET" {
        return Err(NoRequest::Wrong("405 Method Not Allowed"));
    }
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(NoRequest::Wrong("505 HTTP Version Not Supported")),
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(wrong);
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("connection") {
            keep_alive = value.eq_ignore_ascii_case("keep-alive") || keep_alive && !value.eq_ignore_ascii_case("close");
        }
        let has_body = name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-length") && value != "0";
        if has_body {
            return Err(NoRequest::Wrong("413 Content Too Large"));
        }
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok(Request {
        path,
        head,
        keep_alive,
        len: end + 4,
    })
}
