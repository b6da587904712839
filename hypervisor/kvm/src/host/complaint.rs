//! What a backend has to say to the user, on its way to the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A place for one sentence, shared by a backend and who logs. What is said while the one before
/// has not been taken is lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaint(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether there is a sentence, so that looking costs next to nothing.
    there: AtomicBool,
    text: Mutex<Option<String>>,
}

impl Complaint {
    /// Says something, if nothing is waiting to be heard.
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        let mut place = self.0.text.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert_with(text);
        self.0.there.store(true, Ordering::Release);
    }

    /// What was said, once.
    pub(crate) fn take(&self) -> Option<String> {
        if !self.0.there.load(Ordering::Acquire) {
            return None;
        }
        let mut place = self.0.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.there.store(false, Ordering::Release);
        place.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_heard_once() {
        let complaint = Complaint::default();
        let heard = complaint.clone();
        assert_eq!(heard.take(), None);
        complaint.say(|| "one".into());
        complaint.say(|| "two".into());
        assert_eq!(heard.take().as_deref(), Some("one"));
        assert_eq!(heard.take(), None);
        complaint.say(|| "three".into());
        assert_eq!(heard.take().as_deref(), Some("three"));
    }
}
