//! A program of the jail's root as payload.

use std::ffi::{CStr, CString};

use rustix::io::Errno;

use super::clone::last_error;
use super::error::{Failure, Step};

/// Where programs are looked for if the environment has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    arguments: Vec<CString>,
    directory: CString,
}

impl Program {
    /// A program, which is looked for in the jail's `PATH` if it has no slash, and all its arguments, of
    /// which the first is its own name. It begins in `/`.
    ///
    /// `None` if there is not even a name, or a zero byte in one.
    #[must_use]
    pub fn new<S: AsRef<[u8]>>(arguments: impl IntoIterator<Item = S>) -> Option<Self> {
        let arguments: Option<Vec<_>> = arguments
            .into_iter()
            .map(|word| CString::new(word.as_ref()).ok())
            .collect();
        Some(Self {
            arguments: arguments.filter(|arguments| !arguments.is_empty())?,
            directory: c"/".into(),
        })
    }

    /// Lets it begin in another directory.
    #[must_use]
    pub fn directory(mut self, directory: CString) -> Self {
        self.directory = directory;
        self
    }

    /// Becomes the program; comes back only if there is none.
    pub(super) fn execute(&self, environment: &[CString]) -> Failure {
        if let Err(errno) = rustix::process::chdir(self.directory.as_c_str()) {
            return Failure::new(
                Step::Exec,
                format!("its directory {}", self.directory.to_string_lossy()),
                errno,
            );
        }
        let arguments = pointers(&self.arguments);
        let variables = pointers(environment);
        let name = &self.arguments[0];
        let mut reason = Errno::NOENT;
        for path in candidates(name, environment) {
            // SAFETY: all are C strings, the lists end with null, and all outlive the call.
            unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
            let errno = last_error();
            // One that may not be executed is worth more to tell of than none at the next place.
            if !matches!(errno, Errno::NOENT | Errno::NOTDIR) {
                reason = errno;
            }
        }
        Failure::new(Step::Exec, name.to_string_lossy(), reason)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([std::ptr::null()]).collect()
}

/// The files that a name may mean.
fn candidates(name: &CStr, environment: &[CString]) -> Vec<CString> {
    if name.to_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    let path = environment
        .iter()
        .find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(PATH.as_bytes())
        .split(|byte| *byte == b':')
        .filter(|folder| !folder.is_empty())
        .filter_map(|folder| CString::new([folder, b"/", name.to_bytes()].concat()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_looked_for_in_the_path() {
        let environment = [c"PATH=/a::/b".to_owned()];
        assert_eq!(
            candidates(c"sh", &environment),
            [c"/a/sh".to_owned(), c"/b/sh".to_owned()]
        );
        assert_eq!(candidates(c"/bin/sh", &environment), [c"/bin/sh".to_owned()]);
        assert_eq!(candidates(c"sh", &[]).len(), 6);
    }

    #[test]
    fn a_program_has_a_name_and_no_zero_bytes() {
        assert!(Program::new(Vec::<&str>::new()).is_none());
        assert!(Program::new(["a", "b\0c"]).is_none());
        assert!(Program::new(["a"]).is_some());
    }
}
