//! The options of `run`, without making a parser first: most of a start went into that.
//!
//! [`quick!`](crate::options::quick!) is put round a structure that clap's `Args` is derived for. From the
//! same attributes it makes [`Quick`], which reads what is plain: options that are known, each with a
//! value that is one. Of anything else (help, a mistake, a form that is seldom used) it makes nothing, and
//! clap, which knows all forms and words for all mistakes, reads the line from its beginning.

/// Options that can be read without clap.
pub(crate) trait Quick: Sized {
    /// What they are if none is given.
    fn unless_given() -> Option<Self>;

    /// Takes an option, with its value if it has one; `None` if that is for clap.
    fn take(&mut self, option: &mut Given<'_, '_>) -> Option<()>;
}

/// An option on the command line.
pub(crate) struct Given<'g, 'w> {
    /// Without its hyphens.
    name: &'w str,
    is_long: bool,
    /// What is behind its `=`.
    inline: Option<&'w str>,
    words: &'g mut std::iter::Copied<std::slice::Iter<'w, &'w str>>,
    seen: &'g mut Vec<&'static str>,
}

impl Given<'_, '_> {
    /// Whether it is the option of this field.
    pub(crate) fn is(&self, field: &str, short: Option<char>, long: bool) -> bool {
        if self.is_long {
            let spelt = field.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
            return long && spelt.eq(self.name.bytes());
        }
        short.is_some_and(|short| self.name.chars().eq([short]))
    }

    /// The value for this field. One that may be an option itself is for clap, and so is an option that
    /// is given again and cannot be.
    pub(crate) fn value<F: Field>(&mut self, field: &'static str) -> Option<&str> {
        if !F::MANY && self.seen.contains(&field) {
            return None;
        }
        self.seen.push(field);
        if F::IS_FLAG {
            return self.inline.is_none().then_some("true");
        }
        let value = self.inline.or_else(|| self.words.next())?;
        (!value.is_empty() && !value.starts_with('-')).then_some(value)
    }
}

/// The type of a field.
pub(crate) trait Field: Sized {
    /// What is read of one option.
    type Item;
    /// It may be given several times.
    const MANY: bool = false;
    /// It has no value.
    const IS_FLAG: bool = false;

    /// What it is if it is not given, and no default is.
    fn absent() -> Option<Self>;

    fn put(&mut self, item: Self::Item);
}

impl Field for bool {
    type Item = Self;
    const IS_FLAG: bool = true;

    fn absent() -> Option<Self> {
        Some(false)
    }

    fn put(&mut self, item: Self) {
        *self = item;
    }
}

impl<T> Field for Option<T> {
    type Item = T;

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn put(&mut self, item: T) {
        *self = Some(item);
    }
}

impl<T> Field for Vec<T> {
    type Item = T;
    const MANY: bool = true;

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn put(&mut self, item: T) {
        self.push(item);
    }
}

/// Types of options that have a default.
macro_rules! with_default {
    ($($type:ty),*) => {$(
        impl Field for $type {
            type Item = Self;

            fn absent() -> Option<Self> {
                None
            }

            fn put(&mut self, item: Self) {
                *self = item;
            }
        }
    )*};
}

with_default!(
    u32,
    u64,
    std::path::PathBuf,
    chiton_container::instance::RestartPolicy,
    crate::jailed::options::Network
);

/// Reads the options at the beginning of these words, and returns them with the first word that is none,
/// and those behind it.
pub(crate) fn read<'w, Q: Quick>(words: &'w [&'w str]) -> Option<(Q, &'w [&'w str])> {
    let mut options = Q::unless_given()?;
    let mut seen = Vec::new();
    let mut rest = words.iter().copied();
    loop {
        let Some(word) = rest.next() else {
            return Some((options, &[]));
        };
        let Some(name) = word.strip_prefix('-') else {
            let others = words.len() - rest.len() - 1;
            return Some((options, &words[others..]));
        };
        let (name, is_long) = name.strip_prefix('-').map_or((name, false), |long| (long, true));
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) if is_long => (name, Some(value)),
            _ => (name, None),
        };
        options.take(&mut Given {
            name,
            is_long,
            inline,
            words: &mut rest,
            seen: &mut seen,
        })?;
    }
}

/// Makes [`Quick`] of a structure of options, by the attributes that clap reads.
macro_rules! quick {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$attribute:ident $($words:tt)*])* $field_vis:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$attribute $($words)*])* $field_vis $field: $type,)*
        }

        impl $crate::options::quick::Quick for $name {
            fn unless_given() -> Option<Self> {
                Some(Self { $($field: $crate::options::quick::absent!($type; $([$attribute $($words)*])*),)* })
            }

            fn take(&mut self, option: &mut $crate::options::quick::Given<'_, '_>) -> Option<()> {
                $($crate::options::quick::take!(self.$field: $type, option; $([$attribute $($words)*])*);)*
                None
            }
        }
    };
}

