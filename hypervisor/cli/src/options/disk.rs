//! `--disk PATH[:ro|:rw][,OPTION…]`.

use std::path::PathBuf;

use chiton_kvm::{DiskOptions, MAX_DISK_QUEUES, Rate};

use super::size;

/// A disk as given on the command line.
#[derive(Clone, Debug)]
pub(crate) struct DiskOption {
    pub(crate) path: PathBuf,
    pub(crate) options: DiskOptions,
}

/// What can stand behind the path.
const KNOWN: &str = "serial=NAME, queues=N, ops=RATE, bytes=RATE, direct and raw";

pub(super) fn parse(text: &str) -> Result<DiskOption, String> {
    let (path, read_only, words) = split(text);
    if path.is_empty() {
        return Err("a disk needs the path of an image".into());
    }
    let mut options = DiskOptions::new().read_only(read_only);
    for word in words.split(',').filter(|word| !word.is_empty()) {
        options = match word.split_once('=') {
            None if word == "direct" => options.direct(true),
            None if word == "raw" => options.raw(true),
            Some(("ops", rate)) => options.limit_ops(self::rate(rate)?),
            Some(("bytes", rate)) => options.limit_bytes(self::rate(rate)?),
            Some(("queues", count)) => options.queues(queues(count)?),
            Some(("serial", serial)) => options.serial(serial).map_err(|error| error.to_string())?,
            _ => {
                return Err(format!(
                    "`{word}` is no option of a disk: there are {KNOWN}; if it is part of the image's name, \
                     write :rw behind that"
                ));
            }
        };
    }
    Ok(DiskOption {
        path: path.into(),
        options,
    })
}

fn queues(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_DISK_QUEUES).contains(count));
    count.ok_or_else(|| format!("a disk cannot have `{text}` queues: write 1 to {MAX_DISK_QUEUES}"))
}

/// `RATE[/BURST]`: so many a second, and so many at once.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let rate = match text.split_once('/') {
        Some((rate, burst)) => Rate::new(size(rate)?, size(burst)?),
        None => Rate::per_second(size(text)?),
    };
    rate.ok_or_else(|| format!("with a rate of `{text}` nothing would ever be done: write at least 1"))
}

/// Path, whether it is read-only, and the options. Without `:ro` or `:rw` to end it, the path ends
/// where only words that look like options follow.
fn split(text: &str) -> (&str, bool, &str) {
    for (mark, read_only) in [(":ro", true), (":rw", false)] {
        if let Some(path) = text.strip_suffix(mark) {
            return (path, read_only, "");
        }
        if let Some(at) = text.rfind(&format!("{mark},")) {
            return (&text[..at], read_only, &text[at + mark.len() + 1..]);
        }
    }
    let mut end = text.len();
    while let Some(comma) = text[..end].rfind(',')
        && is_option(&text[comma + 1..end])
    {
        end = comma;
    }
    (&text[..end], false, text[end..].trim_start_matches(','))
}

/// Whether it looks like an option, be it known or not.
fn is_option(word: &str) -> bool {
    match word.split_once('=') {
        Some((key, _)) => !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase()),
        None => matches!(word, "direct" | "raw"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_where_options_begin() {
        for (text, path, read_only, words) in [
            ("a.img", "a.img", false, ""),
            ("a.img:ro", "a.img", true, ""),
            ("a:ro:rw", "a:ro", false, ""),
            ("a,b.img", "a,b.img", false, ""),
            ("a,b.img,direct", "a,b.img", false, "direct"),
            ("a:ro,serial=x", "a", true, "serial=x"),
            ("a,serial=x,raw", "a", false, "serial=x,raw"),
            ("a,raw:rw", "a,raw", false, ""),
            ("a,raw:rw,direct", "a,raw", false, "direct"),
        ] {
            assert_eq!(split(text), (path, read_only, words), "{text}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for text in [
            "",
            ":ro",
            ",direct",
            "a,serial=",
            "a,cache=none",
            "a:ro,fast",
            "a,ops=0",
            "a,ops=x",
            "a,bytes=1M/0",
            "a,queues=0",
            "a,queues=33",
            "a,queues=x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("a:ro,serial=x,direct").is_ok());
        assert!(parse("a,ops=1000,bytes=10M/1M,queues=32").is_ok());
    }
}
