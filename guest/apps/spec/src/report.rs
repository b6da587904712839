//! What was checked, kept until there is a console to print it.

use alloc::format;
use alloc::string::String;

/// Checks so far.
pub struct Report {
    about: &'static str,
    text: String,
    failures: u32,
}

impl Report {
    pub fn new() -> Self {
        Self {
            about: "",
            text: String::new(),
            failures: 0,
        }
    }

    /// Names the device that the next checks are about.
    pub fn about(&mut self, device: &'static str) {
        self.about = device;
    }

    /// Notes a check.
    pub fn check(&mut self, what: &str, passed: bool) {
        let verdict = if passed { "PASS" } else { "FAIL" };
        self.text += &format!("{verdict} {}: {what}\n", self.about);
        self.failures += u32::from(!passed);
        if !passed {
            // In case no console works.
            chiton_guest::log::error!("{}: {what}: failed", self.about);
        }
    }

    /// Notes a check by its result, and gives what it found.
    pub fn result<T>(&mut self, what: &str, result: Result<T, &'static str>) -> Option<T> {
        match result {
            Ok(value) => {
                self.check(what, true);
                Some(value)
            }
            Err(why) => {
                self.check(&format!("{what} ({why})"), false);
                None
            }
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}
