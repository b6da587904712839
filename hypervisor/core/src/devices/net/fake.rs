//! A link whose other end a test holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, Header,
};

use super::{Link, Received, Sent};

/// What the test's end of a link sees and sets.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) input: VecDeque<Vec<u8>>,
    pub(crate) output: Vec<(Header, Vec<u8>)>,
    pub(crate) offloads: u64,
    pub(crate) receives: usize,
    pub(crate) gone: bool,
    pub(crate) blocked: bool,
}

/// A link; clones are the same link.
#[derive(Clone, Default)]
pub(crate) struct FakeLink(Arc<Mutex<State>>);

impl FakeLink {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for FakeLink {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 7]
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn offloads(&self) -> u64 {
        F_CSUM | F_GUEST_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_USO
    }

    fn set_offloads(&mut self, features: u64) {
        self.state().offloads = features;
    }

    fn receive(&mut self, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        let mut state = self.state();
        state.receives += 1;
        if state.gone {
            return Received::Gone;
        }
        let Some(frame) = state.input.pop_front() else {
            return Received::Empty;
        };
        header[0] = 2;
        let mut done = 0;
        for window in to {
            let len = window.len().min(frame.len() - done);
            window.write(0, &frame[done..done + len]);
            done += len;
        }
        if done < frame.len() {
            Received::TooLong
        } else {
            Received::Frame(done)
        }
    }

    fn send(&mut self, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        let mut state = self.state();
        if state.gone {
            return Sent::Gone;
        }
        if state.blocked {
            return Sent::Dropped;
        }
        let mut bytes = Vec::new();
        for window in frame {
            let start = bytes.len();
            bytes.resize(start + window.len(), 0);
            window.read(0, &mut bytes[start..]);
        }
        state.output.push((Header::from_bytes(header), bytes));
        Sent::Done
    }
}