/// What a field is if its option is not given.
macro_rules! absent {
    ($type:ty; [doc $($doc:tt)*] $($rest:tt)*) => { $crate::options::quick::absent!($type; $($rest)*) };
    ($type:ty; [command (flatten)]) => { <$type as $crate::options::quick::Quick>::unless_given()? };
    ($type:ty; [arg ($($arg:tt)*)]) => { $crate::options::quick::absent!($type; ($($arg)*) $($arg)*) };
    ($type:ty; ($($all:tt)*) default_value = $text:expr $(, $($rest:tt)*)?) => {
        $crate::options::quick::parse!($text; $($all)*)?
    };
    ($type:ty; ($($all:tt)*) default_value_t = $value:expr $(, $($rest:tt)*)?) => { $value };
    ($type:ty; ($($all:tt)*) $key:ident $(= $value:expr)? $(, $($rest:tt)*)?) => {
        $crate::options::quick::absent!($type; ($($all)*) $($($rest)*)?)
    };
    ($type:ty; ($($all:tt)*)) => { <$type as $crate::options::quick::Field>::absent()? };
}

/// Leaves the function if the option is this field's, which has taken it then.
macro_rules! take {
    ($self:ident.$field:ident: $type:ty, $option:ident; [doc $($doc:tt)*] $($rest:tt)*) => {
        $crate::options::quick::take!($self.$field: $type, $option; $($rest)*)
    };
    ($self:ident.$field:ident: $type:ty, $option:ident; [command (flatten)]) => {
        if $crate::options::quick::Quick::take(&mut $self.$field, $option).is_some() {
            return Some(());
        }
    };
    ($self:ident.$field:ident: $type:ty, $option:ident; [arg ($($arg:tt)*)]) => {
        let short = $crate::options::quick::short!($field; $($arg)*);
        if $option.is(stringify!($field), short, $crate::options::quick::long!($($arg)*)) {
            let text = $option.value::<$type>(stringify!($field))?;
            let item = $crate::options::quick::parse!(text; $($arg)*)?;
            <$type as $crate::options::quick::Field>::put(&mut $self.$field, item);
            return Some(());
        }
    };
}

/// The letter of an option, if it has one.
macro_rules! short {
    ($field:ident; short = $letter:literal $(, $($rest:tt)*)?) => { Some($letter) };
    ($field:ident; short $(, $($rest:tt)*)?) => { stringify!($field).chars().next() };
    ($field:ident; $key:ident $(= $value:expr)? $(, $($rest:tt)*)?) => {
        $crate::options::quick::short!($field; $($($rest)*)?)
    };
    ($field:ident;) => { None };
}

/// Whether an option has a word.
macro_rules! long {
    (long $(, $($rest:tt)*)?) => { true };
    ($key:ident $(= $value:expr)? $(, $($rest:tt)*)?) => { $crate::options::quick::long!($($($rest)*)?) };
    () => { false };
}

/// The value that a text is; none of options that only clap can read.
macro_rules! parse {
    ($text:expr; value_parser = $parser:expr $(, $($rest:tt)*)?) => { $parser($text).ok() };
    ($text:expr; num_args = $args:expr $(, $($rest:tt)*)?) => {{ let _: &str = $text; None }};
    ($text:expr; value_enum $(, $($rest:tt)*)?) => {{ let _: &str = $text; None }};
    ($text:expr; $key:ident $(= $value:expr)? $(, $($rest:tt)*)?) => {
        $crate::options::quick::parse!($text; $($($rest)*)?)
    };
    ($text:expr;) => { $text.parse().ok() };
}

pub(crate) use {absent, long, parse, quick, short, take};

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::options::{Command, Options, Run};

    fn words(line: &str) -> Vec<std::ffi::OsString> {
        line.split(' ').map(Into::into).collect()
    }

    /// What both make of a line, in the words of `Debug`; none for what is not read.
    fn both(line: &str) -> (Option<String>, Option<String>) {
        let quick = Options::<Command>::quickly(&words(line)).map(|options| match options.command {
            Command::Run(run) => format!("{} {run:?}", options.verbose),
            other => panic!("{line}: {other:?}"),
        });
        let clap = Options::<Run>::try_parse_from(words(line)).ok();
        (
            quick,
            clap.map(|options| format!("{} {:?}", options.verbose, options.command)),
        )
    }

    /// A plain value of each option, and of those that have a letter the letter too.
    const PLAIN: &str = "--from a.snap --verify --memory 64M -m 1G --cpus 4 --disk a.img:ro,direct --net tap=tap0,ip=10.0.0.2/24 \
        -n tap=tap1 --vsock a.sock,cid=7 --folder src:rw -f lib --emulated-disk b.img --emulated-net tap=tap2 \
        --port log=log.sock --io-thread --packed --env A=b -e C= --timeout 3s -t 500ms --control c.sock --stop-timeout 1m \
        --exits -x --detach -d --name web --rm --restart always --interactive -i --label a=b -l c --no-jail \
        --network bridge --publish 8080:80 -p 53:53/udp --ip 10.87.0.5 --mac 02:00:00:00:00:01 --mtu 1400 \
        --dns 1.1.1.1 --add-host db:10.0.0.9 --volume /srv:/srv:ro -v /a:/b --process --user web -u 0:0 --read-only --hostname h \
        --namespace pid=host --pid host --ipc container:a --uts host --clock monotonic=-5 --cpu-max 0.5 --cpu-weight 50 --cpuset-cpus 0-1 \
        --cpuset-mems 0 --memory-max 1G --memory-high 1G --memory-low 1M --memory-min 1M --memory-reservation 1M --swap-max 0 \
        --pids-max 64 --ulimit nofile=64 --io-max 8:0:rbps=10M --io-weight 10 --kvm /dev/null";

    /// The options that [`PLAIN`] has, each with its value.
    fn plain() -> Vec<Vec<&'static str>> {
        let mut options: Vec<Vec<_>> = Vec::new();
        for word in PLAIN.split_whitespace() {
            match options.last_mut() {
                Some(option) if !word.starts_with('-') => option.push(word),
                _ => options.push(vec![word]),
            }
        }
        options
    }

    #[test]
    fn each_plain_option_is_read_as_clap_reads_it() {
        for option in plain() {
            let line = format!("chiton run {} hello --exits -v", option.join(" "));
            let (quick, clap) = both(&line);
            assert!(quick.is_some(), "{line}");
            assert_eq!(quick, clap, "{line}");
            if let [long, value] = option[..]
                && long.starts_with("--")
            {
                let line = format!("chiton -v run {long}={value} hello");
                let (quick, clap) = both(&line);
                assert!(quick.is_some(), "{line}");
                assert_eq!(quick, clap, "{line}");
            }
        }
    }

    #[test]
    fn all_at_once_and_several_times_where_that_is_allowed() {
        let long: Vec<_> = plain()
            .into_iter()
            .filter(|option| option[0].starts_with("--"))
            .flatten()
            .collect();
        let line = format!(
            "chiton -v -v run {} --disk c --disk d,queues=2 --env X=y hello a",
            long.join(" ")
        );
        let (quick, clap) = both(&line);
        assert!(quick.is_some());
        assert_eq!(quick, clap);
    }

    #[test]
    fn every_option_is_read_but_for_those_that_are_left_to_clap() {
        const LEFT: [&str; 3] = ["balloon", "ring", "help"];
        let mut command = Options::<Run>::command();
        command.build();
        let run = command.find_subcommand("run").expect("there is one");
        for option in run.get_arguments() {
            let Some(long) = option.get_long() else { continue };
            let read = PLAIN.split_whitespace().any(|word| word == format!("--{long}"));
            assert_eq!(read, !LEFT.contains(&long), "--{long}");
            if let Some(short) = option.get_short().filter(|_| read) {
                assert!(
                    PLAIN.split_whitespace().any(|word| word == format!("-{short}")),
                    "-{short}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_made_of_what_is_not_plain() {
        for line in [
            "chiton",
            "chiton run",
            "chiton ps",
            "chiton run --help",
            "chiton -h run hello",
            "chiton -vv run hello",
            "chiton run -- hello",
            "chiton run - hello",
            "chiton run --nonsense hello",
            "chiton run --memory",
            "chiton run --memory 1",
            "chiton run --memory lots hello",
            "chiton run --memory 1M --memory 1M hello",
            "chiton run --exits --exits hello",
            "chiton run --exits=yes hello",
            "chiton run --name -x hello",
            "chiton run --name= hello",
            "chiton run -m1M hello",
            "chiton run -xd hello",
            "chiton run --cpus 0 hello",
            "chiton run --cpus 33 hello",
            "chiton run --balloon hello",
            "chiton run --ring 0 hello",
            "chiton run --io_thread hello",
            "chiton run --guest hello",
        ] {
            assert_eq!(both(line).0, None, "{line}");
        }
    }

    #[test]
    fn words_that_are_no_text_are_left_to_clap() {
        use std::os::unix::ffi::OsStringExt;
        let line = [b"chiton".to_vec(), b"run".to_vec(), vec![0xff]].map(std::ffi::OsString::from_vec);
        assert!(Options::<Command>::quickly(&line).is_none());
    }
}
